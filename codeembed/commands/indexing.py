"""``codeembed index``, ``watch`` and ``status``."""

from __future__ import annotations

from pathlib import Path

from codeembed.commands.opening import open_index, progress_bar, settings_of
from codeembed.results import IndexReport
from mmembed.commands.output import EXIT_NOTHING, EXIT_OK, Output

__all__ = ["index_folder", "tell_status", "watch_folder"]

_SHOWN_SKIPS = 20
_PLAIN_REASONS = ("ignored", "default-ignored-dir", "symlink")


def index_folder(
    path: Path,
    store: Path | None,
    model: str | None,
    max_bytes: int | None,
    workers: int | None,
    vectors: bool,
    output: Output,
) -> int:
    """Bring an index up to date, words first, then vectors."""
    settings = settings_of(path, model, store)
    with open_index(path, settings) as index, progress_bar(output) as progress:
        report = index.update(
            max_bytes=max_bytes or settings.max_bytes,
            ignore=settings.ignore,
            workers=workers or settings.workers or None,
            progress=progress,
            vectors=vectors,
        )
    _tell_skipped(report, output)
    output.result(report.as_dict(), _summary(report))
    return EXIT_OK if report.files else EXIT_NOTHING


def watch_folder(
    path: Path, store: Path | None, model: str | None, vectors: bool, output: Output
) -> int:
    """Follow a folder until interrupted."""
    from codeembed.watching import watch

    settings = settings_of(path, model, store)
    with open_index(path, settings) as index:

        def tell(report: IndexReport) -> None:
            values = report.as_dict()
            counts = ("files", "chunks", "added", "changed", "removed", "waiting", "seconds")
            output.result(
                {name: values[name] for name in counts},
                f"{report.added} added, {report.changed} changed, {report.removed} removed "
                f"in {report.seconds:.2f} s; {report.files} files, {report.waiting} chunks wait "
                "for vectors",
            )

        watch(index, tell, vectors=vectors, settings=settings)
    return EXIT_OK


def tell_status(path: Path, store: Path | None, output: Output) -> int:
    """Describe an index."""
    with open_index(path, settings_of(path, None, store)) as index:
        state = index.status()
    last = state.pop("last_update")
    lines = [f"{name:14} {value}" for name, value in state.items()]
    if isinstance(last, dict):
        reasons = last["skipped_by_reason"].items()
        lines += [f"skipped        {count} {reason}" for reason, count in sorted(reasons)]
        lines += [f"failed         {each}" for each in last["failed"]]
    output.result({**state, "last_update": last}, "\n".join(lines))
    return EXIT_OK


def _summary(report: IndexReport) -> str:
    skipped = ", ".join(f"{n} {reason}" for reason, n in sorted(report.skipped_by_reason.items()))
    by_lines = report.by_method["lines"] + report.by_method["lines-after-timeout"]
    return "\n".join(
        [
            f"{report.files} files, {report.chunks} chunks, {report.bytes} bytes "
            f"in {report.seconds:.1f} s",
            f"{report.added} added, {report.changed} changed, {report.removed} removed, "
            f"{report.unchanged} unchanged; {report.embedded} chunks embedded, "
            f"{report.reused} reused, {report.waiting} waiting",
            f"{by_lines} files cut by lines, {len(report.not_utf8)} not UTF-8",
            f"skipped: {skipped or 'nothing'}",
        ]
    )


def _tell_skipped(report: IndexReport, output: Output) -> None:
    """Name what a user may not expect to be left out; what rules leave out is only counted."""
    telling = [each for each in report.skipped if each.reason not in _PLAIN_REASONS]
    for each in telling[:_SHOWN_SKIPS]:
        detail = f" ({each.detail})" if each.detail else ""
        output.say(f"skipped {each.path}: {each.reason}{detail}")
    if len(telling) > _SHOWN_SKIPS:
        output.say(f"... and {len(telling) - _SHOWN_SKIPS} more: codeembed status --json")
    for failure in report.failed[:_SHOWN_SKIPS]:
        output.say(f"failed {failure}")
