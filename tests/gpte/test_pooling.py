"""Pooling against sentence-transformers on padded batches, and against plain loops."""

import pytest
import torch

from mmembed.errors import ConfigError, InputError
from mmembed.gpte import pooling
from mmembed.gpte.states import TokenStates, offsets_of, row_ids

LENGTHS = [3, 1, 7, 5]
ST_NAMES = {
    "first": "cls",
    "last": "lasttoken",
    "max": "max",
    "mean": "mean",
    "mean_sqrt": "mean_sqrt_len_tokens",
    "position_weighted": "weightedmean",
}


def states(dtype: torch.dtype = torch.float32, instruction: int = 0) -> TokenStates:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(sum(LENGTHS), 8, generator=generator, dtype=torch.float64).to(dtype)
    offsets = offsets_of(LENGTHS)
    position = torch.arange(len(hidden)) - offsets[row_ids(offsets)]
    return TokenStates(hidden, offsets, {"instruction": position < instruction})


def padded(packed: TokenStates, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The same rows as ``(n, L, d)`` with garbage where there is no token, and the mask."""
    longest = int(packed.lengths.max())
    hidden = torch.full((len(packed), longest, 8), 1e3, dtype=packed.hidden.dtype)
    mask = torch.zeros(len(packed), longest, dtype=torch.int64)
    for i, row in enumerate(packed.rows()):
        where = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        hidden[i, where] = row
        mask[i, where] = 1
    return hidden, mask


@pytest.mark.parity
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ST_NAMES)
def test_equals_sentence_transformers(name: str, side: str) -> None:
    st = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    packed = states()
    hidden, mask = padded(packed, side)
    expected = st.Pooling(8, ST_NAMES[name])({"token_embeddings": hidden, "attention_mask": mask})
    torch.testing.assert_close(
        pooling.POOLINGS[name](packed), expected["sentence_embedding"], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parity
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["first", "max", "mean", "position_weighted"])
def test_left_out_instruction_equals_sentence_transformers(name: str, side: str) -> None:
    st = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    packed = states(instruction=2)
    rows = [row for row in packed.rows() if len(row) > 2]
    keep = torch.cat([torch.full((n,), n > 2) for n in LENGTHS])
    packed = TokenStates(
        torch.cat(rows),
        offsets_of([len(row) for row in rows]),
        {"instruction": packed.spans["instruction"][keep]},
    )
    hidden, mask = padded(packed, side)
    pool = st.Pooling(8, ST_NAMES[name], include_prompt=False)
    features = {"token_embeddings": hidden, "attention_mask": mask, "prompt_length": 2}
    expected = pool(features)["sentence_embedding"]
    got = pooling.POOLINGS[name](packed, exclude="instruction")
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4, 100])
def test_last_k_is_the_mean_of_the_tail(k: int) -> None:
    packed = states()
    expected = torch.stack([row[-k:].mean(0) for row in packed.rows()])
    torch.testing.assert_close(pooling.last_k(packed, k=k), expected)


def test_last_k_counts_only_kept_tokens() -> None:
    packed = states()
    keep = torch.ones(len(packed.hidden), dtype=torch.bool)
    keep[9:11] = False  # the tail of the third row
    packed = TokenStates(packed.hidden, packed.offsets, {"x": ~keep})
    got = pooling.last_k(packed, k=2, exclude="x")
    torch.testing.assert_close(got[2], packed.hidden[7:9].mean(0))


@pytest.mark.parametrize("name", pooling.POOLINGS)
def test_gradients(name: str) -> None:
    packed = states(torch.float64)
    mask = torch.zeros(len(packed.hidden), dtype=torch.bool)
    mask[[0, 5, 6]] = True

    def run(hidden: torch.Tensor) -> torch.Tensor:
        inner = TokenStates(hidden, packed.offsets, {"instruction": mask})
        return pooling.POOLINGS[name](inner, exclude="instruction")

    assert torch.autograd.gradcheck(run, packed.hidden.requires_grad_())


@pytest.mark.parametrize("name", pooling.POOLINGS)
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    packed = states()
    alone = [TokenStates(row, offsets_of([len(row)])) for row in packed.rows()]
    expected = torch.cat([pooling.POOLINGS[name](one) for one in alone])
    assert torch.equal(pooling.POOLINGS[name](packed), expected)


def test_bfloat16_is_summed_in_float32() -> None:
    ones = torch.ones(1000, 2, dtype=torch.bfloat16)
    packed = TokenStates(ones, offsets_of([1000]))
    for name in ("mean", "position_weighted"):
        assert torch.equal(pooling.POOLINGS[name](packed), torch.ones(1, 2))


@pytest.mark.parametrize("name", pooling.POOLINGS)
def test_nothing_left_to_pool_is_an_error_that_names_the_row(name: str) -> None:
    with pytest.raises(InputError, match="row 1: no token to pool outside its 'instruction' span"):
        pooling.POOLINGS[name](states(instruction=1), exclude="instruction")


def test_empty_row_is_an_error() -> None:
    with pytest.raises(InputError, match="row 1: no token"):
        pooling.mean(TokenStates(torch.ones(2, 3), torch.tensor([0, 2, 2])))


def test_unknown_span_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'visual'.*spans: instruction"):
        pooling.mean(states(), exclude="visual")


def test_names() -> None:
    torch.testing.assert_close(
        pooling.pooling_of("last_k", k=2)(states()), pooling.last_k(states(), k=2)
    )
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        pooling.pooling_of("maen")
    with pytest.raises(ConfigError, match="k >= 1"):
        pooling.last_k(states(), k=0)
