"""Run by test_deepspeed.py in several processes: recipes under DeepSpeed over gloo, on CPUs.

Usage: deepspeed_cases.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from pairs import run_stopped


def partition_on_cpus() -> None:
    """accelerate drops DeepSpeed on CPUs: let it look for an accelerator, and find the CPUs."""
    del os.environ["ACCELERATE_USE_CPU"]

    def found(self: PartialState, *args: Any, **options: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_CPU

    PartialState._prepare_backend = found


if __name__ == "__main__":
    shipped = Path(__file__).parents[2] / "configs" / "accelerate" / "deepspeed.yaml"
    options = yaml.safe_load(shipped.read_text(encoding="utf-8"))["deepspeed_config"]
    os.environ |= {f"ACCELERATE_DEEPSPEED_{k.upper()}": str(v) for k, v in options.items()}
    os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"}
    partition_on_cpus()
    run_stopped(Path(sys.argv[1]))
