"""Run by test_sharded.py in several processes: recipes under FSDP2 or DeepSpeed, on CPUs over gloo.

Usage: sharded_cases.py fsdp2|deepspeed FOLDER
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


def shard_on_cpus(options: dict[str, Any]) -> None:
    """accelerate shards over accelerators alone: let it take processes on CPUs for such."""
    os.environ |= {key.upper(): str(value) for key, value in options["fsdp_config"].items()}
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


def partition_on_cpus(options: dict[str, Any]) -> None:
    """accelerate drops DeepSpeed on CPUs: let it look for an accelerator, and find the CPUs."""
    wanted = options["deepspeed_config"].items()
    os.environ |= {f"ACCELERATE_DEEPSPEED_{key.upper()}": str(value) for key, value in wanted}
    os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"}
    del os.environ["ACCELERATE_USE_CPU"]
    import deepspeed

    # Its messages between processes of one machine would be compiled first, for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    def found(self: PartialState, *args: Any, **options: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_CPU

    PartialState._prepare_backend = found


if __name__ == "__main__":
    kind, folder = sys.argv[1:]
    shipped = Path(__file__).parents[2] / "configs" / "accelerate" / f"{kind}.yaml"
    found = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    {"fsdp2": shard_on_cpus, "deepspeed": partition_on_cpus}[kind](found)
    run_stopped(Path(folder), kind)
