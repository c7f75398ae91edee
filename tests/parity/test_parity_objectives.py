"""Our objectives and sentence-transformers' losses on the same embeddings: value and gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmembed.gpte.objectives import (
    AnglE,
    CoSENT,
    CosineRegression,
    EmbeddingDistillation,
    GuideMask,
    Hardness,
    InfoNCE,
    KLDistillation,
    MarginMSE,
    Matryoshka,
    SparsityPenalty,
    SpreadOut,
    Triplet,
)
from mmembed.gpte.protocols import Columns, Objective, Outputs

losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")

pytestmark = pytest.mark.parity

N, D = 6, 12


def batch(k: int = 0, **meta: Tensor) -> tuple[Columns, list[Tensor]]:
    """Columns, and the leaves in sentence-transformers' order: anchor, positive, negative 1, ..."""
    torch.manual_seed(3)
    query = torch.randn(N, D, dtype=torch.float64)
    columns = [query, query + 1.5 * torch.randn_like(query)]
    columns += [query + 1.5 * torch.randn_like(query) for _ in range(k)]
    leaves = [c.requires_grad_() for c in columns]
    negative = Outputs(dense=torch.stack(leaves[2:], dim=1).flatten(0, 1)) if k else None
    ours = Columns(Outputs(dense=leaves[0]), Outputs(dense=leaves[1]), negative, k, meta=dict(meta))
    return ours, leaves


def same(ours: Tensor, theirs: Tensor, leaves: list[Tensor], rtol: float = 1e-9) -> None:
    atol = 1e-12 if rtol < 1e-8 else 1e-7
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)
    assert theirs.item() != 0
    mine = torch.autograd.grad(ours, leaves, allow_unused=True)
    expected = torch.autograd.grad(theirs, leaves, allow_unused=True, retain_graph=True)
    for a, b in zip(mine, expected, strict=True):
        if a is None or b is None:
            assert a is b
        else:
            torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


class Lookup(nn.Module):
    """A model whose embeddings are what the features hold."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["x"]}

    def get_embedding_dimension(self) -> int:
        return D


ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"temperature": 0.01}, {"scale": 100.0}),
        (
            {"directions": ("q2d", "d2q"), "partition": "direction"},
            {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
        ),
        ({"directions": ("q2d", "q2q")}, {"directions": ("query_to_doc", "query_to_query")}),
        (
            {"directions": ("q2d", "q2q", "d2q", "d2d"), "repeat_positive": True},
            {"directions": ALL},
        ),
        (
            {"weights": Hardness(9.0, on="in_batch")},
            {"hardness_mode": "in_batch_negatives", "hardness_strength": 9.0},
        ),
        (
            {"weights": Hardness(5.0, on="hard")},
            {"hardness_mode": "hard_negatives", "hardness_strength": 5.0},
        ),
        (
            {"weights": Hardness(2.0, on="all")},
            {"hardness_mode": "all_negatives", "hardness_strength": 2.0},
        ),
    ],
)
def test_infonce(k: int, options: dict[str, Any], theirs: dict[str, Any]) -> None:
    columns, leaves = batch(k)
    oracle = losses.MultipleNegativesRankingLoss(Lookup(), **theirs)
    expected = oracle.compute_loss_from_embeddings(leaves, None)
    same(InfoNCE(**options)(columns).total, expected, leaves)


def test_sparse_scores_are_dot_products() -> None:
    from sentence_transformers.util import dot_score

    columns, leaves = batch(1)
    sparse = Columns(*(Outputs(sparse=leaf) for leaf in leaves), negatives_per_query=1)
    oracle = losses.MultipleNegativesRankingLoss(Lookup(), scale=1.0, similarity_fct=dot_score)
    expected = oracle.compute_loss_from_embeddings(leaves, None)
    same(InfoNCE(temperature=1.0, score="sparse")(sparse).total, expected, leaves)
    same(InfoNCE(temperature=1.0, score="dot")(columns).total, expected, leaves)


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("strategy", ["absolute", "relative"])
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_gist(k: int, strategy: str, margin: float) -> None:
    columns, leaves = batch(k)
    torch.manual_seed(9)
    guides = [torch.randn(N, 4, dtype=torch.float64) for _ in leaves]
    names = ("query", "positive", "negative")
    columns.guide = {n: Outputs(dense=g) for n, g in zip(names, guides, strict=False)}
    oracle = losses.GISTEmbedLoss.__new__(losses.GISTEmbedLoss)
    nn.Module.__init__(oracle)
    guided = iter(guides)
    oracle.model = Lookup()
    oracle.guide = lambda features: {"sentence_embedding": next(guided)}
    oracle.must_retokenize = oracle.gather_across_devices = False
    oracle.temperature, oracle.margin, oracle.margin_strategy = 0.05, margin, strategy
    oracle.similarity_fct = nn.CosineSimilarity(dim=-1)
    oracle.contrast_anchors = oracle.contrast_positives = True
    oracle.cross_entropy_loss = nn.CrossEntropyLoss()
    # One dictionary of features per column keeps the guide's calls in the columns' order.
    import sentence_transformers.sentence_transformer.losses.gist_embed as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "embed_columns", lambda m, fs: [m(f)["sentence_embedding"] for f in fs]
        )
        expected = oracle([{"x": leaf} for leaf in leaves], None)
    ours = InfoNCE(
        temperature=0.05,
        directions=("q2d", "q2q", "d2d") if not k else ("q2d", "q2q"),
        masks=(GuideMask(margin, strategy),),  # type: ignore[arg-type]
    )
    if k:
        # Theirs has no positive-to-negative block, which our 'd2d' holds.
        oracle.contrast_positives = False
        guided = iter(guides)
        oracle.guide = lambda features: {"sentence_embedding": next(guided)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                module, "embed_columns", lambda m, fs: [m(f)["sentence_embedding"] for f in fs]
            )
            expected = oracle([{"x": leaf} for leaf in leaves], None)
    same(ours(columns).total, expected, leaves)


@pytest.mark.parametrize("k", [0, 2])
def test_matryoshka(k: int) -> None:
    columns, leaves = batch(k)
    inner = losses.MultipleNegativesRankingLoss(Lookup())
    dims, weights = [12, 8, 4], [1.0, 0.5, 0.25]
    oracle = losses.MatryoshkaLoss(inner.model, inner, dims, weights)
    expected = oracle([{"x": leaf} for leaf in leaves], torch.zeros(N))
    ours = Matryoshka(InfoNCE(), (12, 8, 4), (1.0, 0.5, 0.25))
    same(ours(columns).total, expected, leaves)


def _pairs(objective: Objective, oracle: Any) -> None:
    # Ties among the labels are what the sorted form must get right.
    labels = torch.tensor([0.1, 0.9, 0.5, 0.5, 0.0, 0.9], dtype=torch.float64)
    columns, leaves = batch(label=labels)
    same(objective(columns).total, oracle.compute_loss_from_embeddings(leaves, labels), leaves)


def test_cosent() -> None:
    _pairs(CoSENT(), losses.CoSENTLoss(Lookup()))


def test_angle() -> None:
    _pairs(AnglE(), losses.AnglELoss(Lookup()))


def test_cosine_regression() -> None:
    torch.set_default_dtype(torch.float64)  # their labels are cast to the default type
    try:
        labels = torch.tensor([0.0, 1.0, 0.5, 0.5, 0.25, 0.75], dtype=torch.float64)
        columns, leaves = batch(label=labels)
        oracle = losses.CosineSimilarityLoss(Lookup())
        expected = oracle.compute_loss_from_embeddings(leaves, labels)
        same(CosineRegression()(columns).total, expected, leaves)
    finally:
        torch.set_default_dtype(torch.float32)


def test_angle_with_negatives() -> None:
    columns, leaves = batch(2)
    expected = losses.AnglELoss(Lookup()).compute_loss_from_embeddings(leaves, None)
    # Their labels are float32 ones and zeros, which changes nothing.
    same(AnglE()(columns).total, expected, leaves)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_kl(temperature: float) -> None:
    teacher = torch.randn(N, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    columns, leaves = batch(2, teacher=teacher)
    oracle = losses.DistillKLDivLoss(Lookup(), temperature=temperature)
    expected = oracle.compute_loss_from_embeddings(leaves, teacher)
    ours = KLDistillation(temperature=temperature, score="dot")
    same(ours(columns).total, expected, leaves)


@pytest.mark.parametrize("k", [1, 3])
def test_margin_mse(k: int) -> None:
    teacher = torch.randn(N, 1 + k, dtype=torch.float64)
    columns, leaves = batch(k, teacher=teacher)
    expected = losses.MarginMSELoss(Lookup()).compute_loss_from_embeddings(leaves, teacher)
    same(MarginMSE()(columns).total, expected, leaves)


@pytest.mark.parametrize("distance", ["mse", "l2", "cosine"])
def test_embedding_distillation(distance: str) -> None:
    columns, leaves = batch()
    teachers = [torch.randn(N, D, dtype=torch.float64) for _ in leaves]
    columns.guide = {
        n: Outputs(dense=t) for n, t in zip(("query", "positive"), teachers, strict=True)
    }
    oracle = losses.EmbedDistillLoss(Lookup(), distance_metric=distance)
    expected = oracle.compute_loss_from_embeddings(leaves, teachers)
    ours = EmbeddingDistillation(distance=distance)  # type: ignore[arg-type]
    same(ours(columns).total, expected, leaves)


@pytest.mark.parametrize("distance", ["euclidean", "manhattan", "cosine"])
def test_triplet(distance: str) -> None:
    columns, leaves = batch(1)
    metric = getattr(losses.TripletDistanceMetric, distance.upper())
    oracle = losses.TripletLoss(Lookup(), distance_metric=metric, triplet_margin=1.0)
    expected = oracle.compute_loss_from_embeddings(leaves, None)
    ours = Triplet(margin=1.0, distance=distance)  # type: ignore[arg-type]
    same(ours(columns).total, expected, leaves)


def test_spread_out() -> None:
    columns, leaves = batch()
    oracle = losses.GlobalOrthogonalRegularizationLoss(Lookup())
    expected = sum(oracle.compute_loss_from_embeddings(leaves).values())
    same(SpreadOut()(columns).total, expected, leaves)


def test_sparsity() -> None:
    sparse = pytest.importorskip("sentence_transformers.sparse_encoder.losses")
    _, leaves = batch(2)
    # Above zero, where |w| has one gradient; a lexical head's own relu decides at zero.
    weights = [leaf.detach().abs().add(0.1).requires_grad_() for leaf in leaves]
    negative = Outputs(sparse=torch.stack(weights[2:], dim=1).flatten(0, 1))
    columns = Columns(Outputs(sparse=weights[0]), Outputs(sparse=weights[1]), negative, 2)
    flops = sparse.FlopsLoss(None)
    query = flops.compute_loss_from_embeddings(weights[0])
    documents = flops.compute_loss_from_embeddings(torch.cat(weights[1:]))
    ours = SparsityPenalty(query_weight=0.3, document_weight=0.7)
    same(ours(columns).total, 0.3 * query + 0.7 * documents, weights)


def test_maxsim_contrastive() -> None:
    multi = pytest.importorskip("sentence_transformers.multi_vector_encoder.losses")
    torch.manual_seed(5)
    shapes = {"query": (N, 5), "positive": (N, 7), "negative": (N, 4)}
    leaves = [
        nn.functional.normalize(torch.randn(*s, 8, dtype=torch.float64), dim=-1).requires_grad_()
        for s in shapes.values()
    ]
    masks = [torch.rand(s) < 0.7 for s in shapes.values()]
    for mask in masks:
        mask[:, 0] = True
    outputs = [Outputs(multi=leaf, multi_mask=m) for leaf, m in zip(leaves, masks, strict=True)]
    columns = Columns(*outputs, negatives_per_query=1)

    class Tokens(nn.Module):
        def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
            return {
                "token_embeddings": features["x"],
                "attention_mask": features["mask"],
                "sentence_embedding": features["x"],
            }

    features = [{"x": leaf, "mask": mask} for leaf, mask in zip(leaves, masks, strict=True)]
    oracle = multi.MultiVectorMultipleNegativesRankingLoss(Tokens(), scale=2.0)
    embedded: Callable[..., Any] = lambda *_, **__: (leaves[1:], masks[1:])  # noqa: E731
    import sentence_transformers.multi_vector_encoder.losses.multiple_negatives_ranking as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "embed_columns_padded", embedded)
        expected = oracle(features)
    # Their token scores pass through float32.
    ours = InfoNCE(temperature=0.5, score="maxsim")(columns).total.float()
    same(ours, expected, leaves, rtol=1e-5)
