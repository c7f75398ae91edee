"""What published systems ask a language model for, and what becomes of its answers.

The wording is ours; the steps, the number of examples and what is asked for are the papers'.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from mmembed.errors import InputError
from mmembed.synthesis.endpoint import Messages

__all__ = [
    "METHODS",
    "InPars",
    "InstructedNegatives",
    "Judge",
    "Method",
    "MultilingualImages",
    "PageQueries",
    "Promptagator",
    "TaskAndQuery",
    "TripleOfTask",
]

Row = dict[str, Any]


class Method(Protocol):
    """One question a seed, and rows of its answer."""

    name: ClassVar[str]

    def question(self, seed: Mapping[str, Any]) -> Messages:
        """What is asked about a seed.

        Raises:
            InputError: the seed lacks what the method needs.
        """
        ...

    def rows(self, seed: Mapping[str, Any], answer: str) -> list[Row]:
        """Training rows, none where the answer is of no use."""
        ...


def _said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def _needed(seed: Mapping[str, Any], key: str) -> str:
    value = seed.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(str(seed)[:80], f"has no {key!r}", "every seed needs it")
    return value


def _object(answer: str) -> dict[str, Any]:
    """The first JSON object of an answer; empty where there is none."""
    found = re.search(r"\{.*\}", answer, re.DOTALL)
    try:
        value = json.loads(found.group()) if found else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _line(answer: str) -> str:
    """The first line, without what models put around a query."""
    text = next((line for line in answer.splitlines() if line.strip()), "")
    return re.sub(r"^(relevant )?(query|question)\s*:\s*", "", text.strip(), flags=re.I).strip('" ')


def _texts(found: Mapping[str, Any], *keys: str) -> list[str] | None:
    values = [found.get(key) for key in keys]
    good = all(isinstance(value, str) and value.strip() for value in values)
    return [str(value).strip() for value in values] if good else None


@dataclass(frozen=True)
class InPars:
    """A query a passage, from three examples (Bonifacio et al. 2022; v2: Jeronymo et al. 2023)."""

    examples: Sequence[tuple[str, str]] = (
        (
            "The heart of an octopus stops beating while it swims.",
            "why do octopuses crawl",
        ),
        ("Basalt forms when lava cools quickly at the surface.", "how is basalt formed"),
        (
            "The treaty of 1648 ended a long war.",
            "treaty that ended the thirty years war",
        ),
    )

    name: ClassVar[str] = "inpars"

    def question(self, seed: Mapping[str, Any]) -> Messages:
        shown = "\n\n".join(f"Document: {d}\nRelevant query: {q}" for d, q in self.examples)
        return _said(f"{shown}\n\nDocument: {_needed(seed, 'text')}\nRelevant query:")

    def rows(self, seed: Mapping[str, Any], answer: str) -> list[Row]:
        query = _line(answer)
        return [{"query": query, "positive": seed["text"]}] if query else []


@dataclass(frozen=True)
class Promptagator(InPars):
    """A query a passage, from up to eight examples of the task at hand (Dai et al. 2023).

    Its second step keeps a query whose passage a retriever finds again: see
    :func:`mmembed.synthesis.filtering.consistent`.
    """

    examples: Sequence[tuple[str, str]] = ()
    passage: str = "Passage"
    query: str = "Query"

    name: ClassVar[str] = "promptagator"

    def question(self, seed: Mapping[str, Any]) -> Messages:
        shown = "".join(f"{self.passage}: {d}\n{self.query}: {q}\n\n" for d, q in self.examples[:8])
        return _said(f"{shown}{self.passage}: {_needed(seed, 'text')}\n{self.query}:")


@dataclass(frozen=True)
class TaskAndQuery:
    """A task and a query that a passage serves (the first step of Gecko, Lee et al. 2024).

    Its second step, which finds better positives and hard negatives, is mining with :class:`Judge`.
    """

    name: ClassVar[str] = "gecko"

    def question(self, seed: Mapping[str, Any]) -> Messages:
        return _said(
            "Read the passage. Invent a retrieval task that it could serve, such as answering "
            "questions, checking facts or finding similar texts, and a query of that task which it "
            'answers. Reply with JSON: {"task": "...", "query": "..."}\n\n'
            f"Passage: {_needed(seed, 'text')}"
        )

    def rows(self, seed: Mapping[str, Any], answer: str) -> list[Row]:
        found = _texts(_object(answer), "task", "query")
        if found is None:
            return []
        task, query = found
        return [{"query": query, "positive": seed["text"], "instruction": task}]


@dataclass(frozen=True)
class TripleOfTask:
    """A query, a document and a hard negative of a task (E5-mistral, Wang et al. 2024).

    The seed's ``task`` comes from its first step, a list of tasks: :meth:`brainstorm`.
    """

    language: str = "English"

    name: ClassVar[str] = "e5-mistral"

    @staticmethod
    def brainstorm(count: int = 20) -> Messages:
        """The question of the first step; :meth:`tasks` reads its answer."""
        return _said(
            f"List {count} different text retrieval tasks, one sentence each, as a JSON array of "
            "strings. Name what the query is and what a relevant document is."
        )

    @staticmethod
    def tasks(answer: str) -> list[str]:
        """The tasks of a brainstorm's answer."""
        found = re.search(r"\[.*\]", answer, re.DOTALL)
        try:
            values = json.loads(found.group()) if found else []
        except ValueError:
            return []
        return [value.strip() for value in values if isinstance(value, str) and value.strip()]

    def question(self, seed: Mapping[str, Any]) -> Messages:
        return _said(
            f"Task: {_needed(seed, 'task')}\n\nWrite one example of it in {self.language} as "
            'JSON: {"user_query": "...", "positive_document": "...", '
            '"hard_negative_document": "..."}. The hard negative looks relevant and is not.'
        )

    def rows(self, seed: Mapping[str, Any], answer: str) -> list[Row]:
        keys = ("user_query", "positive_document", "hard_negative_document")
        found = _texts(_object(answer), *keys)
        if found is None or len({*found}) < len(found):
            return []
        query, positive, negative = found
        row = {"query": query, "positive": positive, "negatives": [negative]}
        return [row | {"instruction": seed["task"]}]


@dataclass(frozen=True)
class InstructedNegatives:
    """An instruction that makes a passage relevant, and passages that fit the query and break the
    instruction (Promptriever, Weller et al. 2025; FollowIR, Weller et al. 2024).
    """

    negatives: int = 3

    name: ClassVar[str] = "promptriever"

    def question(self, seed: Mapping[str, Any]) -> Messages:
        return _said(
            f"Query: {_needed(seed, 'query')}\nRelevant passage: {_needed(seed, 'positive')}\n\n"
            "Write an instruction that narrows what counts as relevant, so that the passage still "
            f"is, and {self.negatives} passages that answer the query and break the instruction. "
            'Reply with JSON: {"instruction": "...", "negatives": ["..."]}'
        )

    def rows(self, seed: Mapping[str, Any], answer: str) -> list[Row]:
        found = _object(answer)
        told = _texts(found, "instruction")
        negatives = found.get("negatives")
        if told is None or not isinstance(negatives, list):
            return []
        kept = [n for n in negatives if isinstance(n, str) and n.strip() and n != seed["positive"]]
        if not kept:
            return []
        row = {"query": seed["query"], "positive": seed["positive"], "negatives": kept}
        return [row | {"instruction": told[0]}]


@dataclass(frozen=True)
class Judge:
    """How relevant a document is, from 0 to ``best``: labels for mined candidates (UniME-V2)."""

    best: int = 3

    name: ClassVar[str] = "judge"

    def question(self, seed: Mapping[str, Any]) -> Messages:
        return _said(
            f"Query: {_needed(seed, 'query')}\nDocument: {_needed(seed, 'text')}\n\nHow well does "
            f"the document answer the query? Reply with one number from 0 (not) to {self.best}."
        )

    def rows(self, seed: Mapping[str, Any], answer: str) -> list[Row]:
        found = re.search(r"\d+", answer)
        if found is None or int(found.group()) > self.best:
            return []
        score = int(found.group()) / self.best
        return [{"query": seed["query"], "positive": seed["text"], "score": score}]


def _picture(path: str) -> dict[str, Any]:
    """A picture as the chat protocol takes it.

    Raises:
        InputError: it cannot be read.
    """
    from mmembed.inputs.sniff import sniff

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    if sniff(data) != "image":
        raise InputError(path, "is no picture", "render pages to PNG first")
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


@dataclass(frozen=True)
class PageQueries:
    """Questions that a page answers, from its picture (ColPali, Faysse et al. 2024)."""

    count: int = 3

    name: ClassVar[str] = "page-queries"

    def question(self, seed: Mapping[str, Any]) -> Messages:
        asked = (
            f"Write {self.count} questions that a reader could ask without seeing this page, and "
            "that this page answers. Reply with a JSON array of strings."
        )
        parts = [_picture(_needed(seed, "image")), {"type": "text", "text": asked}]
        return [{"role": "user", "content": parts}]

    def rows(self, seed: Mapping[str, Any], answer: str) -> list[Row]:
        queries = TripleOfTask.tasks(answer)[: self.count]
        return [{"query": query, "positive": {"image": seed["image"]}} for query in queries]


@dataclass(frozen=True)
class MultilingualImages:
    """A query, a positive and a hard negative about a real picture, in one pass: look, draft,
    criticise, correct (mmE5, Chen et al. 2025).
    """

    languages: Sequence[str] = ("English",)
    kinds: Mapping[str, str] = field(
        default_factory=lambda: {
            "retrieval": "a query that asks for this picture",
            "question": "a question that the picture answers, and the answer",
            "classification": "a statement of what class the picture belongs to",
        }
    )

    name: ClassVar[str] = "mme5"

    def question(self, seed: Mapping[str, Any]) -> Messages:
        path = _needed(seed, "image")
        # By the picture itself, so that a run that goes on asks the same.
        number = sum(path.encode())
        language = self.languages[number % len(self.languages)]
        kind = [*self.kinds.values()][number % len(self.kinds)]
        asked = (
            f"In {language}: first describe the picture from several sides; then draft {kind}, "
            "with a text that fits it and one that nearly does; then say what is weak in it; then "
            'correct it. Reply with JSON: {"description": "...", "draft": {...}, "criticism": '
            '"...", "query": "...", "positive": "...", "hard_negative": "..."}'
        )
        return [{"role": "user", "content": [_picture(path), {"type": "text", "text": asked}]}]

    def rows(self, seed: Mapping[str, Any], answer: str) -> list[Row]:
        found = _texts(_object(answer), "query", "positive", "hard_negative")
        if found is None or len({*found}) < len(found):
            return []
        query, positive, negative = found
        asked = {"image": seed["image"], "text": query}
        return [{"query": asked, "positive": positive, "negatives": [negative]}]


METHODS: Mapping[str, type[Method]] = {
    method.name: method
    for method in (
        InPars,
        Promptagator,
        TaskAndQuery,
        TripleOfTask,
        InstructedNegatives,
        Judge,
        PageQueries,
        MultilingualImages,
    )
}
