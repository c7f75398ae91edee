"""Ranking, distillation and unsupervised objectives against short float64 forms."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from gradients import check

from mmembed.errors import ConfigError
from mmembed.gpte.objectives import (
    SCD,
    AnglE,
    CoSENT,
    EmbeddingDistillation,
    InfoNCE,
    Joint,
    KLDistillation,
    LocalGlobalInformation,
    LocalityPreservation,
    M3Distillation,
    M3SelfDistillation,
    MarginMSE,
    Matryoshka,
    Part,
    SimilarityDistillation,
    SparsityPenalty,
    learned_parameters,
)
from mmembed.gpte.objectives.multivector import maxsim
from mmembed.gpte.objectives.ranking import angle_similarity, cosent
from mmembed.gpte.objectives.scd import cross_correlation
from mmembed.gpte.objectives.sparse import ramp
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.gpte.states import TokenStates, offsets_of

N, K, D = 6, 2, 8


def draw(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g)


def batch(k: int = K) -> tuple[Columns, list[Tensor]]:
    leaves = [
        draw(rows, D, seed=i).requires_grad_() for i, rows in enumerate((N, N, N * k)) if rows
    ]
    outputs = [Outputs(dense=leaf) for leaf in leaves]
    return Columns(*outputs, negatives_per_query=k), leaves


def test_cosent_equals_the_quadratic_form() -> None:
    scores = draw(40).requires_grad_()
    labels = torch.randint(0, 5, (40,)).double()
    higher = labels[:, None] > labels
    terms = (scores - scores[:, None])[higher]
    check(cosent(scores, labels), torch.cat([terms.new_zeros(1), terms]).logsumexp(0), [scores])


def test_cosent_without_ranked_pairs_is_zero_with_zero_gradient() -> None:
    scores = draw(4).requires_grad_()
    loss = cosent(scores, torch.ones(4))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_angle_is_the_complex_quotient() -> None:
    x, y = draw(5, D, seed=1).requires_grad_(), draw(5, D, seed=2).requires_grad_()
    a, b = x.chunk(2, 1)
    c, d = y.chunk(2, 1)
    # Li and Li 2024 divide z = a + bi by w = c + di without its modulus ratio: times |w| / |z|.
    z = (torch.complex(a, b) * torch.complex(c, d).conj()).sum(1)
    expected = (z.real + z.imag).abs() / (x.norm(dim=1) * y.norm(dim=1))
    check(angle_similarity(x, y).sum(), expected.sum(), [x, y])


def test_scored_pairs_may_come_as_negatives_only() -> None:
    columns, leaves = batch()
    label = torch.rand(N * K, dtype=torch.float64)
    alone = Columns(columns.query, None, columns.negative, K, meta={"label": label})
    repeated = leaves[0].repeat_interleave(K, 0)
    plain = Columns(Outputs(dense=repeated), Outputs(dense=leaves[2]), meta={"label": label})
    check(CoSENT()(alone).total, CoSENT()(plain).total, [leaves[0], leaves[2]])


@pytest.mark.parametrize("objective", [CoSENT(), AnglE()])
def test_missing_or_short_labels(objective: Any) -> None:
    columns, _ = batch(0)
    with pytest.raises(ConfigError, match="'label'"):
        objective(columns)
    columns.meta = {"label": torch.ones(N - 1)}
    with pytest.raises(ConfigError, match="one a pair"):
        objective(columns)


def test_symmetric_kl() -> None:
    columns, leaves = batch()
    teacher = draw(N, 1 + K, seed=7)
    columns.meta = {"teacher": teacher}
    q, p, n = (F.normalize(x, dim=1) for x in leaves)
    s = torch.cat([(q * p).sum(1, True), torch.einsum("nd,nkd->nk", q, n.view(N, K, D))], 1)
    a, b = teacher.softmax(1), (s / 0.5).softmax(1)
    expected = ((a * (a / b).log()).sum(1) + (b * (b / a).log()).sum(1)).mean() / 2
    ours = KLDistillation(temperature=0.5, teacher_temperature=1.0, symmetric=True, squared=False)
    check(ours(columns).total, expected, leaves)


def test_teacher_shapes_are_checked() -> None:
    columns, _ = batch()
    columns.meta = {"teacher": torch.zeros(N, K)}
    for objective in (KLDistillation(), MarginMSE(), M3Distillation()):
        with pytest.raises(ConfigError, match="teacher"):
            objective(columns)
    pairs, _ = batch(0)
    pairs.meta = {"teacher": torch.zeros(N, 1)}
    with pytest.raises(ConfigError, match="negative"):
        KLDistillation()(pairs)


def test_similarity_distillation() -> None:
    columns, leaves = batch(0)
    guides = [draw(N, 3, seed=8), draw(N, 3, seed=9)]
    columns.guide = {"query": Outputs(dense=guides[0]), "positive": Outputs(dense=guides[1])}
    q, p = (F.normalize(x, dim=1) for x in leaves)
    g, h = (F.normalize(x, dim=1) for x in guides)
    expected = F.kl_div(
        (q @ p.T / 0.1).log_softmax(1), (g @ h.T / 0.2).softmax(1), reduction="batchmean"
    )
    check(SimilarityDistillation(0.1, 0.2)(columns).total, expected, leaves)


def test_embedding_distillation_through_a_learned_projection() -> None:
    columns, leaves = batch(0)
    objective = EmbeddingDistillation(teacher_width=5)
    teacher = draw(N, 5, seed=4)
    columns.guide = {"query": Outputs(dense=teacher)}
    weight = learned_parameters(objective, D)["teacher_projection"].detach().double()
    columns.shared = {"teacher_projection": weight.requires_grad_()}
    expected = F.mse_loss(leaves[0] @ weight.T, teacher)
    check(objective(columns).total, expected, [leaves[0], weight])
    with pytest.raises(ConfigError, match="teacher_width"):
        EmbeddingDistillation()(columns)


def test_a_translation_is_taught_the_vector_of_its_source() -> None:
    columns, leaves = batch(0)
    sources, others = draw(N, D, seed=4), draw(N, D, seed=5)
    columns.guide = {"query": Outputs(dense=sources), "positive": Outputs(dense=others)}
    expected = (F.mse_loss(leaves[0], sources) + F.mse_loss(leaves[1], sources)) / 2
    check(EmbeddingDistillation(teaches="query")(columns).total, expected, leaves[:2])


@pytest.mark.parametrize("in_batch", [True, False])
def test_m3_distillation(in_batch: bool) -> None:
    columns, leaves = batch()
    teacher = draw(N, 1 + K, seed=5)
    columns.meta = {"teacher": teacher}
    q, p, n = (F.normalize(x, dim=1) for x in leaves)
    scores = q @ torch.cat([p, n]).T / 0.1
    own = torch.cat([torch.arange(N)[:, None], N + torch.arange(N * K).view(N, K)], 1)
    if not in_batch:
        scores, own = scores.gather(1, own), torch.arange(1 + K).expand(N, 1 + K)
    target, rows = teacher.softmax(1), torch.arange(N)
    expected = scores.new_zeros(())
    for k in range(1 + K):
        losses = F.cross_entropy(scores, own[:, k], reduction="none")
        expected = expected + (target[:, k] * losses).mean()
        scores = scores.index_put((rows, own[:, k]), scores.new_tensor(-torch.inf))
    check(M3Distillation(temperature=0.1, in_batch=in_batch)(columns).total, expected, leaves)


def _three_heads() -> tuple[Columns, list[Tensor]]:
    leaves, sides = [], []
    for i, (rows, tokens) in enumerate(((N, 3), (N, 4), (N * K, 5))):
        dense, sparse = draw(rows, D, seed=i), draw(rows, 11, seed=i + 10).abs()
        multi = F.normalize(draw(rows, tokens, 4, seed=i + 20), dim=-1)
        mask = torch.ones(rows, tokens, dtype=torch.bool)
        mask[::2, -1] = False
        leaves += [x.requires_grad_() for x in (dense, sparse, multi)]
        sides.append(Outputs(dense=dense, sparse=sparse, multi=multi, multi_mask=mask))
    return Columns(*sides, negatives_per_query=K), leaves


def test_m3_self_distillation() -> None:
    columns, leaves = _three_heads()
    t = 0.05
    dense = F.normalize(leaves[0], dim=1) @ F.normalize(torch.cat([leaves[3], leaves[6]]), dim=1).T
    sparse = leaves[1] @ torch.cat([leaves[4], leaves[7]]).T
    assert columns.positive is not None
    assert columns.negative is not None
    late = []
    for side in (columns.positive, columns.negative):
        assert side.multi is not None
        assert side.multi_mask is not None
        scores = torch.einsum("ntk,muk->nmtu", leaves[2], side.multi)
        best = scores.masked_fill(~side.multi_mask[:, None], -torch.inf).amax(-1)
        assert columns.query.multi_mask is not None
        mask = columns.query.multi_mask[:, None]
        late.append((best * mask).sum(-1) / mask.sum(-1))
    heads = [dense / t, sparse / t, torch.cat(late, 1) / t]
    total = heads[0] + 0.3 * heads[1] + heads[2]
    labels = torch.arange(N)
    lam = (1.0, 0.1, 1.0)
    hard = sum(w * F.cross_entropy(h, labels) for w, h in zip(lam, heads, strict=True))
    hard = (hard + F.cross_entropy(total, labels)) / 4
    target = total.detach().softmax(1)
    soft = sum(w * F.cross_entropy(h, target) for w, h in zip(lam, heads, strict=True)) / 3
    check(M3SelfDistillation(temperature=t)(columns).total, (hard + soft) / 2, leaves)
    columns.shared = {"step": torch.tensor(3)}
    check(M3SelfDistillation(temperature=t, start_step=4)(columns).total, hard, leaves)


def test_padding_never_wins_a_maxsim() -> None:
    q = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    d = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, False]])
    assert maxsim(q, mask, d, mask).item() == -1.0
    assert maxsim(q, mask, d, torch.zeros_like(mask)).item() == 0.0


def test_maxsim_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmembed.gpte.objectives import multivector

    q, d = draw(5, 3, 4, seed=1).requires_grad_(), draw(6, 2, 4, seed=2).requires_grad_()
    masks = torch.rand(5, 3) < 0.8, torch.rand(6, 2) < 0.8
    whole = maxsim(q, masks[0], d, masks[1], mean=True).square().sum()
    monkeypatch.setattr(multivector, "_TOKEN_SCORES", 40)
    check(maxsim(q, masks[0], d, masks[1], mean=True).square().sum(), whole, [q, d])


def test_sparsity_ramp() -> None:
    assert [ramp(t, 10) for t in (0, 5, 10, 99)] == [0.0, 0.25, 1.0, 1.0]
    weights = draw(N, 7).abs().requires_grad_()
    columns = Columns(Outputs(sparse=weights), Outputs(sparse=weights))
    columns.shared = {"step": torch.tensor(5)}
    penalty = SparsityPenalty(0.2, 0.4, query="l1", document="flops", ramp_steps=10)
    expected = 0.25 * (0.2 * weights.sum(1).mean() + 0.4 * weights.mean(0).square().sum())
    check(penalty(columns).total, expected, [weights])


def test_scd() -> None:
    columns, leaves = batch(0)
    a, b = ((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() for x in leaves)
    c = a.T @ b / N
    eye = torch.eye(D, dtype=torch.bool)
    cosine = F.cosine_similarity(leaves[0], leaves[1]).mean()
    expected = cosine + 0.1 * ((c[eye] - 1).square().sum() + 0.3 * c[~eye].square().sum())
    check(SCD(1.0, 0.1, 0.3, projector=0)(columns).total, expected, leaves)
    torch.testing.assert_close(cross_correlation(*leaves), c)


def test_scd_projector_is_three_layers_with_norms_between() -> None:
    columns, leaves = batch(0)
    objective = SCD(projector=5)
    torch.manual_seed(0)
    values = {k: v.detach().double() for k, v in learned_parameters(objective, D).items()}
    columns.shared = values
    mlp = nn.Sequential(
        nn.Linear(D, 5, bias=False),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Linear(5, 5, bias=False),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Linear(5, 5, bias=False),
    ).double()
    for i, layer in enumerate((0, 3, 6)):
        mlp[layer].weight.data.copy_(values[f"projector_{i}"])
    c = cross_correlation(mlp(leaves[0]), mlp(leaves[1]))
    eye = torch.eye(5, dtype=torch.bool)
    expected = F.cosine_similarity(*leaves).mean() + objective.beta * (
        (c[eye] - 1).square().sum() + objective.lam * c[~eye].square().sum()
    )
    check(objective(columns).total, expected, leaves)


def _states(lengths: Sequence[int], width: int = D) -> TokenStates:
    hidden = draw(sum(lengths), width, seed=30).requires_grad_()
    return TokenStates(hidden, offsets_of(lengths))


def test_isbert() -> None:
    states = _states([3, 1, 4])
    dense = draw(3, D, seed=3).requires_grad_()
    own, other = [], []
    for i, row in enumerate(states.rows()):
        for token in row:
            for j in range(3):
                score = token @ dense[j]
                (own if i == j else other).append(score)
    joint = F.softplus(-torch.stack(own)).mean() - math.log(2)
    marginal = F.softplus(torch.stack(other)).mean() - math.log(2)
    columns = Columns(Outputs(dense=dense, states=states))
    check(LocalGlobalInformation()(columns).total, joint + marginal, [dense, states.hidden])


def test_locality() -> None:
    columns, leaves = batch(0)
    guide = F.normalize(draw(N, 3, seed=6), dim=1)
    columns.guide = {"query": Outputs(dense=guide)}
    e = F.normalize(leaves[0], dim=1)
    weights = torch.zeros(N, N, dtype=torch.float64)
    for i in range(N):
        d = torch.tensor([float((guide[i] - guide[j]).square().sum()) for j in range(N)])
        d[i] = torch.inf
        for j in d.topk(2, largest=False).indices.tolist():
            weights[i, j] = (-(guide[i] - guide[j]).square().sum() / 0.7).exp()
    weights = torch.maximum(weights, weights.T)
    terms = [
        weights[i, j] * (e[i] - e[j]).square().sum() for i in range(N) for j in range(N) if i != j
    ]
    expected = torch.stack(terms).sum() / weights.sum()
    check(LocalityPreservation(2, 0.7)(columns).total, expected, leaves[:1])


def test_joint_logs_parts_before_weighting_and_routes_parameters() -> None:
    columns, leaves = batch()
    columns.meta = {"teacher": draw(N, 1 + K, seed=5)}
    learned = InfoNCE(learn_temperature=True)
    joint = Joint((Part(learned, 0.2), Part(MarginMSE(), 3.0), Part(InfoNCE(), 1.0, "fixed")))
    start = learned_parameters(joint, D)
    assert list(start) == ["infonce__log_scale"]
    columns.shared = {"infonce__log_scale": torch.tensor(2.0, dtype=torch.float64)}
    alone = Columns(
        columns.query,
        columns.positive,
        columns.negative,
        K,
        columns.meta,
        shared={"log_scale": torch.tensor(2.0, dtype=torch.float64)},
    )
    parts = [learned(alone).total, MarginMSE()(columns).total, InfoNCE()(columns).total]
    loss = joint(columns)
    check(loss.total, 0.2 * parts[0] + 3 * parts[1] + parts[2], leaves)
    names = ("infonce", "margin_mse", "fixed/infonce")
    for name, part in zip(names, parts, strict=True):
        torch.testing.assert_close(loss.parts[name], part.detach())
    with pytest.raises(ConfigError, match="labels"):
        Joint((Part(InfoNCE()), Part(InfoNCE())))
    with pytest.raises(ConfigError, match="at least one"):
        Joint(())


def test_matryoshka_over_any_objective() -> None:
    columns, leaves = batch(0)
    columns.meta = {"label": torch.rand(N, dtype=torch.float64)}
    cut = [Columns(*(Outputs(dense=x[:, :d]) for x in leaves), meta=columns.meta) for d in (3, D)]
    expected = 0.5 * (0.2 * CoSENT()(cut[0]).total + CoSENT()(cut[1]).total)
    ours = Matryoshka(CoSENT(), (D, 3), (1.0, 0.2), reduction="mean")
    loss = ours(columns)
    check(loss.total, expected, leaves)
    assert set(loss.parts) == {"cosent@3", f"cosent@{D}"}
    with pytest.raises(ConfigError, match="exceed"):
        Matryoshka(CoSENT(), (D + 1,))(columns)
    with pytest.raises(ConfigError, match="weights"):
        Matryoshka(CoSENT(), (2, 4), (1.0,))
