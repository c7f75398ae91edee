"""``mmembed index`` and ``mmembed search``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmembed.commands.output import EXIT_NOTHING, EXIT_OK, Output
from mmembed.errors import ConfigError
from mmembed.inputs.items import ItemLike
from mmembed.search.index import AddReport, Hit, Index, LateInteraction
from mmembed.search.steps import PairModel

__all__ = ["Steps", "index_paths", "search_index"]


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a search, as the command line names them."""

    mode: Literal["hybrid", "dense", "text"] = "hybrid"
    maxsim: int = 0
    reranker: str | None = None
    rerank: int = 20


def index_paths(
    paths: list[Path], into: Path | None, model: str | None, late: bool, output: Output
) -> int:
    """Bring an index up to date with files and folders."""
    for path in paths:
        if not path.expanduser().exists():
            raise ConfigError(f"{path}: no such file or folder")
    where = into or _home_of(paths[0].expanduser())
    with Index.open(where, model, late=LateInteraction() if late else None) as index:
        with _progress(output) as progress:
            # One call a path: each is mirrored for itself.
            reports = [index.add(path.expanduser(), progress=progress) for path in paths]
        total = len(index)
    skipped = [error for report in reports for error in report.skipped]
    output.skipped(skipped)
    counts = {
        name: sum(getattr(report, name) for report in reports)
        for name in ("added", "updated", "unchanged", "deleted")
    }
    record = {
        "index": str(where),
        **counts,
        "skipped": [{"source": e.source, "reason": e.reason} for e in skipped],
        "total": total,
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    text = f"{where}: {told}, {len(skipped)} skipped; {total} in all"
    output.result(record, text)
    return EXIT_OK


@contextmanager
def _progress(output: Output) -> Iterator[Callable[[AddReport], None] | None]:
    """A live count on standard error, on a terminal."""
    if not output.show_progress:
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:

        def show(report: AddReport) -> None:
            status.update(
                f"{report.written} written, {report.unchanged} unchanged, "
                f"{len(report.skipped)} skipped"
            )

        yield show


def _home_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def search_index(
    query: str | None,
    path: Path,
    image: Path | None,
    k: int,
    condition: str | None,
    steps: Steps,
    model: str | None,
    output: Output,
) -> int:
    """Print the best hits, best first."""
    if query is None and image is None:
        raise ConfigError("nothing to search for: give a QUERY, or --image FILE")
    question = _question(query, image)
    with Index.open(path.expanduser(), model, create=False) as index:
        hits = index.search(
            question,
            k,
            filter=condition,
            mode=steps.mode,
            maxsim=steps.maxsim,
            reranker=_reranker(steps.reranker),
            rerank=steps.rerank,
        )
    for hit in hits:
        output.result(_record(hit), _line(hit))
    if not hits:
        output.say("nothing found")
    return EXIT_OK if hits else EXIT_NOTHING


def _reranker(name: str | None) -> PairModel | None:
    if name is None:
        return None
    from mmembed.reranker import Reranker

    return Reranker.from_pretrained(name)


def _question(query: str | None, image: Path | None) -> ItemLike:
    if image is None:
        assert query is not None
        return query
    return {"image": image} if query is None else {"image": image, "text": query}


def _record(hit: Hit) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "id": hit.id,
        "score": round(hit.score, 6),
        "scores": {name: round(score, 6) for name, score in hit.scores.items()},
        "uri": hit.uri,
        "modality": hit.modality,
        "page": hit.page,
        "text": hit.text,
        "metadata": hit.metadata,
    }


def _line(hit: Hit) -> str:
    text = " ".join((hit.text or "").split())
    excerpt = f"  {text[:100]}" if text else ""
    return f"{hit.score:6.3f}  {hit.modality:8}  {hit.uri}{excerpt}"
