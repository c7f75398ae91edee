"""Text: similarity, retrieval in one and many languages, translations, clustering."""

from __future__ import annotations

from pathlib import Path

from mmembed.evaluation.benchmarks.benchmark import Benchmark
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.tasks import Clustering, Retrieval, Similarity, Task

__all__ = ["BENCHMARKS"]

_CLUSTERED = 120
_PER_LANGUAGE = 1000


def _sts(folder: Path) -> dict[str, Task]:
    return {"en": _stsb(folder, "en")}


def _sts_multilingual(folder: Path) -> dict[str, Task]:
    languages = sorted(set(rows_of(folder / "stsb_multi_mt/test.jsonl.gz")[0]) - {"score"})
    return {language: _stsb(folder, language) for language in languages}


def _stsb(folder: Path, language: str) -> Similarity:
    rows = rows_of(folder / "stsb_multi_mt/test.jsonl.gz")
    first, second = ([row[language][i] for row in rows] for i in range(2))
    return Similarity(first, second, [row["score"] for row in rows])


def _cranfield(folder: Path) -> dict[str, Task]:
    """Any positive judgement counts as relevant; an empty document is left out."""
    rows = rows_of(folder / "cranfield/docs.jsonl.gz")
    documents = {row["doc_id"]: row["text"] for row in rows if row["text"].strip()}
    place = {key: i for i, key in enumerate(documents)}
    gains: dict[str, dict[int, float]] = {}
    for row in rows_of(folder / "cranfield/qrels.jsonl.gz"):
        if row["rel"] > 0 and row["doc_id"] in place:
            gains.setdefault(row["query_id"], {})[place[row["doc_id"]]] = 1.0
    asked = [r for r in rows_of(folder / "cranfield/queries.jsonl.gz") if r["query_id"] in gains]
    queries = [row["text"] for row in asked]
    judged = [gains[row["query_id"]] for row in asked]
    return {"en": Retrieval(queries, list(documents.values()), judged)}


def _xquad(folder: Path) -> dict[str, Task]:
    """Questions and paragraphs of one language each; and questions of each over English ones."""
    passages = rows_of(folder / "xquad_multilingual/passages.jsonl.gz")
    questions = rows_of(folder / "xquad_multilingual/questions.jsonl.gz")
    place = {row["pid"]: i for i, row in enumerate(passages)}
    gains = [{place[row["pid"]]: 1.0} for row in questions]
    english = [row["text"]["en"] for row in passages]
    tasks: dict[str, Task] = {}
    for language in sorted(passages[0]["text"]):
        asked = [row["question"][language] for row in questions]
        own = english if language == "en" else [row["text"][language] for row in passages]
        tasks[language] = Retrieval(asked, own, gains)
        if language != "en":
            tasks[f"{language}-en"] = Retrieval(asked, english, gains)
    return tasks


def _bitext(folder: Path) -> dict[str, Task]:
    """A sentence finds its English translation among those of its language's sentences."""
    by_language: dict[str, list[tuple[str, str]]] = {}
    for row in rows_of(folder / "tatoeba_bitext/pairs.jsonl.gz"):
        by_language.setdefault(row["lang"], []).append((row["text"], row["en"]))
    tasks: dict[str, Task] = {}
    for language, pairs in sorted(by_language.items()):
        pairs = pairs[:_PER_LANGUAGE]
        documents = list(dict.fromkeys(en for _, en in pairs))
        place = {text: i for i, text in enumerate(documents)}
        gains = [{place[en]: 1.0} for _, en in pairs]
        tasks[language] = Retrieval([text for text, _ in pairs], documents, gains, "hit@1")
    return tasks


def _books(folder: Path) -> dict[str, Task]:
    return {
        name: _retrieval(folder / f"text/{name}-test.jsonl.gz") for name in ("terms", "sections")
    }


def _retrieval(file: Path) -> Retrieval:
    rows = rows_of(file)
    documents = list(dict.fromkeys(row["positive"] for row in rows))
    place = {text: i for i, text in enumerate(documents)}
    gains: dict[str, dict[int, float]] = {}
    for row in rows:
        gains.setdefault(row["query"], {})[place[row["positive"]]] = 1.0
    return Retrieval(list(gains), documents, list(gains.values()))


def _topics(folder: Path) -> dict[str, Task]:
    """Paragraphs by their book, the same number of each."""
    by_book: dict[str, list[str]] = {}
    for row in rows_of(folder / "openstax_text/paragraphs.jsonl.xz"):
        by_book.setdefault(row["book"], []).append(row["text"])
    items, labels = [], []
    for book, texts in sorted(by_book.items()):
        step = max(1, len(texts) // _CLUSTERED)
        chosen = texts[::step][:_CLUSTERED]
        items += chosen
        labels += [book] * len(chosen)
    return {"books": Clustering(items, labels)}


_STSB = "see source; research use"

BENCHMARKS = (
    Benchmark(
        "sts",
        "STS benchmark in English: grades of sentence pairs",
        _STSB,
        "test",
        "https://github.com/PhilipMay/stsb-multi-mt",
        ("stsb_multi_mt",),
        ("text",),
        _sts,
    ),
    Benchmark(
        "sts-multilingual",
        "STS benchmark, translated by machine",
        _STSB,
        "test",
        "https://github.com/PhilipMay/stsb-multi-mt",
        ("stsb_multi_mt",),
        ("text",),
        _sts_multilingual,
    ),
    Benchmark(
        "cranfield",
        "questions about aerodynamics and abstracts",
        "research only",
        "all",
        "https://github.com/oussbenk/cranfield-trec-dataset",
        ("cranfield",),
        ("text",),
        _cranfield,
    ),
    Benchmark(
        "xquad",
        "questions and the paragraphs that answer them, in 12 languages and across to English",
        "CC BY-SA 4.0",
        "all",
        "https://github.com/google-deepmind/xquad",
        ("xquad_multilingual",),
        ("text",),
        _xquad,
    ),
    Benchmark(
        "bitext",
        "Tatoeba sentences and their English translations, up to 1,000 a language",
        "CC BY 2.0 FR",
        "all",
        "https://github.com/facebookresearch/LASER",
        ("tatoeba_bitext",),
        ("text",),
        _bitext,
    ),
    Benchmark(
        "books",
        "textbooks: terms and their meanings, headings and their first paragraphs",
        "CC BY 4.0",
        "test",
        "https://openstax.org",
        ("text/terms-test.jsonl.gz",),
        ("text",),
        _books,
    ),
    Benchmark(
        "topics",
        "paragraphs of textbooks, clustered by book",
        "CC BY 4.0",
        "all",
        "https://openstax.org",
        ("openstax_text",),
        ("text",),
        _topics,
    ),
)
