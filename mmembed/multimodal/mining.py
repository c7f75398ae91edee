"""Hard negatives of any modality, mined with an embedder and judged by a reranker."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmembed.embedder import Embedder
from mmembed.errors import ConfigError
from mmembed.gpte.data.examples import Report
from mmembed.gpte.mining import candidates, write_mined
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.recipe import MineStage
from mmembed.inputs.items import DocumentPart, ImagePart, Item, TextPart, VideoPart
from mmembed.multimodal.config import MediaDataConfig
from mmembed.multimodal.data.rows import MediaExample, item_hash, media_examples
from mmembed.reranker import Reranker, log_odds

__all__ = ["MediaMineStage", "item_record", "mine_media_negatives", "run_media_mine"]

_QUERIES = 256
_KEYS = {TextPart: "text", ImagePart: "image", VideoPart: "video", DocumentPart: "document"}


@dataclass(frozen=True)
class MediaMineStage(MineStage):
    """Hard negatives for sources of any modality; the file that it writes has the columns
    ``query``, ``positive``, ``negatives`` and ``scores``: cosines, the positive's first.

    Attributes:
        reranker: a model of :class:`mmembed.reranker.Reranker` that must give a negative less than
            ``reranker_share`` of the positive's probability. What it says is written too, for a
            later stage's ``teacher``: ``reranker_probabilities`` (the judge of UniME-V2), and
            ``reranker_scores``, their log-odds (the teacher of Qwen3-VL-Embedding).
    """

    kind: ClassVar[str] = "multimodal-mine"

    data: MediaDataConfig  # type: ignore[assignment]

    def tiny(self, folder: Path) -> MediaMineStage:
        """The stage over a few rows; random models know no margin."""
        from dataclasses import replace

        from mmembed.multimodal.stage import few, tiny_judge, tiny_named

        sources = tuple(map(few, self.data.sources))
        return replace(
            self,
            data=replace(self.data, sources=sources, check_media=False),
            negatives=min(self.negatives, 2),
            model=tiny_named(self.model, "qwen2_vl", folder),
            reranker=None if self.reranker is None else str(tiny_judge(folder)),
            reranker_share=math.inf,
            margin=None,
            relative=None,
            ranks=(0, 100),
        )


def run_media_mine(stage: MediaMineStage, context: Context) -> Outcome:
    """Mine every source, and write ``rows.jsonl``.

    Raises:
        ConfigError: the sources give no row with a negative, or bring media as bytes.
    """
    embedder = Embedder.from_pretrained(context.model(stage.model))
    reranker = None if stage.reranker is None else Reranker.from_pretrained(stage.reranker)
    records = (
        record
        for source in map(context.source, stage.data.sources)
        for record in mine_media_negatives(
            embedder,
            list(media_examples(source, Report(source.path), stage.data.bad_rows)),
            stage,
            reranker,
        )
    )
    return write_mined(stage, context.folder, records)


def mine_media_negatives(
    embedder: Embedder,
    examples: Sequence[MediaExample],
    stage: MineStage,
    reranker: Reranker | None = None,
) -> Iterator[dict[str, Any]]:
    """A row an example, with negatives from the targets of all of them, best ranked first.

    A target is no negative of a query if it is a positive of an equal query, or equals the query.
    Lists of scores begin with the positive's.
    """
    corpus = {item_hash(item): item for one in examples for item in one.items[1:]}
    number = {key: i for i, key in enumerate(corpus)}
    items = list(corpus.values())
    answers: dict[int, set[int]] = {}
    for example in examples:
        query = item_hash(example.query)
        found = answers.setdefault(query, set())
        found.add(number[item_hash(example.positive)])
        if query in number:
            found.add(number[query])
    documents = _vectors(embedder, items, "document")
    rng = np.random.default_rng(0)
    for start in range(0, len(examples), _QUERIES):
        part = examples[start : start + _QUERIES]
        scores = _vectors(embedder, [one.query for one in part], "query") @ documents.T
        for example, row in zip(part, torch.from_numpy(scores), strict=True):
            own = number[item_hash(example.positive)]
            picked = candidates(row, answers[item_hash(example.query)], float(row[own]), stage)
            scored = {"scores": [float(row[i]) for i in (own, *picked)]}
            kept = list(range(len(picked)))
            if reranker is not None and picked:
                judged = reranker.score(example.query, [items[i] for i in (own, *picked)])
                scored["reranker_probabilities"] = judged.tolist()
                scored["reranker_scores"] = log_odds(judged).tolist()
                kept = [i for i in kept if judged[1 + i] < stage.reranker_share * judged[0]]
            if stage.sample and len(kept) > stage.negatives:
                kept = sorted(rng.choice(kept, stage.negatives, replace=False).tolist())
            kept = kept[: stage.negatives]
            yield {
                "query": item_record(example.query),
                "positive": item_record(example.positive),
                "negatives": [item_record(items[picked[i]]) for i in kept],
                **{name: [one[0], *(one[1 + i] for i in kept)] for name, one in scored.items()},
            }


def item_record(item: Item) -> dict[str, Any]:
    """An item as a row of a JSONL file holds it, media by their full paths.

    Raises:
        ConfigError: a medium came as bytes, which such a file does not hold.
    """
    record: dict[str, Any] = {} if item.instruction is None else {"instruction": item.instruction}
    for part in item.parts:
        key = _KEYS[type(part)]
        if isinstance(part, TextPart):
            value = part.text
        elif isinstance(part.source, (str, Path)):
            value = str(Path(part.source).resolve())
            if isinstance(part, DocumentPart):
                value += f"#page={part.page}"
        else:
            raise ConfigError("mined rows name media by path, and this source brings bytes")
        before = record.get(key)
        if before is None:
            record[key] = value
        elif key == "text":
            record[key] = f"{before}\n{value}"
        else:
            record[key] = [*(before if isinstance(before, list) else [before]), value]
    return record


def _vectors(embedder: Embedder, items: list[Item], role: Any) -> np.ndarray[Any, Any]:
    vectors = embedder.encode(items, role=role, on_error="none", show_progress=False)
    # What cannot be read is far from everything.
    return np.nan_to_num(vectors)
