"""Run by test_sharded.py in several processes: recipes under FSDP2 or DeepSpeed, on CPUs over gloo.

Usage: sharded_cases.py fsdp2|zero1|zero2 FOLDER CASE...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from pairs import run_stopped


def shipped(name: str) -> dict[str, Any]:
    file = Path(__file__).parents[2] / "configs" / "accelerate" / f"{name}.yaml"
    options: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return options


def shard_on_cpus() -> None:
    """accelerate shards over accelerators alone: let it take processes on CPUs for such."""
    wanted = shipped("fsdp2")["fsdp_config"]
    os.environ |= {key.upper(): str(value) for key, value in wanted.items()}
    plain = AcceleratorState.__init__

    def told(self: AcceleratorState, *args: Any, **options: Any) -> None:
        plain(self, *args, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            if "fsdp_plugin" not in self.__dict__:
                self.fsdp_plugin = FullyShardedDataParallelPlugin()  # of the environment
                if self._mixed_precision != "no":
                    self.fsdp_plugin.set_mixed_precision(self._mixed_precision)

    AcceleratorState.__init__ = told


def partition_on_cpus(stage: int) -> None:
    """accelerate drops DeepSpeed on CPUs: let it look for an accelerator, and find the CPUs."""
    wanted = shipped("deepspeed")["deepspeed_config"] | {"zero_stage": stage}
    os.environ |= {f"ACCELERATE_DEEPSPEED_{k.upper()}": str(v) for k, v in wanted.items()}
    os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"}
    del os.environ["ACCELERATE_USE_CPU"]
    import deepspeed

    # Its messages between processes of one machine would be compiled first, for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    def found(self: PartialState, *args: Any, **options: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_CPU

    PartialState._prepare_backend = found


if __name__ == "__main__":
    kind, folder, *cases = sys.argv[1:]
    if kind == "fsdp2":
        shard_on_cpus()
    else:
        partition_on_cpus(int(kind[-1]))
    run_stopped(Path(folder), kind, cases)
