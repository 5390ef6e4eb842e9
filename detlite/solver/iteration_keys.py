"""Which keys of a block count iterations, and which are learning rates.

A component's own signature says it by the types of ``detlite.ranges``. Of torch's schedules, whose
signatures cannot, this file knows it.
"""

from typing import Annotated, Any, Literal, get_args, get_origin

from torch.optim import lr_scheduler as torchs

from ..config.signature import signature_of, without_none
from ..errors import ConfigError
from ..ranges import Unit
from ..registry import Block, Registry

# "decay" is a share that is kept per iteration: its power falls with the iterations.
Meaning = Literal["iterations", "rate", "decay"]

_OF_TORCH: dict[type, dict[str, Meaning]] = {
    torchs.StepLR: {"step_size": "iterations"},
    torchs.MultiStepLR: {"milestones": "iterations"},
    torchs.ConstantLR: {"total_iters": "iterations"},
    torchs.LinearLR: {"total_iters": "iterations"},
    torchs.PolynomialLR: {"total_iters": "iterations"},
    torchs.ExponentialLR: {"gamma": "decay"},
    torchs.CosineAnnealingLR: {"T_max": "iterations", "eta_min": "rate"},
    torchs.CosineAnnealingWarmRestarts: {"T_0": "iterations", "eta_min": "rate"},
    torchs.CyclicLR: {
        "base_lr": "rate",
        "max_lr": "rate",
        "step_size_up": "iterations",
        "step_size_down": "iterations",
        "gamma": "decay",
    },
    # Of `epochs` times `steps_per_epoch` one is enough.
    torchs.OneCycleLR: {
        "max_lr": "rate",
        "total_steps": "iterations",
        "steps_per_epoch": "iterations",
    },
}
_MEANINGS: dict[str, Meaning] = {"iterations": "iterations", "learning rate": "rate"}


def key_meanings(registry: Registry, block: Block) -> dict[str, Meaning]:
    """What the keys of a block mean that scale with the batch size."""
    component = registry.get(block.name)
    if component in _OF_TORCH:
        return dict(_OF_TORCH[component])  # type: ignore[index]
    marks = {key: _unit(each.annotation) for key, each in signature_of(component).keys.items()}
    return {key: _MEANINGS[unit.of] for key, unit in marks.items() if unit and unit.of in _MEANINGS}


def check_marked(registry: Registry, block: Block) -> None:
    """Refuse a component with integers that may count iterations, or may not.

    Raises:
        ConfigError: None of its arguments says that it counts iterations, and one is an integer
            without a unit.
    """
    component = registry.get(block.name)
    if component in _OF_TORCH or "iterations" in key_meanings(registry, block).values():
        return
    keys = signature_of(component).keys
    unmarked = [
        key
        for key, value in block.items()
        if key != "name" and _is_count(value) and not _is_clear(keys.get(key))
    ]
    if unmarked:
        raise ConfigError(
            f"solver.reference_batch_size: {registry.kind} '{block.name}' does not say whether "
            f"{', '.join(unmarked)} {'count' if len(unmarked) > 1 else 'counts'} iterations, which "
            "change with the batch size. Annotate its arguments: those that do with "
            "detlite.ranges.Iterations, those that do not with detlite.ranges.Count; or remove "
            "solver.reference_batch_size and give the numbers for data.batch_size"
        )


def _unit(annotation: Any) -> Unit | None:
    """The unit in an annotation, that of the entries for a list."""
    annotation = without_none(annotation)[0]
    if get_origin(annotation) is Annotated:
        base, *extras = get_args(annotation)
        units = [extra for extra in extras if isinstance(extra, Unit)]
        return units[0] if units else _unit(base)
    if get_origin(annotation) in (list, tuple):
        return _unit(get_args(annotation)[0])
    return None


def _is_count(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_count(entry) for entry in value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_clear(key: Any) -> bool:
    """Whether the annotation of a key leaves no doubt: it has a unit, or is no integer."""
    if key is None:
        return False
    annotation = without_none(key.annotation)[0]
    if get_origin(annotation) is Annotated and _unit(annotation) is None:
        annotation = get_args(annotation)[0]
    return _unit(annotation) is not None or annotation is float
