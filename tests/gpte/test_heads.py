"""Heads against their plain forms, and the layers before pooling."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmembed.errors import ConfigError
from mmembed.gpte.heads import (
    LexicalHead,
    MultiVectorHead,
    Projection,
    TrainOnly,
    splade,
    truncate,
)
from mmembed.gpte.layers import LatentAttention, LayerMean, LayerWeights
from mmembed.gpte.states import TokenStates, offsets_of

LENGTHS = [3, 1, 9, 5, 2]
VOCAB = 40


def states(dtype: torch.dtype = torch.float64) -> TokenStates:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(sum(LENGTHS), 6, generator=generator, dtype=dtype)
    ids = torch.randint(0, VOCAB, (len(hidden),), generator=generator)
    ids[::4] = 7  # repeated ids compete in the lexical head
    span = torch.zeros(len(hidden), dtype=torch.bool)
    span[4:7] = True
    return TokenStates(hidden, offsets_of(LENGTHS), {"instruction": span}, ids)


def test_truncate_normalises_after_the_cut() -> None:
    vectors = torch.tensor([[3.0, 4.0, 100.0]], dtype=torch.bfloat16)
    torch.testing.assert_close(truncate(vectors, 2), torch.tensor([[0.6, 0.8]]))
    with pytest.raises(ConfigError, match="3 dimensions to 4"):
        truncate(vectors, 4)


def test_projection_names_its_activation() -> None:
    layer = Projection(6, 4, activation="tanh")
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer(x), torch.tanh(layer.linear(x)))
    with pytest.raises(ConfigError, match="known: identity, tanh"):
        Projection(6, 4, activation="tahn")


def test_train_only_is_skipped_in_evaluation() -> None:
    layer = TrainOnly(torch.nn.Linear(6, 6))
    x = torch.randn(3, 6)
    assert not torch.equal(layer(x), x)
    assert layer.eval()(x) is x


def dense_splade(packed: TokenStates, head: torch.nn.Module) -> torch.Tensor:
    rows = [torch.log1p(torch.relu(head(row).float())).amax(dim=0) for row in packed.rows()]
    return torch.stack(rows)


@pytest.mark.parametrize("block", [1, 2, 3, 4, 7, 20, 1000])
def test_splade_equals_the_dense_form_in_value_and_gradient(block: int) -> None:
    packed = states()
    grads = []
    for form in (dense_splade, lambda s, h: splade(s, h, block_tokens=block)):
        torch.manual_seed(0)
        head = torch.nn.Sequential(
            torch.nn.Linear(6, 6), torch.nn.GELU(), torch.nn.Linear(6, VOCAB)
        )
        head = head.double()
        hidden = packed.hidden.clone().requires_grad_()
        out = form(TokenStates(hidden, packed.offsets), head)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        grads.append([out.detach(), hidden.grad, *(p.grad for p in head.parameters())])
    for got, expected in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


def test_splade_never_holds_the_logits_of_the_batch() -> None:
    hidden = torch.randn(400, 4, requires_grad=True)
    packed = TokenStates(hidden, offsets_of([100, 300]))
    head = torch.nn.Linear(4, 1000)
    with LargestTensor() as seen:
        splade(packed, head, block_tokens=16).sum().backward()
    assert 2 * 1000 <= seen.largest <= 16 * 1000


@pytest.mark.parity
def test_splade_equals_sentence_transformers() -> None:
    modules = pytest.importorskip("sentence_transformers.sparse_encoder.modules")
    packed = states(torch.float32)
    head = torch.nn.Linear(6, VOCAB)
    longest = max(LENGTHS)
    logits = torch.zeros(len(LENGTHS), longest, VOCAB)
    mask = torch.zeros(len(LENGTHS), longest, dtype=torch.int64)
    for i, row in enumerate(packed.rows()):
        logits[i, : len(row)] = head(row)
        mask[i, : len(row)] = 1
    pool = modules.SpladePooling("max")
    expected = pool({"token_embeddings": logits, "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(splade(packed, head, block_tokens=4), expected)


def test_lexical_head_equals_the_scatter_over_positions() -> None:
    packed = states()
    head = LexicalHead(6, VOCAB, skip_ids=[0, 3]).double()
    hidden = packed.hidden.clone().requires_grad_()
    got = head(TokenStates(hidden, packed.offsets, token_ids=packed.token_ids))
    got.sum().backward()
    again = packed.hidden.clone().requires_grad_()
    assert packed.token_ids is not None
    rows, at = [], 0
    for length in LENGTHS:
        weights = torch.relu(head.linear(again[at : at + length])).float()
        ids = packed.token_ids[at : at + length]
        table = torch.zeros(length, VOCAB).scatter(1, ids[:, None], weights)  # BGE-M3's own form
        table = table.index_fill(1, torch.tensor([0, 3]), 0.0)
        rows.append(table.max(dim=0).values)
        at += length
    expected = torch.stack(rows)
    expected.sum().backward()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(hidden.grad, again.grad)
    assert got.count_nonzero() > 3


def test_lexical_head_needs_ids() -> None:
    with pytest.raises(ConfigError, match="token ids"):
        LexicalHead(6, VOCAB)(TokenStates(torch.ones(2, 6), offsets_of([2])))


def test_multi_vector_head() -> None:
    packed = states(torch.float32)
    head = MultiVectorHead(6, 4)
    vectors, mask = head(packed)
    assert vectors.shape == (5, 9, 4)
    assert mask.sum(1).tolist() == LENGTHS
    assert not vectors[~mask].any()
    torch.testing.assert_close(vectors[mask].norm(dim=-1), torch.ones(sum(LENGTHS)))
    expected = torch.nn.functional.normalize(head.linear(packed.hidden), dim=-1)
    torch.testing.assert_close(vectors[mask], expected)


def test_multi_vector_head_leaves_out_spans_and_ids() -> None:
    packed = states(torch.float32)
    assert packed.token_ids is not None
    head = MultiVectorHead(6, 4, skip_ids=[7])
    vectors, mask = head(packed, exclude="instruction")
    keep = (packed.token_ids != 7) & ~packed.spans["instruction"]
    assert mask.sum(1).tolist() == [int(k.sum()) for k in keep.split(LENGTHS)]
    expected = torch.nn.functional.normalize(head.linear(packed.hidden[keep]), dim=-1)
    torch.testing.assert_close(vectors[mask], expected)


def test_latent_attention_equals_the_paper_written_with_loops() -> None:
    torch.manual_seed(0)
    layer = LatentAttention(8, latents=5, heads=2, head_dim=6).double()
    tokens = torch.randn(4, 8, dtype=torch.float64)
    norm = torch.nn.functional.layer_norm
    query = norm(tokens, (8,)) @ layer.query.weight.T
    kv = norm(layer.latents, (8,)) @ layer.key_value.weight.T
    heads = []
    for h in range(2):
        part = slice(6 * h, 6 * h + 6)
        scores = query[:, part] @ kv[:, :12][:, part].T / 6**0.5
        heads.append(scores.softmax(-1) @ kv[:, 12:][:, part])
    middle = tokens + torch.cat(heads, -1) @ layer.out.weight.T
    up, gate = layer.up(norm(middle, (8,))).chunk(2, dim=-1)
    expected = middle + layer.down(up * torch.nn.functional.gelu(gate))
    torch.testing.assert_close(layer(tokens), expected)
    torch.testing.assert_close(layer(tokens[2:3]), expected[2:3])


def test_layer_mixtures() -> None:
    hidden = [torch.full((3, 2), float(i), dtype=torch.bfloat16) for i in range(4)]
    torch.testing.assert_close(
        LayerMean([0, -1])(hidden), torch.full((3, 2), 1.5, dtype=torch.bfloat16)
    )
    mix = LayerWeights([1, 2, 3])
    torch.testing.assert_close(mix(hidden), torch.full((3, 2), 2.0, dtype=torch.bfloat16))
    mix(hidden).sum().backward()
    assert mix.logits.grad is not None
    with pytest.raises(ConfigError, match=r"layers \[4\] do not exist"):
        LayerMean([4])(hidden)
