"""A discriminator that reads text and code together, and its soft labels (SCodeR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from codeembed.pairs.soft_labels import soft_labelled
from codeembed.training.rows import written
from mmembed.errors import ConfigError
from mmembed.gpte.config import DataConfig, SourceConfig
from mmembed.gpte.data.sources import raw_rows
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.recipe import TrainStage

__all__ = ["CrossJudge", "JudgeStage", "ScoreStage", "run_judge", "run_score"]


@dataclass(frozen=True)
class JudgeStage(TrainStage):
    """A discriminator trained on pairs and their hard negatives: ``kind: judge`` (SCodeR, Li et
    al., 2022).

    It is an encoder whose vector of text and code, read as one row, is one logit; a later stage of
    the same kind may start from it.
    """

    kind: ClassVar[str] = "judge"

    objective: Mapping[str, Any] | str | None = "pair_softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = self.encoder.text_settings
        if settings is None or not settings.projections or settings.projections[-1].out != 1:
            raise ConfigError(
                f"stage {self.name}: a judge gives one logit: set encoder.settings.projections to "
                "[{out: 1}]"
            )
        if not self.data.negatives or self.data.streaming:
            raise ConfigError(f"stage {self.name}: a judge needs data.negatives, and no streaming")
        if self.tasks or self.momentum or self.evaluation:
            raise ConfigError(
                f"stage {self.name}: a judge retrieves nothing: leave out tasks, momentum and "
                "evaluation"
            )


@dataclass(frozen=True)
class ScoreStage:
    """Soft labels of rows by a judge, in the column ``teacher``: ``kind: scored``.

    Attributes:
        source: Rows with negatives, such as ``stage://NAME`` of a mining stage.
        model: Folder that a ``judge`` stage wrote, or ``stage://NAME``.
    """

    kind: ClassVar[str] = "scored"

    name: str
    source: str
    model: str

    @property
    def data(self) -> DataConfig:
        """The source, as other stages name theirs."""
        return DataConfig((SourceConfig(self.source, licence="as the source's"),))

    def tiny(self, folder: Path) -> ScoreStage:
        """The stage as it is: its rows are few, and its model is tiny."""
        return self


class CrossJudge:
    """The logits of pairs of text and code, by what a ``judge`` stage wrote.

    Implements :data:`codeembed.pairs.soft_labels.Discriminator`.

    Args:
        name_or_path: Of the model.

    Raises:
        ModelLoadError: it cannot be loaded.
        ConfigError: it gives no single logit.
    """

    def __init__(self, name_or_path: str | Path) -> None:
        from codeembed.training.joined import Joiner
        from mmembed.gpte.text_encoder import TextEncoder

        self.encoder = TextEncoder.from_pretrained(name_or_path).eval()
        if self.encoder.dim != 1:
            raise ConfigError(f"{name_or_path}: gives vectors of {self.encoder.dim}, not one logit")
        self._join = Joiner(self.encoder)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Logits in the order of the pairs.

        Raises:
            InputError: a text or a code cannot be tokenised.
        """
        from mmembed.gpte.encoding import outputs_of
        from mmembed.gpte.objectives.base import dense_of

        texts, codes = zip(*pairs, strict=True)
        rows = map(
            self._join,
            self.encoder.tokenize(texts, "query"),
            self.encoder.tokenize(codes, "document"),
        )
        found = torch.empty(len(pairs), dtype=torch.float64)
        for part, outputs in outputs_of(self.encoder, list(rows)):
            found[part] = dense_of(outputs).double().squeeze(1).cpu()
        return found.tolist()


def run_judge(stage: JudgeStage, context: Context) -> Outcome | None:
    """Train the judge; as :func:`mmembed.gpte.training.run_train`."""
    from codeembed.training.joined import Joiner, PairedExamples
    from mmembed.gpte.training import Extension, run_train

    extension = Extension(
        examples=lambda encoder, examples: PairedExamples(examples, Joiner(encoder))
    )
    return run_train(stage, context, extension)


def run_score(stage: ScoreStage, context: Context) -> Outcome:
    """Write the rows with their soft labels.

    Raises:
        ConfigError, ModelLoadError: as :class:`CrossJudge`.
        InputError: the source cannot be read, or a row has no negatives.
    """
    judge = CrossJudge(context.model(stage.model))
    source = context.source(SourceConfig(stage.source)).path

    found = list(soft_labelled((dict(raw.fields) for raw in raw_rows(source)), judge))
    return written(context, found, {"rows": len(found)})
