"""DeepSpeed's ZeRO, stages 1 and 2: the optimiser's state in parts, in stage 2 gradients too.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models".
accelerate steps inside its backward call, but a step here has many backward passes (accumulation,
the gradient cache): the engine is driven directly, and leaves to us when a step ends. Stage 3,
which shares out weights, is refused: FSDP2 does that here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import fill_gradients

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["gradients_in_parts", "partitioned", "prepare_zero", "zero_backward", "zero_step"]


def partitioned(accelerator: Accelerator) -> bool:
    """Whether DeepSpeed holds the optimiser."""
    return bool(accelerator.distributed_type.value == "DEEPSPEED")


def gradients_in_parts(accelerator: Accelerator) -> bool:
    """Whether DeepSpeed sends every backward pass's gradients to those who keep them."""
    if not partitioned(accelerator):
        return False
    zero = accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
    return bool(zero["stage"] == 2)


def prepare_zero(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, clip: float
) -> tuple[nn.Module, Any]:
    """The model in DeepSpeed's engine, and its optimiser.

    Weights stay in float32. Where the accelerator asks for bfloat16, layers compute in it by
    autocast, as without DeepSpeed, so that models are saved as exact as they are trained.

    Args:
        clip: the largest gradient norm; 0 leaves it.

    Raises:
        ConfigError: another stage, offloading, float16, or an old DeepSpeed.
    """
    from deepspeed.runtime.engine import DeepSpeedEngine

    if not hasattr(DeepSpeedEngine, "managed_gradient_accumulation"):
        raise ConfigError("training needs a newer DeepSpeed: pip install 'deepspeed>=0.19.8'")
    plugin = accelerator.state.deepspeed_plugin
    config = plugin.deepspeed_config
    zero = config["zero_optimization"]
    offloads = [
        (zero.get(f"offload_{part}") or {}).get("device") for part in ("optimizer", "param")
    ]
    for wrong, told in (
        (zero["stage"] not in (1, 2), f"stage {zero['stage']}"),
        (any(device not in (None, "none") for device in offloads), "offloading"),
        (accelerator.mixed_precision not in ("no", "bf16"), accelerator.mixed_precision),
    ):
        if wrong:
            raise ConfigError(
                f"training under DeepSpeed with {told} is not supported: use stage 1 or 2 "
                "without offloading (configs/accelerate/deepspeed.yaml) in fp32 or bf16, or FSDP "
                "version 2 (configs/accelerate/fsdp2.yaml)"
            )
    if accelerator.mixed_precision == "bf16":
        lowered = torch.autocast(accelerator.device.type, torch.bfloat16)
        model.forward = lowered(model.forward)
    config |= {
        "bf16": {"enabled": False},
        "gradient_clipping": clip,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # step() ends a step, backward() never does
        "train_micro_batch_size_per_gpu": 1,  # asked for, but batches are the trainer's
    }
    # DeepSpeed 0.19.8 cannot send tensors without dimensions; every process has made them alike.
    scalars: list[Any] = [p for p in model.parameters() if not p.dim()]
    for parameter in scalars:
        parameter.ds_optim_param = True  # not sent
    engine, prepared = accelerator.prepare(model, optimizer)
    for parameter in scalars:
        del parameter.ds_optim_param
    return engine, prepared


def zero_backward(engine: Any, loss: torch.Tensor) -> None:
    """Add the loss's gradient; in stage 1 nothing travels, in stage 2 this is a collective call."""
    engine.backward(loss)


def zero_step(engine: Any) -> float:
    """Average, clip, step, forget the gradients; their norm before clipping. A collective call."""
    fill_gradients(p for p in engine.parameters() if p.requires_grad)
    engine.step()
    return float(engine.get_global_grad_norm())
