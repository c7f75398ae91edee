"""Checkpoints that are whole or not there: all that a run needs to go on as if never stopped."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mmembed.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint"]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d+)")


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the largest step, or None. Unfinished ones do not count."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return max(found, key=_step, default=None)


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, keep: int = 1) -> Path:
    """Save everything that is prepared by or registered with ``accelerator``; a collective call.

    Models, optimiser, each process's random states and the registered objects are written beside
    and moved into place in one rename, after everything has reached the disk; only then do older
    checkpoints go.

    Args:
        folder: holds ``step-N`` folders.
        keep: how many of them stay.

    Raises:
        OSError: the disk is full or not writable, on any process. All earlier checkpoints stay as
            they are, and the unfinished one is removed.
    """
    done = folder / f"step-{step:08d}"
    partial = folder / f".step-{step:08d}.partial"
    problem: BaseException | None = None
    try:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
    except OSError as error:
        problem = error
    _agree(accelerator, problem, partial)
    try:
        accelerator.save_state(str(partial))
    # safetensors and torch report a full disk in their own exceptions.
    except Exception as error:
        problem = error
    _agree(accelerator, problem, partial)
    try:
        if accelerator.is_main_process:
            for path in sorted(partial.rglob("*")):
                _sync(path)
            _sync(partial)
            shutil.rmtree(done, ignore_errors=True)  # of an earlier run past this step
            partial.rename(done)
            _sync(folder)
    except OSError as error:
        problem = error
    _agree(accelerator, problem, partial)
    if accelerator.is_main_process:
        older = sorted((p for p in folder.glob("step-*") if _NAME.fullmatch(p.name)), key=_step)
        for path in older[:-keep]:
            shutil.rmtree(path, ignore_errors=True)
    return done


def load_checkpoint(accelerator: Accelerator, folder: Path) -> None:
    """Restore what :func:`save_checkpoint` wrote, into the same objects.

    Raises:
        InputError: the checkpoint is of another model or number of processes, or damaged.
    """
    try:
        accelerator.load_state(str(folder))
    except Exception as error:  # as many kinds as there are files
        raise InputError(
            str(folder),
            f"cannot be resumed from: {error}",
            "use the recipe and number of processes that wrote it, or another output folder",
        ) from error


def _step(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else -1


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _agree(accelerator: Accelerator, problem: BaseException | None, partial: Path) -> None:
    """Stop on every process if one of them failed, leaving nothing half-written."""
    failed = torch.tensor([problem is not None], dtype=torch.int32, device=accelerator.device)
    if not int(accelerator.reduce(failed, "sum").max()):
        return
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    reason = f": {problem}" if problem is not None else " on another process"
    raise OSError(f"the checkpoint could not be written to {partial.parent}{reason}") from problem
