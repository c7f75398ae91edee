"""What task adapters cost: routed rows against the base model, and against peft's own mixed batch.

    python benchmarks/task_adapters.py [--rows 64] [--tokens 32] [--threads 1] [--rounds 15]

A BERT of MiniLM's size with random weights reads rows of equal length, so that padding decides
nothing. peft chooses adapters by row through ``adapter_names``, for LoRA and padded batches alone.
Each round runs every case once, in turn; ratios are taken within a round, of processor time.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import facts, write_result
from peft import PeftModel
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from mmembed.adapters import TaskAdapters
from mmembed.gpte.onednn import use_onednn
from mmembed.gpte.packed import Layout, packed_forward, packing_of

NAMES = ("retrieval", "text-matching", "code")


class Bert(nn.Module):
    """The least that adapters ask of a backbone."""

    lora_targets = r"model\.encoder\.layer\..*\.(query|key|value|dense)"

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
        self.model = BertModel(config, add_pooling_layer=False).eval()


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def with_peft(model: BertModel, adapters: TaskAdapters) -> PeftModel:
    """peft's model with the same adapters, read from files."""
    with tempfile.TemporaryDirectory() as folder:
        adapters.save_all(f"{folder}/all")
        first, *others = NAMES
        peft = PeftModel.from_pretrained(model, f"{folder}/all/{first}", adapter_name=first)
        for name in others:
            peft.load_adapter(f"{folder}/all/{name}", adapter_name=name)
    return peft.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    backbone = Bert()
    # Both sides multiply with the same kernels: the routing is what is measured.
    plain = copy.deepcopy(backbone.model)
    use_onednn(plain)
    packing = packing_of(use_onednn(backbone.model))
    assert packing is not None
    adapters = TaskAdapters(backbone)  # type: ignore[arg-type]
    for name in NAMES:
        adapters.add(name)
        with adapters.trainable(name) as parameters, torch.no_grad():
            for parameter in parameters:
                parameter.normal_(0.0, 0.05)
    peft = with_peft(plain, adapters)
    for name in NAMES:
        adapters.add(f"{name}-dora", dora=True)

    ids = torch.randint(1000, 30000, (options.rows, options.tokens))
    lengths = [options.tokens] * options.rows
    random.seed(0)
    mixed = random.choices(NAMES, k=options.rows)

    def ours(tasks: list[str] | None) -> Tensor:
        def read() -> Tensor:
            return packed_forward(
                backbone.model, Layout(lengths), packing, input_ids=ids.flatten()
            ).view(*ids.shape, -1)

        if tasks is None:
            return read()
        with adapters.routed(tasks, lengths):
            return read()

    def theirs(tasks: list[str]) -> Tensor:
        hidden: Tensor = peft(input_ids=ids, adapter_names=tasks).last_hidden_state
        return hidden

    cases: dict[str, Callable[[], Tensor]] = {
        "base": lambda: ours(None),
        "one task": lambda: ours(["code"] * options.rows),
        "three tasks mixed": lambda: ours(mixed),
        "three tasks mixed, DoRA": lambda: ours([f"{name}-dora" for name in mixed]),
        "peft, base": lambda: theirs(["__base__"] * options.rows),
        "peft, one task": lambda: theirs(["code"] * options.rows),
        "peft, three tasks mixed": lambda: theirs(mixed),
    }
    times: dict[str, list[float]] = {case: [] for case in cases}
    with torch.inference_mode():
        difference = float((ours(mixed) - theirs(mixed)).abs().max())
        for _ in range(options.rounds):
            for case, call in cases.items():
                times[case].append(seconds(call))

    def ratio(case: str, to: str) -> float:
        pairs = zip(times[case], times[to], strict=True)
        return round(statistics.median(one / other for one, other in pairs), 3)

    result = {
        **facts("torch", "transformers", "peft"),
        **vars(options),
        "rank": 16,
        "largest_difference_from_peft": difference,
        "milliseconds": {
            case: round(1e3 * statistics.median(found), 1) for case, found in times.items()
        },
        "times_the_base": {
            case: ratio(case, "peft, base" if case.startswith("peft") else "base") for case in cases
        },
        "peft_over_ours": {
            "one task": ratio("peft, one task", "one task"),
            "three tasks mixed": ratio("peft, three tasks mixed", "three tasks mixed"),
        },
    }
    print(write_result("task_adapters", result).read_text())


if __name__ == "__main__":
    main()
