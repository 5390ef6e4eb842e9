"""What a step was, taken from the trainer while its gradients are there and its weights stand."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...utils.distributed import rank, world_size
from .bundle import Sample, StepBundle, packable, plain_tensor
from .statistics import TensorStats

if TYPE_CHECKING:
    # For annotations only.
    from ..trainer import Trainer


def record_step(trainer: "Trainer", identity: Mapping[str, Any], why: list[str]) -> StepBundle:
    """Take the step at hand; to be called in ``after_backward``, and written before the step ends.

    Nothing is copied that is on the CPU already: the weights are those that the optimizer moves.

    Args:
        trainer: In a step.
        identity: What checkpoints say of themselves: ``config`` and ``class_names``.
        why: Names of what is not finite.
    """
    model = trainer.model
    buffers = {name: buffer.detach().cpu() for name, buffer in trainer.buffers_before().items()}
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    left_out: set[str] = set()
    parts = [[_keep(sample, left_out) for sample in part] for part in trainer.parts]
    return StepBundle(
        config=str(identity["config"]),
        class_names=list(identity["class_names"]),
        iteration=trainer.iter,
        rank=rank(),
        world_size=world_size(),
        device=trainer.device.type,
        precision=trainer.precision,
        scale=float(trainer.scaler.get_scale()),
        threads=torch.get_num_threads(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        weights={name: buffers.get(name, value) for name, value in state.items()},
        other_buffers={name: value for name, value in buffers.items() if name not in state},
        frozen=[name for name, p in model.named_parameters() if not p.requires_grad],
        in_eval=[name for name, module in model.named_modules() if not module.training],
        parts=parts,
        shares=list(trainer.shares),
        part_losses=[_on_cpu(losses) for losses in trainer.part_losses],
        metrics=_on_cpu(trainer.metrics),
        gradient_norm=plain_tensor(trainer.gradient_norm()),
        why=why,
        groups=optimizer_groups(trainer.optimizer),
        modules=module_norms(model),
        bad_weights=_bad({**dict(model.named_parameters()), **buffers}),
        bad_gradients=_bad({n: p.grad for n, p in model.named_parameters() if p.grad is not None}),
        left_out=sorted(left_out),
        random=trainer.step_rng,
    )


def optimizer_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Name, learning rate and number of parameters of each group."""
    return [
        {
            "name": str(group.get("name", f"group {i}")),
            "lr": float(group["lr"]),
            "parameters": sum(p.numel() for p in group["params"]),
        }
        for i, group in enumerate(optimizer.param_groups)
    ]


def module_norms(model: nn.Module) -> dict[str, dict[str, float]]:
    """L2 norms of the weights and gradients that each module has of its own.

    Returns:
        ``weight`` and ``gradient`` by the module's path; NaN and infinity show in the norms.
    """
    norms = {}
    for path, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own:
            gradients = [p.grad for p in own if p.grad is not None]
            norms[path] = {"weight": _norm(own), "gradient": _norm(gradients)}
    return norms


def _norm(tensors: list[Any]) -> float:
    # In double, where squares of what float32 holds cannot overflow.
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def _bad(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    counts = {name: TensorStats.of(tensor).non_finite for name, tensor in tensors.items()}
    return {name: count for name, count in counts.items() if count}


def _on_cpu(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: plain_tensor(torch.as_tensor(value)) for name, value in values.items()}


def _keep(sample: Mapping[str, Any], left_out: set[str]) -> Sample:
    """A sample without what no file can hold."""
    left_out |= {f"{k} ({type(v).__name__})" for k, v in sample.items() if not packable(v)}
    return {key: value for key, value in sample.items() if packable(value)}
