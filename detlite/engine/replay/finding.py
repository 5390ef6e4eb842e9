"""Where the first non-finite number of a step arose, in words."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ...modeling.interfaces import Loss
from .module_trace import ModuleCall
from .operator_trace import Origin
from .step import Repetition, StepModel, Watched

_MAX_TOLD = 6


@dataclass(frozen=True)
class Finding:
    """Where the first number that is not finite arose.

    Attributes:
        kind: In an image or its boxes; in a weight or buffer; in a module's forward pass; in a
            module that is a loss; in the backward pass; only in the sum of gradients or in their
            norm; in no step of this process.
        title: One sentence.
        details: Further lines.
        module: Path of the module, None where it is none.
        call: What went into the module and came out.
    """

    kind: Literal["input", "weight", "forward", "loss", "backward", "norm", "nowhere"]
    title: str
    details: list[str] = field(default_factory=list)
    module: str | None = None
    call: ModuleCall | None = None


def find(step: StepModel, watched: Watched, repetition: Repetition) -> Finding:
    """Make a finding of what was seen in a step."""
    if watched.origins:
        return _in_forward(step, watched)
    if watched.gradient is not None or watched.in_sum:
        return _in_backward(step, watched)
    norm = repetition.gradient_norm
    if not norm.isfinite():
        name, value = repetition.largest_gradient
        return Finding(
            "norm",
            f"in the norm of all gradients, which is {float(norm)} though each of them is finite",
            [f"the largest entry is {value:.4g}, in the gradient of {name}"],
            name.rpartition(".")[0],
        )
    return _nowhere(step)


def _in_forward(step: StepModel, watched: Watched) -> Finding:
    terms = ", ".join(watched.origins)
    origins = sorted(
        {origin for found in watched.origins.values() for origin in found},
        key=lambda origin: (origin.kind == "constant", origin.order),
    )
    if not origins:
        # Something that torch does not show, such as a loss made by numpy.
        call = watched.modules.first_origin()
        place = f"in {call}" if call else "in the forward pass"
        module = call.path if call else None
        return Finding("forward", f"{place}; it reaches {terms}", [], module, call)
    first = origins[0]
    details = [f"it reaches {terms}"]
    details += [f"also: {_told(step, watched, other)}" for other in origins[1:_MAX_TOLD]]
    if len(origins) > _MAX_TOLD:
        details.append(f"and {len(origins) - _MAX_TOLD} more places")
    title = _told(step, watched, first)
    if first.kind == "tensor":
        kind: Any = "weight" if first.name.startswith(("weight ", "buffer ")) else "input"
        module = _owner(first.name) if kind == "weight" else None
        return Finding(kind, title, details, module, _call(watched, module))
    is_loss = isinstance(step.model.get_submodule(first.module), Loss)
    call = _call(watched, first.module)
    return Finding("loss" if is_loss else "forward", title, details, first.module, call)


def _in_backward(step: StepModel, watched: Watched) -> Finding:
    origin = watched.gradient
    if origin is None:
        names = ", ".join(watched.in_sum[:_MAX_TOLD])
        return Finding(
            "backward",
            f"in the sum of the gradients of the parts, with part {watched.part}: {names}",
            ["each part's own gradient is finite"],
            watched.in_sum[0].rpartition(".")[0],
        )
    where = _module_name(step, origin.module)
    if origin.is_sum:
        title = f"in the backward pass, in the sum of the gradients of the output of {origin.node}"
    else:
        title = f"in the backward pass of {origin.node}"
    return Finding(
        "backward",
        f"{title}, which {where} called in the forward pass",
        [
            f"called at {origin.line}",
            f"gradient of its output: {origin.incoming}",
            f"gradient of its inputs: {origin.outgoing}",
        ],
        origin.module,
        _call(watched, origin.module, bad=False),
    )


def _nowhere(step: StepModel) -> Finding:
    bundle = step.bundle
    if bundle.world_size == 1:
        return Finding("nowhere", "nowhere: everything in the repeated step is finite")
    broken_here = any(
        not value.isfinite() for losses in bundle.part_losses for value in losses.values()
    )
    if broken_here:
        return Finding(
            "nowhere",
            "nowhere: everything in the repeated step is finite",
            ["the step was one of several processes; a norm that uses the statistics of all of "
             "them (SyncBN) has only this one's here"],
        )  # fmt: skip
    return Finding(
        "nowhere",
        f"not in the share of rank {bundle.rank}, which is finite",
        ["replay the bundles of the other ranks of this iteration, which lie beside this one"],
    )


def _told(step: StepModel, watched: Watched, origin: Origin) -> str:
    if origin.kind == "tensor":
        return f"in the {watched.bad_before[origin.name]}"
    where = _module_name(step, origin.module)
    what = "a constant of the code, at " if origin.kind == "constant" else ""
    return (
        f"in {where}: {what}{origin.name} at {origin.line} made {origin.outputs} "
        f"(from: {origin.inputs})"
    )


def _module_name(step: StepModel, path: str) -> str:
    kind = type(step.model.get_submodule(path)).__name__
    return f"{path} ({kind})" if path else f"the code of {kind} itself"


def _owner(name: str) -> str:
    return name.partition(" ")[2].rpartition(".")[0]


def _call(watched: Watched, path: str | None, *, bad: bool = True) -> ModuleCall | None:
    """The first call of a module that returned something not finite, else its first."""
    calls = [call for call in watched.modules.calls if call.path == path]
    broken = [call for call in calls if call.outputs.non_finite]
    return next(iter((broken if bad else []) + calls), None)
