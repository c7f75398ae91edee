"""Train and write the packaged connector of ``mini``.

    python -m mmembed.multimodal.train_mini --data DATA --cache CACHE --output mmembed/models/mini

The figures whose licence is not clearly open are left out, and so are the development and test
figures; ``--with-dev`` adds the development figures, once everything has been chosen.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import torch
from cyclopts import App

from mmembed.backbones.composed import ComposedVLM
from mmembed.backbones.composed_loading import load_parts, packaged_file
from mmembed.backbones.connector import Connector, ConnectorShape
from mmembed.backbones.weights import read_json, read_safetensors
from mmembed.multimodal.alignment import Alignment, AlignmentConfig, Classes, measure
from mmembed.multimodal.captioned import Captioned, read_captioned
from mmembed.multimodal.packaging import save_halved

app = App(help=__doc__)
logger = logging.getLogger(__name__)

_SETS = ("openstax_figures", "emoji_noto", "grocery_store", "free_exercise_db")
_LANDMARKS = 4096


@app.default
def train(
    data: Path,
    cache: Path,
    output: Path,
    *,
    with_dev: bool = False,
    decoder: Path | None = None,
    config: AlignmentConfig | None = None,
) -> None:
    """Train the connector.

    Args:
        data: the folder that holds the captioned sets.
        cache: where features are kept.
        output: the folder of ``config.json``; ``connector.safetensors`` and ``training.json`` are
            written there.
        with_dev: train on the development figures too.
        decoder: a folder whose connector's decoder is kept; it knows texts alone, and to teach one
            takes most of the time.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    everything = [row for name in _SETS for row in read_captioned(name, data)]
    splits = ("train", "dev") if with_dev else ("train",)
    rows = [row for row in everything if row.split in splits and row.licence is not None]
    kept = None if decoder is None else read_safetensors(decoder / "connector.safetensors")
    classes = classes_of(output)
    model = fresh_model(output, min(_LANDMARKS, len(rows)), classes)
    alignment = Alignment(model, rows, cache, config or AlignmentConfig(), classes)
    dev = [row for row in everything if row.source == _SETS[0] and row.split == "dev"]

    def tell(when: str) -> None:
        if not with_dev:
            found = measure(model, dev, cache).text_to_image
            logger.info("%s: dev recall %s, mrr %.4f", when, found.recall, found.mrr)

    alignment.regress()
    if alignment.config.map_steps:
        alignment.contrast()
    if kept is None:
        alignment.teach_decoder()
    else:
        alignment.keep_decoder(kept)
    alignment.correct_decoder()
    tell("trained")
    _write(model, output, rows, alignment.config, splits, kept is not None)


def classes_of(folder: Path) -> Classes:
    """The classifier in the package of the vision tower, and the names of its classes."""
    file = packaged_file(read_json(folder / "config.json")["vision"])
    state = torch.load(file, map_location="cpu", weights_only=True)
    names = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
    return Classes(state["_fc.weight"], state["_fc.bias"], names)


def fresh_model(folder: Path, landmarks: int, classes: Classes | None = None) -> ComposedVLM:
    """The packaged parts with a connector of random weights."""
    vision, text, tokenizer, settings = load_parts(folder)
    shape = ConnectorShape(
        channels=vision.channels,
        tokens=vision.patches,
        width=int(text.config.hidden_size),
        landmarks=landmarks,
        classes=0 if classes is None else len(classes.names),
        classified=0 if classes is None else classes.weight.shape[1],
    )
    return ComposedVLM(vision, Connector(shape), text, tokenizer, settings).eval()


def _write(
    model: ComposedVLM,
    folder: Path,
    rows: list[Captioned],
    config: AlignmentConfig,
    splits: tuple[str, ...],
    kept_decoder: bool,
) -> None:
    save_halved(model.connector.state_dict(), folder / "connector.safetensors")
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    about["connector"] = dataclasses.asdict(model.connector.shape)
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.source] = counts.get(row.source, 0) + 1
    training = {
        "images": counts,
        "classes": model.connector.shape.classes,
        "decoder": "kept" if kept_decoder else "taught",
        "splits": splits,
        "licences": sorted({row.licence for row in rows if row.licence}),
        "config": dataclasses.asdict(config),
    }
    (folder / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
