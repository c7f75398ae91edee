"""``mmembed info`` and ``mmembed doctor``."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mmembed.commands.output import EXIT_ERROR, EXIT_OK, Output

__all__ = ["describe", "examine"]

_REQUIRED = (
    *("torch", "transformers", "safetensors", "peft", "numpy", "pillow", "av", "pypdfium2"),
    *("lancedb", "pyarrow", "tree-sitter"),
)
_OPTIONAL = {
    "decord": "first video decoder (x86 Linux)",
    "open-clip-torch": "open_clip models: pip install 'mmembed[open-clip]'",
    "torchvision": "the model families' own video processors: pip install 'mmembed[open-clip]'",
    "fastapi": "mmembed serve: pip install 'mmembed[server]'",
    "datasets": "Hugging Face datasets as training data: pip install 'mmembed[train]'",
    "mteb": "public benchmarks: pip install 'mmembed[eval]'",
    "ray": "bulk embedding: pip install 'mmembed[ray]'",
}


def describe(target: str, output: Output) -> int:
    """A model by name or folder, or an index by path."""
    path = Path(target).expanduser()
    is_model = (path / "config.json").exists() or (path / "embedder.json").exists()
    if path.is_dir() and not is_model:
        return _describe_index(path, output)
    return _describe_model(target, output)


def _describe_index(path: Path, output: Output) -> int:
    from mmembed.search.index import Index

    with Index.open(path, create=False) as index:
        record = {"index": str(path), **asdict(index.stats())}
    output.result(record, "\n".join(f"{key:14} {value}" for key, value in record.items()))
    return EXIT_OK


def _describe_model(name: str, output: Output) -> int:
    from mmembed.backbones.base import module_of
    from mmembed.embedder import Embedder

    model = Embedder.from_pretrained(name)
    record = {
        "model": model.name,
        "dim": model.dim,
        "modalities": sorted(model.modalities),
        "max_tokens": model.max_tokens,
        "pooling": model.config.pooling,
        "parameters": sum(p.numel() for p in module_of(model.backbone).parameters()),
        "fingerprint": model.fingerprint,
    }
    output.result(record, "\n".join(f"{key:14} {value}" for key, value in record.items()))
    return EXIT_OK


def examine(output: Output) -> int:
    """Versions, optional parts, and one embedding through the whole pipeline."""
    healthy = True
    output.result(
        {"check": "python", "ok": True, "detail": sys.version.split()[0]},
        f"ok       python {sys.version.split()[0]} on {platform.system()} {platform.machine()}",
    )
    for package in _REQUIRED:
        found = _version(package)
        healthy &= found is not None
        _line(output, package, found is not None, found or "missing: reinstall mmembed")
    for package, purpose in _OPTIONAL.items():
        found = _version(package)
        status = "ok" if found else "absent"
        detail = found or purpose
        output.result(
            {"check": package, "ok": True, "optional": True, "detail": detail},
            f"{status:8} {package} {detail}",
        )
    ok, detail = _try_embedding()
    _line(output, "embedding", ok, detail)
    return EXIT_OK if healthy and ok else EXIT_ERROR


def _line(output: Output, check: str, ok: bool, detail: str) -> None:
    record = {"check": check, "ok": ok, "detail": detail}
    output.result(record, f"{'ok' if ok else 'FAILED':8} {check} {detail}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _try_embedding() -> tuple[bool, str]:
    try:
        import numpy as np

        from mmembed.embedder import Embedder

        model = Embedder.from_pretrained("mini")
        grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        vectors = model.encode(["a grey square", grey])
        score = float(model.similarity(vectors[:1], vectors[1:])[0, 0])
        return True, f"text and image to {model.dim} dimensions, cosine {score:.3f}"
    except Exception as error:
        # A health check reports whatever goes wrong; it is the one place that may not let it out.
        return False, f"{type(error).__name__}: {error}"
