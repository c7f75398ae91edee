"""Pairs that teach ``mini`` other languages: English texts and what they are in languages of Latin
script, whose letters the tokenizer of MiniLM knows.

    python -m mmembed.multimodal.translations \\
        --texts data/text --emoji DATA/emoji_noto --output FILE --count 6000

The sentences are Tatoeba's (CC BY 2.0 FR), by the splits of ``data/text``; the names of emoji are
Unicode's (Unicode-3.0), without those of the emoji that are held out as pictures.
"""

from __future__ import annotations

import gzip
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

from cyclopts import App

from mmembed.evaluation.splits import held_out

__all__ = ["NAMES", "emoji_pairs", "sentence_pairs"]

app = App(help=__doc__)
logger = logging.getLogger(__name__)

_SENTENCES = (
    *("deu", "fra", "spa", "ita", "por", "nld", "pol", "ces", "swe", "dan"),
    *("fin", "hun", "ron", "tur", "vie", "ind", "cat", "epo", "eus", "swh"),
)
NAMES = ("de", "fr", "es", "it", "pt", "nl", "pl", "tr", "vi", "id", "sw")


@app.default
def write(
    texts: Path, emoji: Path, output: Path, *, split: str = "train", count: int | None = None
) -> None:
    """Write the pairs of one split, one JSON object a line: ``query`` English, ``positive`` not.

    Args:
        texts: folder of ``translations-SPLIT.jsonl.gz``.
        emoji: folder of ``emoji.jsonl``.
        output: the file.
        split: ``train``, ``dev`` or ``test``; of emoji there are train and test.
        count: keep so many pairs, drawn at random, always the same ones.
    """
    rows = [*sentence_pairs(texts, split)]
    if split != "dev":
        rows += emoji_pairs(emoji, split)
    if count is not None:
        rows = random.Random(0).sample(rows, min(count, len(rows)))
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("".join(lines), encoding="utf-8")
    logger.info("%d pairs in %s", len(lines), output)


def sentence_pairs(texts: Path, split: str) -> Iterator[dict[str, str]]:
    """Sentences in languages of Latin script and their English translations."""
    with gzip.open(texts / f"translations-{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["lang"] in _SENTENCES:
                yield {"query": row["positive"], "positive": row["query"], "lang": row["lang"]}


def emoji_pairs(emoji: Path, split: str) -> Iterator[dict[str, str]]:
    """Names of emoji in English and in other languages, by the split of their pictures."""
    with (emoji / "emoji.jsonl").open(encoding="utf-8") as lines:
        rows = [row for line in lines if (row := json.loads(line))["kind"] == "base"]
    measured = {row["image"] for row in held_out(rows, lambda row: row["image"])}
    for row in rows:
        if (row["image"] in measured) != (split == "test"):
            continue
        for lang in NAMES:
            if lang in row["names"] and row["names"][lang] != row["names"]["en"]:
                yield {"query": row["names"]["en"], "positive": row["names"][lang], "lang": lang}


if __name__ == "__main__":
    app()
