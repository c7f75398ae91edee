"""How much of a text its vector gives back to somebody who trains a decoder on others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import InputError
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.tasks import Array
from mmembed.evaluation.probes.finding import Finding, Instructable, Probe, unit

__all__ = ["DEFENCES", "PROBES", "Attack", "Settings", "attack", "word_f1"]

_START, _END, _OTHER = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Settings:
    """Size of the attack.

    Attributes:
        words: size of the decoder's vocabulary.
        longest: words of a text that are tried.
        width: of the decoder's state.
        epochs: passes over the texts that it learns from.
    """

    words: int = 2000
    longest: int = 12
    width: int = 192
    epochs: int = 6
    batch: int = 64
    lr: float = 2e-3


@dataclass(frozen=True, slots=True)
class Attack:
    """What came back.

    Attributes:
        f1: mean F1 of words, which counts words in any order.
        chance: the same where each text is given the vector of another.
        texts: pairs of a text and what came back for it.
    """

    f1: float
    chance: float
    texts: Sequence[tuple[str, str]]


class _Decoder(nn.Module):
    """Writes words one by one, with the vector as its first state and beside each word."""

    def __init__(self, dim: int, words: int, width: int) -> None:
        super().__init__()
        self.start = nn.Linear(dim, width)
        self.words = nn.Embedding(words, width // 2)
        self.beside = nn.Linear(dim, width // 2)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, words)

    def forward(
        self, vectors: Tensor, words: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if state is None:
            state = torch.tanh(self.start(vectors)).unsqueeze(0)
        beside = self.beside(vectors).unsqueeze(1).expand(-1, words.shape[1], -1)
        hidden, state = self.cell(torch.cat([self.words(words), beside], dim=2), state)
        assert state is not None
        return self.out(hidden), state

    @torch.inference_mode()
    def write(self, vectors: Tensor, longest: int) -> list[list[int]]:
        """Greedy words of each vector."""
        last = torch.full((len(vectors), 1), _START)
        state, written = None, []
        for _ in range(longest):
            logits, state = self(vectors, last, state)
            logits[:, :, [_START, _OTHER]] = -1e9
            last = logits[:, -1:].argmax(dim=2)
            written.append(last)
        return [_until_end(row) for row in torch.cat(written, dim=1).tolist()]


def attack(
    known: Array,
    known_texts: Sequence[str],
    secret: Array,
    secret_texts: Sequence[str],
    settings: Settings | None = None,
) -> Attack:
    """Train a decoder on known pairs of vectors ``(n, d)`` and texts, and read secret vectors.

    A small version of Vec2Text (Morris et al., 2023): one guess, without the model that made the
    vectors. What it gives back is therefore a lower bound of what can be had.

    Raises:
        InputError: vectors and texts differ in number.
    """
    settings = settings or Settings()
    if len(known) != len(known_texts) or len(secret) != len(secret_texts) or len(secret) < 2:
        raise InputError("inversion", "vectors and texts differ in number, or are too few")
    counts = Counter(word for text in known_texts for word in _words(text, settings.longest))
    vocabulary = ["<start>", "<end>", "<other>"]
    vocabulary += [word for word, _ in counts.most_common(settings.words - 3)]
    ids = {word: i for i, word in enumerate(vocabulary)}
    torch.manual_seed(0)
    decoder = _Decoder(known.shape[1], len(vocabulary), settings.width)
    _train(decoder, torch.from_numpy(unit(known)), _encoded(known_texts, ids, settings), settings)
    vectors = torch.from_numpy(unit(secret))
    written = [
        " ".join(vocabulary[i] for i in row) for row in decoder.write(vectors, settings.longest)
    ]
    wanted = [" ".join(_words(text, settings.longest)) for text in secret_texts]
    f1 = [word_f1(a, b) for a, b in zip(wanted, written, strict=True)]
    other = [word_f1(a, b) for a, b in zip(wanted, written[1:] + written[:1], strict=True)]
    return Attack(
        float(np.mean(f1)), float(np.mean(other)), list(zip(wanted, written, strict=True))
    )


def word_f1(wanted: str, found: str) -> float:
    """F1 of the words of two texts, each counted as often as it stands there; from 0 to 1."""
    a, b = Counter(wanted.split()), Counter(found.split())
    both = sum((a & b).values())
    return 2.0 * both / max(1, sum(a.values()) + sum(b.values()))


def _train(decoder: _Decoder, vectors: Tensor, rows: Tensor, settings: Settings) -> None:
    optimizer = torch.optim.AdamW(decoder.parameters(), settings.lr)
    generator = torch.Generator().manual_seed(0)
    decoder.train()
    for _ in range(settings.epochs):
        for some in torch.randperm(len(rows), generator=generator).split(settings.batch):
            logits, _ = decoder(vectors[some], rows[some, :-1])
            loss = F.cross_entropy(
                logits.flatten(0, 1), rows[some, 1:].flatten(), ignore_index=-100
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    decoder.eval()


def _encoded(texts: Sequence[str], ids: Mapping[str, int], settings: Settings) -> Tensor:
    """``(n, longest + 2)`` ids; what follows the end is read as ends, and costs nothing more."""
    rows = torch.full((len(texts), settings.longest + 2), _END)
    rows[:, 0] = _START
    for row, text in enumerate(texts):
        for place, word in enumerate(_words(text, settings.longest), 1):
            rows[row, place] = ids.get(word, _OTHER)
    return rows


def _words(text: str, most: int) -> list[str]:
    return text.lower().split()[:most]


def _until_end(row: list[int]) -> list[int]:
    return row[: row.index(_END)] if _END in row else row


def _noisy(strength: float) -> Callable[[Array], Array]:
    def add(vectors: Array) -> Array:
        rng = np.random.default_rng(0)
        noise = np.asarray(rng.standard_normal(vectors.shape), dtype=np.float32)
        return unit(unit(vectors) + strength * unit(noise))

    return add


def _cut(part: int) -> Callable[[Array], Array]:
    return lambda vectors: unit(vectors[:, : max(1, vectors.shape[1] // part)])


DEFENCES: Mapping[str, Callable[[Array], Array]] = {
    "none": unit,
    "noise 0.3": _noisy(0.3),
    "noise 1": _noisy(1.0),
    "a quarter of the dimensions": _cut(4),
    "a sixteenth of the dimensions": _cut(16),
    "one bit a dimension": lambda vectors: unit(np.where(vectors > 0, 1.0, -1.0)),
}
"""What a store may do to vectors; the attacker sees the same of those that it learns from."""


def _run(model: Instructable, data: Path) -> Finding:
    texts = {
        split: [row["text"] for row in rows_of(data / f"text/sentences-{split}.jsonl.gz")]
        for split in ("train", "test")
    }
    vectors = {split: np.asarray(model.encode_document(some)) for split, some in texts.items()}
    table = {}
    notes: list[str] = []
    for name, defend in DEFENCES.items():
        known, secret = defend(vectors["train"]), defend(vectors["test"])
        found = attack(known, texts["train"], secret, texts["test"])
        near = (secret @ secret.T - 2 * np.eye(len(secret))).argmax(axis=1)
        plain = unit(vectors["test"])
        same = (plain @ plain.T - 2 * np.eye(len(plain))).argmax(axis=1)
        table[name] = {
            "word_f1": found.f1,
            "chance": found.chance,
            "same_neighbour": float((near == same).mean()),
        }
        if name == "none":
            notes = [f"{wanted!r} came back as {given!r}" for wanted, given in found.texts[:5]]
    figures = {f"word_f1 ({name})": row["word_f1"] for name, row in table.items()}
    return Finding({**figures, "chance": table["none"]["chance"]}, {"by defence": table}, notes)


PROBES = (
    Probe(
        "inversion",
        "how many words of a sentence a small decoder reads out of its vector",
        "Morris et al., 2023, Vec2Text (EMNLP); Song and Raghunathan, 2020 (CCS)",
        "above chance: read from the vector; near it, this decoder failed, and a larger may not",
        ("text/sentences-train.jsonl.gz",),
        _run,
    ),
)
