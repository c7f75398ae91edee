"""Functions that do the same, by name or documentation: CodeRetriever's code-code pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from codeembed.pairs.functions import functions_of
from codeembed.pairs.matchers import Judge, match_documentation, match_names
from codeembed.parse import ParseTimeoutError
from codeembed.training.rows import Array, few_rows, read, tiny_embedder, unit_vectors, written
from codeembed.transform.tree import Code
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.config import DataConfig
from mmembed.gpte.outcomes import Context, Outcome

__all__ = ["MatchedStage", "judged_pairs", "name_of", "run_matched"]


@dataclass(frozen=True)
class MatchedStage:
    """Pairs of functions, as rows of ``query`` and ``positive``: ``kind: matched`` (CodeRetriever,
    Li et al., 2022).

    Candidates have names of the same words, or documentation that an embedder finds alike; a judge
    that was taught which documentation belongs to which code keeps those whose codes fit each
    other's documentation.

    Attributes:
        data: Documentation as ``query``, its function as ``positive``.
        model: Folder or hub name of an embedder of texts, or ``stage://NAME``.
        least: Least cosine of documentation that is alike.
        sure: Least probability, by the judge.
        language: Of the functions.
    """

    kind: ClassVar[str] = "matched"

    name: str
    data: DataConfig
    model: str
    family: str = "bert"
    least: float = 0.8
    sure: float = 0.5
    language: str = "python"

    def __post_init__(self) -> None:
        if not -1 <= self.least <= 1 or not 0 <= self.sure <= 1:
            raise ConfigError(f"stage {self.name}: least lies in [-1, 1], and sure in [0, 1]")

    def tiny(self, folder: Path) -> MatchedStage:
        """The stage with a tiny random model, which knows nothing."""
        model = tiny_embedder(self.model, self.family, folder)
        return replace(self, data=few_rows(self.data), model=model, least=-1.0, sure=0.0)


def run_matched(stage: MatchedStage, context: Context) -> Outcome:
    """Write the pairs.

    Raises:
        ConfigError: no pair passes, or rows lack documentation or code.
        InputError, ModelLoadError: a source or the model cannot be read.
    """
    from mmembed.gpte.text_encoder import TextEncoder

    encoder = TextEncoder.from_pretrained(context.model(stage.model)).eval()
    examples = read(stage.data, context)
    if any(one.positive is None for one in examples):
        raise ConfigError(f"stage {stage.name}: a row needs documentation and its function")
    texts = [one.query for one in examples]
    codes = [str(one.positive) for one in examples]
    vectors = unit_vectors(encoder, texts), unit_vectors(encoder, codes)
    named = match_names([name_of(code, stage.language) for code in codes])
    alike = match_documentation(vectors[0], least=stage.least)
    asked = sorted(
        (first, second) for first, second in {*named, *alike} if codes[first] != codes[second]
    )
    sure = judged_pairs(texts, codes, *vectors, asked)
    rows = [
        {"query": codes[first], "positive": codes[second]}
        for (first, second), chance in zip(asked, sure, strict=True)
        if chance >= stage.sure
    ]
    if not rows:
        raise ConfigError(f"stage {stage.name}: none of {len(asked)} pairs passes; lower sure")
    return written(context, rows, {"rows": len(rows), "candidates": len(asked)})


def judged_pairs(
    texts: Sequence[str],
    codes: Sequence[str],
    text_vectors: Array,
    code_vectors: Array,
    asked: Sequence[tuple[int, int]],
) -> Array:
    """``(n,)`` mean probability that each of two codes fits the other's documentation.

    The judge learns from every text with its own code, and with the code of another row.

    Args:
        text_vectors: ``(rows, d)`` unit vectors of the texts.
        code_vectors: ``(rows, d)`` of the codes.
        asked: pairs of rows.
    """

    def features(pairs: Sequence[tuple[int, int]]) -> Array:
        return np.array(
            [
                Judge.features((texts[a], text_vectors[a]), (codes[b], code_vectors[b]))
                for a, b in pairs
            ]
        ).reshape(-1, 3)

    rows = len(texts)
    away = np.random.default_rng(0).integers(1, max(2, rows), rows)
    right = [(row, row) for row in range(rows)]
    wrong = [(row, (row + int(by)) % rows) for row, by in enumerate(away)]
    labels = np.array([1.0] * rows + [0.0] * rows)
    judge = Judge().fit(features([*right, *wrong]), labels)
    back = [(second, first) for first, second in asked]
    return np.asarray((judge(features(asked)) + judge(features(back))) / 2)


def name_of(code: str, language: str) -> str:
    """The name of the first function; empty where there is none."""
    try:
        functions = functions_of(Code.read(code.encode(), language))
    except (InputError, ParseTimeoutError):
        return ""
    return functions[0].name if functions else ""
