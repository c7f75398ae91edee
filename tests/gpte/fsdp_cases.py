"""Run by test_fsdp.py in several processes: recipes under FSDP2 over gloo, on CPUs.

Usage: fsdp_cases.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from pairs import run_stopped


def shard_on_cpus() -> None:
    """accelerate shards over accelerators alone: let it take processes on CPUs for such."""
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


if __name__ == "__main__":
    shipped = Path(__file__).parents[2] / "configs" / "accelerate" / "fsdp2.yaml"
    options = yaml.safe_load(shipped.read_text(encoding="utf-8"))["fsdp_config"]
    os.environ.update({key.upper(): str(value) for key, value in options.items()})
    shard_on_cpus()
    run_stopped(Path(sys.argv[1]))
