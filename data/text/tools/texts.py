"""Small training and held-out text from CC BY 4.0 textbooks and CC BY 2.0 FR sentence pairs.

python data/text/tools/texts.py ../shared/data
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

TEXT = Path(__file__).resolve().parents[1]
SPLITS = ("train", "dev", "test")

Row = dict[str, Any]

_EMPTY_REFERENCE = re.compile(r" ?\(\s*(see|shown in)?\s*\)")  # a figure's number, lost before
_SENTENCE = re.compile(r"(?<=[a-z0-9)][.!?]) +(?=[A-Z])")
_SHINGLE = 5
_TOO_NEAR = 0.5


def number_of(key: str) -> int:
    """A number that depends on nothing but the key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def split_of(key: str) -> str:
    """The split of everything that comes from one document: a tenth is dev, a tenth is test."""
    return {0: "test", 1: "dev"}.get(number_of(key) % 10, "train")


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a compressed JSONL file."""
    openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
    with openers[path.suffix](path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def terms(data: Path) -> Iterator[tuple[str, Row]]:
    """Glossary terms and meanings; negatives are the meanings of the neighbours in the glossary."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows_of(data / "openstax_text" / "glossary.jsonl.xz"):
        groups[row["book"], split_of(row["term"].lower())].append(row)
    for (book, split), group in groups.items():
        for i, row in enumerate(group):
            near = [group[j]["meaning"] for j in (i - 1, i + 1) if 0 <= j < len(group)]
            yield (
                split,
                {
                    "query": row["term"],
                    "positive": row["meaning"],
                    "negatives": [text for text in near if text != row["meaning"]],
                    "book": book,
                },
            )


def paragraphs(data: Path) -> list[Row]:
    """Paragraphs of some length, each with its split, by module."""
    found = []
    for row in rows_of(data / "openstax_text" / "paragraphs.jsonl.xz"):
        text = _EMPTY_REFERENCE.sub("", row["text"])
        if 200 <= len(text) <= 900:
            key = f"{row['book']}/{row['module']}"
            found.append({**row, "text": text, "module": key, "split": split_of(key)})
    return found


def sections(found: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    """A section's heading and its first paragraph."""
    seen = set()
    for row in found:
        heading = f"{row['module_title']}: {row['section']}"
        if row["section"] and (row["module"], heading) not in seen:
            seen.add((row["module"], heading))
            yield row["split"], {"query": heading, "positive": row["text"], "book": row["book"]}


def sentences(found: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    """One sentence of every second paragraph, and the same with some words repeated (ESimCSE)."""
    for row in found:
        inside = [s for s in _SENTENCE.split(row["text"]) if 40 <= len(s) <= 250]
        if inside and number_of(row["text"]) % 2:
            chosen = inside[number_of(row["text"]) % len(inside)]
            made = {"text": chosen, "repeated": repeated(chosen), "book": row["book"]}
            yield row["split"], made


def repeated(text: str) -> str:
    """The text with up to 32% of its words said twice."""
    draw = random.Random(number_of(text))
    words = text.split()
    count = draw.randint(1, max(2, int(0.32 * len(words))))
    twice = set(draw.sample(range(len(words)), min(count, len(words))))
    return " ".join(f"{word} {word}" if i in twice else word for i, word in enumerate(words))


def crops(found: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    """Two overlapping crops of one paragraph, as Contriever draws them, of every sixth."""
    for row in found:
        words = row["text"].split()
        if number_of(row["text"]) % 6 or len(words) < 60:
            continue
        draw = random.Random(number_of(row["text"]))
        pair = []
        for _ in range(2):
            length = draw.randint(20, 50)
            start = draw.randint(0, len(words) - length)
            pair.append(" ".join(words[start : start + length]))
        yield row["split"], {"query": pair[0], "positive": pair[1], "book": row["book"]}


def related(found: list[Row]) -> Iterator[tuple[str, Row]]:
    """Two sentences, and how near they stand: 1 in a paragraph, 2/3 module, 1/3 book, 0 elsewhere.

    A grade by structure, not by a person's judgement.
    """
    draw = random.Random(0)
    pools: dict[tuple[str, str], list[Row]] = defaultdict(list)
    whole: dict[str, list[Row]] = defaultdict(list)
    usable = []
    for row in found:
        inside = [s for s in _SENTENCE.split(row["text"]) if 40 <= len(s) <= 250]
        if len(inside) > 1:
            row = {**row, "inside": inside}
            usable.append(row)
            whole[row["split"]].append(row)
            pools[row["split"], row["module"]].append(row)
            pools[row["split"], row["book"]].append(row)
    for i, row in enumerate(row for row in usable if number_of(row["text"]) % 5 == 0):
        grade, split = i % 4, row["split"]
        first, second = draw.sample(row["inside"], 2)
        if grade < 3:
            key = row["module"] if grade == 2 else row["book"]
            pool = whole[split] if grade == 0 else pools[split, key]
            others = [
                other
                for other in pool
                if other["text"] != row["text"]
                and (grade == 2 or other["module"] != row["module"])
                and (grade != 0 or other["book"] != row["book"])
            ]
            if not others:
                continue
            second = draw.choice(draw.choice(others)["inside"])
        score = round(grade / 3, 4)
        yield split, {"query": first, "positive": second, "score": score, "book": row["book"]}


def translations(data: Path) -> Iterator[tuple[str, Row]]:
    """Sentences and their English translations, two fifths of each language's."""
    for row in rows_of(data / "tatoeba_bitext" / "pairs.jsonl.gz"):
        if number_of(row["lang"] + row["text"]) % 5 < 2:
            made = {"query": row["text"], "positive": row["en"], "lang": row["lang"]}
            yield split_of(" ".join(words_of(row["en"]))), made


def words_of(text: str) -> list[str]:
    """The words, without case and marks."""
    return re.findall(r"\w+", text.lower())


def texts_of(row: Row) -> list[str]:
    """The texts of a row that may not be in another split."""
    own = [row[name] for name in ("query", "positive", "text") if name in row]
    return [*own, *row.get("negatives", ())]


class HeldOut:
    """Finds texts that are nearly one of those held out, by runs of five words they share."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.holders: dict[str, list[int]] = defaultdict(list)

    def add(self, text: str) -> None:
        """Hold a text out."""
        shingles = _shingles(text)
        for shingle in shingles:
            self.holders[shingle].append(len(self.sizes))
        self.sizes.append(len(shingles))

    def near(self, text: str) -> bool:
        """Whether at least half of the runs of both texts together are in both."""
        shingles = _shingles(text)
        shared: dict[int, int] = defaultdict(int)
        for shingle in shingles:
            for holder in self.holders.get(shingle, ()):
                shared[holder] += 1
        return any(
            both >= _TOO_NEAR * (len(shingles) + self.sizes[holder] - both)
            for holder, both in shared.items()
        )


def entities(
    terms: Iterable[tuple[str, Row]], sentences: Iterable[tuple[str, Row]]
) -> Iterator[tuple[str, Row]]:
    """Sentences that mention a glossary's term: its number, and another's of the same book."""
    books: dict[str, set[str]] = defaultdict(set)
    for _, row in terms:
        books[row["book"]].add(row["query"].lower())
    every = sorted(set().union(*books.values()))
    number = {term: i for i, term in enumerate(every)}
    longest = sorted(filter(lambda term: len(term) > 3, every), key=lambda term: (-len(term), term))
    mention = re.compile(rf"\b({'|'.join(map(re.escape, longest))})\b", re.IGNORECASE)
    for split, row in sentences:
        found = mention.search(row["text"])
        if found is None:
            continue
        entity = found[1].lower()
        others = sorted(books[row["book"]] - {entity})
        hard = random.Random(number_of(row["text"])).choice(others or every)
        numbers = [number[entity], number[hard]]
        yield (
            split,
            {"text": row["text"], "entity": entity, "entities": numbers, "book": row["book"]},
        )


def _shingles(text: str) -> set[str]:
    words = words_of(text)
    runs = range(max(1, len(words) - _SHINGLE + 1))
    return {" ".join(words[i : i + _SHINGLE]) for i in runs}


def main(data: Path) -> None:
    """Write every set, held-out splits first, so that no later one comes near an earlier one."""
    found = paragraphs(data)
    made = {
        "terms": list(terms(data)),
        "sections": list(sections(found)),
        "sentences": list(sentences(found)),
        "crops": list(crops(found)),
        "related": list(related(found)),
        "translations": list(translations(data)),
    }
    made["entities"] = list(entities(made["terms"], made["sentences"]))
    held_out = HeldOut()
    for split in reversed(SPLITS):
        kept: list[str] = []
        for name, rows in made.items():
            mine = {json.dumps(row, ensure_ascii=False): row for of, row in rows if of == split}
            lines = [
                line for line, row in mine.items() if not any(map(held_out.near, texts_of(row)))
            ]
            kept += [text for line in lines for text in texts_of(mine[line])]
            path = TEXT / f"{name}-{split}.jsonl.gz"
            with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
                packed.write("".join(f"{line}\n" for line in lines).encode())
            dropped = len(mine) - len(lines)
            print(f"{path.name}: {len(lines)} rows, {dropped} too near a held-out text")
        for text in kept:
            held_out.add(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
