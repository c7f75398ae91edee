"""A matching head: does this text describe this code? (CodeT5+, Wang et al., 2023)"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.data.batches import ExampleBatch, Examples
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.protocols import Outputs, TrainableEncoder
from mmembed.gpte.reading import TextBatch
from mmembed.gpte.rows import Row
from mmembed.gpte.states import padded
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["Matcher", "PairedExamples", "attended_pair", "reranked"]

Array = np.ndarray[Any, np.dtype[Any]]
_HEADS = 4
_FILE, _SETTINGS = "matching.safetensors", "matching.json"
_BATCH = 32


class Matcher(TrainableEncoder):
    """A decoder over the tokens of code that attends to an encoder's states of the text.

    The code's embeddings, behind a learned first vector, pass causal layers that cross-attend to
    the text; the state of the code's last token gives one logit. Trained by ``pair_binary`` on
    pairs and hard negatives.

    Args:
        encoder: reads the text, and embeds the code's tokens; trained along.
        layers: of the decoder.
    """

    dim = 1

    def __init__(self, encoder: TextEncoder, layers: int = 2) -> None:
        super().__init__()
        self.text, self.layers = encoder, layers
        width = encoder.hidden_size
        self.first = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerDecoderLayer(
            width, _HEADS, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(width))
        self.judge = nn.Linear(width, 1)
        self.to(encoder.device)

    @property
    def full(self) -> nn.Module:  # type: ignore[override]
        """The pretrained part."""
        return self.text.full

    @property
    def device(self) -> torch.device:
        return self.text.device

    def collate(self, rows: Sequence[Row]) -> tuple[TextBatch, TextBatch]:
        """The texts and the codes of pairs."""
        asked = [[int(i) for i in row.extras["text"]] for row in rows]
        return (
            self.text.collate([Row(ids, len(ids)) for ids in asked]),
            self.text.collate([Row(row.input_ids, len(row.input_ids)) for row in rows]),
        )

    def forward(self, batch: tuple[TextBatch, TextBatch]) -> Outputs:
        """``dense (n, 1)``: the logits of the pairs."""
        text, code = batch
        states, seen = padded(self.text.read(text).hidden, text.lengths)
        embedded, held = padded(self.text.base.get_input_embeddings()(code.ids), code.lengths)
        embedded = torch.cat([self.first.expand(len(code), 1, -1), embedded], dim=1)
        length = embedded.shape[1]
        decoded = self.decoder(
            embedded,
            states,
            tgt_mask=torch.ones(length, length, dtype=torch.bool, device=held.device).triu(1),
            memory_key_padding_mask=~seen,
        )
        last = held.sum(dim=1)  # the learned vector comes first
        return Outputs(dense=self.judge(decoded[torch.arange(len(last)), last]))

    @torch.inference_mode()
    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Log-odds that texts describe codes, in the order of the pairs.

        Raises:
            InputError: a text or a code cannot be tokenised.
        """
        found: list[float] = []
        for start in range(0, len(pairs), _BATCH):
            texts, codes = zip(*pairs[start : start + _BATCH], strict=True)
            sides = self.text.tokenize(texts, "query"), self.text.tokenize(codes, "document")
            rows = map(attended_pair, *sides)
            dense = self(self.collate(list(rows))).dense
            found += dense.double().squeeze(1).tolist()
        return found

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that :meth:`from_pretrained` reads, or leave what was there.

        Raises:
            OSError: the disk is full or not writable.
        """
        from safetensors.torch import save_file

        own = {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith("text.")}
        with whole_folder(Path(folder)) as partial:
            self.text.save_pretrained(partial / "text")
            save_file(own, partial / _FILE)
            (partial / _SETTINGS).write_text(json.dumps({"layers": self.layers}), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Matcher:
        """Load what :meth:`save_pretrained` wrote, in evaluation mode.

        Raises:
            ModelLoadError: the folder is none of these, or a tensor is missing.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            layers = int(json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))["layers"])
            tensors = load_file(folder / _FILE)
        except (OSError, ValueError, KeyError) as error:
            raise ModelLoadError(f"{folder}: holds no matching head: {error}") from error
        made = cls(TextEncoder.from_pretrained(folder / "text"), layers)
        missing, unknown = made.load_state_dict(tensors, strict=False)
        missing = [name for name in missing if not name.startswith("text.")]
        if missing or unknown:
            raise ModelLoadError(f"{folder}: tensors {missing or unknown} find no match")
        return made.eval()


class PairedExamples:
    """Rows that hold a text and a code each: a query with its positive, and with its negatives.

    Implements :class:`mmembed.gpte.data.batches.Examples`.

    Args:
        examples: the rows apart.
        pair: makes one of two, of the text and of the code.
    """

    def __init__(self, examples: Examples, pair: Callable[[Row, Row], Row]) -> None:
        self.examples, self._pair = examples, pair

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        """As :meth:`mmembed.gpte.data.batches.Examples.batch`.

        Raises:
            ConfigError: a row has no positive.
        """
        batch = self.examples.batch(rows, draw)
        if batch.positive is None:
            raise ConfigError("pairs are judged, and the data has single texts")
        k = batch.negatives_per_query
        asked = [query for query in batch.query for _ in range(k)]
        return replace(
            batch,
            query=list(map(self._pair, batch.query, batch.positive)),
            positive=None,
            negative=list(map(self._pair, asked, batch.negative)),
        )


def reranked(
    cosines: Array,
    queries: Sequence[str],
    documents: Sequence[str],
    matcher: Matcher,
    depth: int = 32,
) -> Array:
    """``(q, d)`` scores: cosine plus the match's log-odds for the best ``depth`` of each query.

    All others stay behind them, in the order of their cosines.

    Args:
        cosines: ``(q, d)`` by the encoder that retrieves.
    """
    found = np.empty(cosines.shape)
    for row, query in enumerate(queries):
        best = np.argsort(-cosines[row], kind="stable")[:depth]
        scores = cosines[row, best] + matcher.logits([(query, documents[at]) for at in best])
        found[row] = cosines[row] - cosines[row].max() + scores.min() - 1.0
        found[row, best] = scores
    return found


def attended_pair(text: Row, code: Row) -> Row:
    """The code's row, with the text's tokens beside it, as :class:`Matcher` reads them."""
    ids = torch.tensor(text.input_ids)
    return Row(code.input_ids, text.tokens + code.tokens, extras={"text": ids})
