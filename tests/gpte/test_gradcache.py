"""A cached gradient equals the plain one, with dropout and LoRA dropout on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.gradcache import CachedColumn, cached_backward, chunk_rows, join_outputs
from mmembed.gpte.objectives import InfoNCE, Joint, LocalGlobalInformation, Matryoshka, Part
from mmembed.gpte.objectives.base import loss_of
from mmembed.gpte.objectives.tokens import mlm_loss, token_factor
from mmembed.gpte.protocols import Columns, Loss, Outputs
from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates

WIDTH, VOCAB = 16, 40


class TinyBert(nn.Module):
    """A BERT with LoRA, a Matryoshka-wide dense head, a multi-vector and a lexical head."""

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__()
        from peft import LoraConfig, get_peft_model
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=VOCAB,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
            hidden_dropout_prob=0.2,
            attention_probs_dropout_prob=0.1,
        )
        lora = LoraConfig(r=2, lora_dropout=0.3, target_modules=["query", "value"])
        self.body = get_peft_model(BertModel(config, add_pooling_layer=False), lora)
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_("lora" in name or "layer.1" in name)
        self.multi = nn.Linear(WIDTH, 4)
        self.vocab = nn.Linear(WIDTH, VOCAB)
        self.norm = nn.BatchNorm1d(WIDTH) if batch_norm else nn.Identity()

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        width = max(len(r.input_ids) for r in rows)
        ids = torch.tensor([r.input_ids + [0] * (width - len(r.input_ids)) for r in rows])
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}

    def forward(self, batch: dict[str, Tensor]) -> Outputs:
        hidden = self.body(**batch).last_hidden_state
        mask = batch["attention_mask"].bool()
        dense = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        multi = F.normalize(self.multi(hidden), dim=-1) * mask[..., None]
        sparse = (self.vocab(hidden).relu() * mask[..., None]).amax(1).log1p()
        states = TokenStates.from_padded(hidden, mask)
        return Outputs(self.norm(dense), multi, mask, sparse, states)


def rows(count: int, seed: int) -> list[Row]:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (count,), generator=g).tolist()
    ids = [torch.randint(1, VOCAB, (n,), generator=g).tolist() for n in lengths]
    return [Row(i, len(i)) for i in ids]


@pytest.fixture
def encoder() -> TinyBert:
    torch.manual_seed(0)
    model = TinyBert().double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start, which would hide the dropout of A
            nn.init.normal_(parameter, std=0.1)
    return model.train()


def data() -> dict[str, list[Row]]:
    return {"query": rows(7, 1), "positive": rows(7, 2), "negative": rows(14, 3)}


def columns_of(outputs: Mapping[str, Outputs], **shared: Tensor) -> Columns:
    return Columns(outputs["query"], outputs["positive"], outputs["negative"], 2, shared=shared)


def gradients(encoder: nn.Module) -> dict[str, Tensor]:
    found = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    return found


def plain(
    columns: Mapping[str, CachedColumn], loss: Callable[[Mapping[str, Outputs]], Loss]
) -> Loss:
    """The same chunks, all with their graphs."""
    made: dict[str, list[Outputs]] = {}
    extra: list[Tensor] = []
    for name, column in columns.items():
        for number, chunk in enumerate(column.chunks):
            with torch.set_grad_enabled(not column.frozen):
                whole = column.raw(column.collate(chunk))
            if column.auxiliary is not None:
                extra.append(column.auxiliary(whole, number).total)
            made.setdefault(name, []).append(column.trimmed(whole))
    found = loss({name: join_outputs(chunks) for name, chunks in made.items()})
    total = found.total + sum(extra)
    total.backward()
    return Loss(total.detach(), found.parts)


def compare(
    encoder: nn.Module,
    columns: Mapping[str, CachedColumn],
    loss: Callable[[Mapping[str, Outputs]], Loss],
    learned: Sequence[Tensor] = (),
    **options: Any,
) -> None:
    torch.manual_seed(42)
    expected = plain(columns, loss)
    state = torch.get_rng_state()
    theirs = gradients(encoder)
    of_learned = [p.grad for p in learned]
    for p in learned:
        p.grad = None
    torch.manual_seed(42)
    found = cached_backward(columns, loss, parameters=learned, verify=True, **options)
    assert torch.equal(torch.get_rng_state(), state)  # the run goes on as if nothing was replayed
    ours = gradients(encoder)
    torch.testing.assert_close(found.total, expected.total)
    assert not found.total.requires_grad
    assert ours.keys() == theirs.keys()
    assert any("lora_A" in name for name in ours)
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-9, atol=1e-12)
    for p, grad in zip(learned, of_learned, strict=True):
        torch.testing.assert_close(p.grad, grad)


def in_chunks(encoder: TinyBert, **options: Any) -> dict[str, CachedColumn]:
    sizes = {"query": {"max_rows": 3}, "positive": {"max_tokens": 12}, "negative": {"max_rows": 4}}
    return {
        name: CachedColumn(encoder, chunk_rows(r, **sizes[name]), encoder.collate, **options)
        for name, r in data().items()
    }


@pytest.mark.parametrize(
    "objective",
    [
        InfoNCE(directions=("q2d", "q2q", "d2q", "d2d")),
        Matryoshka(InfoNCE(), (16, 8, 4)),
        InfoNCE(score="maxsim"),
        InfoNCE(score="sparse", temperature=1.0),
        Joint((Part(InfoNCE(), 1.0), Part(InfoNCE(score="mean_maxsim"), 0.5, "late"))),
    ],
    ids=["dense", "matryoshka", "multi", "sparse", "joint"],
)
def test_equals_plain(encoder: TinyBert, objective: Any) -> None:
    compare(encoder, in_chunks(encoder), lambda o: objective(columns_of(o)))


def test_dropout_is_on(encoder: TinyBert) -> None:
    batch = encoder.collate(data()["query"])
    first, second = encoder(batch).dense, encoder(batch).dense
    assert not torch.equal(first, second)


def test_learned_temperature_and_queue(encoder: TinyBert) -> None:
    scale = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    queue = F.normalize(torch.randn(5, WIDTH, dtype=torch.float64), dim=1)
    objective = InfoNCE(learn_temperature=True)
    compare(
        encoder,
        in_chunks(encoder),
        lambda o: objective(columns_of(o, log_scale=scale, queue=queue)),
        [scale],
    )


def test_token_losses_join_in_the_replay(encoder: TinyBert) -> None:
    chunks = chunk_rows(data()["query"], max_rows=3)
    labels = [torch.tensor([i for r in c for i in r.input_ids]) for c in chunks]
    labels = [torch.where(torch.arange(len(x)) % 3 == 0, x, -100) for x in labels]
    factor = token_factor(labels)

    def auxiliary(outputs: Outputs, number: int) -> Loss:
        assert outputs.states is not None
        mlm = mlm_loss(outputs.states, labels[number], encoder.vocab, factor)
        return loss_of("mlm", 0.1 * mlm, {"mlm": mlm})

    columns = in_chunks(encoder)
    columns["query"] = CachedColumn(encoder, chunks, encoder.collate, auxiliary=auxiliary)
    objective = InfoNCE()
    compare(encoder, columns, lambda o: objective(columns_of(o)))
    torch.manual_seed(0)
    found = cached_backward(columns, lambda o: objective(columns_of(o)))
    expected = found.parts["infonce"] + 0.1 * found.parts["mlm"]
    torch.testing.assert_close(found.total, expected)


def test_rounds_that_only_others_have_weigh_nothing(encoder: TinyBert) -> None:
    """Where forwards and backwards are collective, each process makes as many as the busiest."""
    encoder.eval()  # or the passes of more rounds would draw other dropout
    seen: list[str] = []

    def column(name: str, rounds: int) -> CachedColumn:
        def encode(batch: Any) -> Outputs:
            seen.append(name)
            made: Outputs = encoder(batch)
            return made

        def auxiliary(outputs: Outputs, number: int) -> Loss:
            assert outputs.sparse is not None
            return loss_of("sum", (number + 1) * outputs.sparse.sum())

        chunks = chunk_rows(data()[name], max_rows=3)
        extra = auxiliary if name == "query" else None
        return CachedColumn(
            encoder, chunks, encoder.collate, encode, auxiliary=extra, rounds=rounds
        )

    def run(rounds: int) -> tuple[Loss, dict[str, Tensor], list[str]]:
        seen.clear()
        columns = {name: column(name, rounds) for name in data()}
        loss = cached_backward(columns, lambda o: InfoNCE()(columns_of(o)))
        return loss, gradients(encoder), list(seen)

    alone, expected, calls = run(0)
    found, ours, more = run(6)
    assert [calls.count(name) for name in data()] == [6, 6, 10]
    assert [more.count(name) for name in data()] == [12, 12, 12]
    torch.testing.assert_close(found.total, alone.total)
    torch.testing.assert_close(dict(found.parts), dict(alone.parts))
    idle = {name: torch.zeros_like(ours[name]) for name in ours.keys() - expected.keys()}
    torch.testing.assert_close(ours, {**expected, **idle})


def test_states_can_be_cached_too(encoder: TinyBert) -> None:
    objective = LocalGlobalInformation()
    compare(encoder, in_chunks(encoder, states=True), lambda o: objective(columns_of(o)))


def test_frozen_columns_are_encoded_once(encoder: TinyBert) -> None:
    columns = in_chunks(encoder)
    calls: list[int] = []

    def encode(batch: Any) -> Outputs:
        calls.append(1)
        made: Outputs = encoder(batch)
        return made

    chunks = columns["negative"].chunks
    columns["negative"] = CachedColumn(encoder, chunks, encoder.collate, encode, frozen=True)
    objective = InfoNCE()
    torch.manual_seed(0)
    cached_backward(columns, lambda o: objective(columns_of(o)))
    assert len(calls) == len(chunks)
    gradients(encoder)
    compare(encoder, columns, lambda o: objective(columns_of(o)))


def test_autocast_is_the_same_in_both_passes_and_off_elsewhere(encoder: TinyBert) -> None:
    encoder.float()
    seen: list[bool] = []

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    def loss(outputs: Mapping[str, Outputs]) -> Loss:
        seen.append(torch.is_autocast_enabled("cpu"))
        return InfoNCE()(columns_of(outputs))

    torch.manual_seed(0)
    cached_backward(in_chunks(encoder), loss, autocast=autocast, verify=True)
    assert seen == [False]


def test_gradients_travel_once(encoder: TinyBert) -> None:
    silent: list[int] = []

    class Silence(nullcontext[None]):
        def __init__(self) -> None:
            super().__init__()
            silent.append(1)

    columns = in_chunks(encoder)
    replayed = sum(len(c.chunks) for c in columns.values())

    def loss(outputs: Mapping[str, Outputs]) -> Loss:
        return InfoNCE()(columns_of(outputs))

    cached_backward(columns, loss, no_sync=lambda _: Silence())
    assert len(silent) == replayed - 1
    silent.clear()
    cached_backward(columns, loss, no_sync=lambda _: Silence(), last_step=False)
    assert len(silent) == replayed


def test_the_outer_backward_scales_everything_once(encoder: TinyBert) -> None:
    scale = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    objective = InfoNCE(learn_temperature=True)

    def loss(outputs: Mapping[str, Outputs]) -> Loss:
        return objective(columns_of(outputs, log_scale=scale))

    torch.manual_seed(1)
    cached_backward(in_chunks(encoder), loss, parameters=[scale])
    whole, of_scale = gradients(encoder), scale.grad
    scale.grad = None
    torch.manual_seed(1)
    half = lambda x: (0.5 * x).backward()  # noqa: E731
    cached_backward(in_chunks(encoder), loss, parameters=[scale], backward=half)
    for name, grad in gradients(encoder).items():
        torch.testing.assert_close(grad, 0.5 * whole[name])
    assert of_scale is not None
    torch.testing.assert_close(scale.grad, 0.5 * of_scale)


def test_batch_norm_is_refused() -> None:
    model = TinyBert(batch_norm=True).train()
    columns = in_chunks(model)
    with pytest.raises(ConfigError, match="norm is a batch normalisation"):
        cached_backward(columns, lambda o: InfoNCE()(columns_of(o)))
    model.norm.eval()
    cached_backward(columns, lambda o: InfoNCE()(columns_of(o)))


def test_an_encoder_with_state_is_found_out(encoder: TinyBert) -> None:
    count = iter(range(1000))

    def drifting(batch: Any) -> Outputs:
        made: Outputs = encoder(batch)
        assert made.dense is not None
        made.dense = made.dense + next(count)
        return made

    columns = in_chunks(encoder, encode=drifting)
    with pytest.raises(ConfigError, match="other dense outputs"):
        cached_backward(columns, lambda o: InfoNCE()(columns_of(o)), verify=True)


def test_nothing_to_train_is_an_error(encoder: TinyBert) -> None:
    columns = in_chunks(encoder, frozen=True)
    with pytest.raises(ConfigError, match="nothing that is trained"):
        cached_backward(columns, lambda o: InfoNCE()(columns_of(o)))


def test_chunks() -> None:
    sizes = [3, 4, 9, 1, 1, 1]
    made = [Row([1] * n, n) for n in sizes]
    by_tokens = chunk_rows(made, max_tokens=8)
    assert [[r.tokens for r in c] for c in by_tokens] == [[3, 4], [9], [1, 1, 1]]
    both = chunk_rows(made, max_tokens=8, max_rows=2)
    assert [[r.tokens for r in c] for c in both] == [[3, 4], [9], [1, 1], [1]]
    assert chunk_rows([], max_rows=2) == []
    with pytest.raises(ConfigError):
        chunk_rows(made, max_rows=0)
