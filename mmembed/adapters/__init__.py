"""Task adapters: several LoRA adapters in one model, chosen row by row."""

from __future__ import annotations

from mmembed.adapters.routing import checkpoint_contexts
from mmembed.adapters.task_adapters import TaskAdapters

__all__ = ["TaskAdapters", "checkpoint_contexts"]
