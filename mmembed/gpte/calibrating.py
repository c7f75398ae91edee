"""A stage that fits whitening or a flow to a finished model, and saves them together."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.calibration import Flow, Whitening, fit_flow, fit_whitening
from mmembed.gpte.data.examples import Report, examples_of
from mmembed.gpte.encoding import encode
from mmembed.gpte.evaluating import Evaluator
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.recipe import CalibrateStage
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["run_calibrate"]


def run_calibrate(stage: CalibrateStage, context: Context) -> Outcome:
    """Fit on the texts of the stage's sources.

    Raises:
        ConfigError: the model is calibrated already, or there are too few texts.
        InputError, ModelLoadError: a source or the model cannot be read.
    """
    encoder = TextEncoder.from_pretrained(context.model(stage.model))
    if encoder.calibration is not None:
        raise ConfigError(f"stage {stage.name}: the model is calibrated already")
    plain = encoder.settings
    encoder.settings = replace(plain, normalize=False)
    vectors = _vectors(encoder, stage, context)
    encoder.settings = plain
    evaluator = Evaluator(stage.evaluation, context.source) if stage.evaluation else None
    start = evaluator(encoder.eval()) if evaluator else {}
    fitted: Whitening | Flow
    if stage.method == "whitening":
        fitted = fit_whitening([vectors], stage.dim, shrinkage=stage.shrinkage)
    else:
        fitted = fit_flow(vectors, epochs=stage.epochs, seed=context.recipe.seed)
    encoder.calibrate(fitted)
    encoder.save_pretrained(context.folder / "model")
    metrics = evaluator(encoder) if evaluator else {}
    return Outcome(context.folder, context.folder / "model", metrics=metrics, start=start)


def _vectors(encoder: TextEncoder, stage: CalibrateStage, context: Context) -> Tensor:
    """``(n, d)`` of every different text, before normalisation."""
    found = []
    for source in context.data(stage.data).sources:
        examples = list(examples_of(source, Report(source.name), stage.data.bad_rows))
        queries = list(dict.fromkeys(example.query for example in examples))
        documents = list(dict.fromkeys(text for e in examples for text in e.texts[1:]))
        for texts, role in ((queries, source.query_role), (documents, source.document_role)):
            if texts:
                found.append(encode(encoder, texts, role=role))
    return torch.cat(found)
