"""Which operator of torch made the first number that is not finite, of those that reach the loss.

Numbers may be infinite for good, such as a mask's, and never reach the loss. So each tensor that is
not finite remembers where it has it from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .module_trace import ModuleTrace
from .source_lines import current_line
from .statistics import TensorStats, is_finite, stats_of, tensors_in

# These give memory with whatever is in it.
_UNINITIALIZED = ("empty", "new_empty", "resize_", "set_")
# These do not read what they write into.
_OVERWRITE = ("copy_", "fill_", "zero_", "uniform_", "normal_")


@dataclass(frozen=True)
class Origin:
    """Where numbers that are not finite came up.

    Attributes:
        kind: An operator whose inputs are finite; a tensor that was there before; a constant of the
            code, or memory that was never written.
        order: Smaller is earlier.
        name: Of the operator or the tensor.
        module: Path of the module that ran.
        line: Of the code.
        inputs: The numbers that went in.
        outputs: The numbers that came out.
    """

    kind: Literal["operator", "tensor", "constant"]
    order: int
    name: str
    module: str = ""
    line: str = ""
    inputs: TensorStats = field(default_factory=TensorStats)
    outputs: TensorStats = field(default_factory=TensorStats)


class OperatorTrace(TorchDispatchMode):
    """Within the context every operator's output is looked at.

    Args:
        modules: Tells the path of the module that runs.
        known: Tensors that are there before, by what to call them.
    """

    def __init__(self, modules: ModuleTrace, known: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._modules = modules
        self._count = 0
        self._origins: dict[int, frozenset[Origin]] = {}
        for i, (name, tensor) in enumerate(known.items()):
            if not is_finite(tensor):
                origin = Origin("tensor", i - len(known), name, outputs=stats_of(tensor))
                # Several may be parts of one storage.
                old = self._origins.get(_key(tensor), frozenset())
                self._origins[_key(tensor)] = old | {origin}

    def origins_of(self, value: Any) -> list[Origin]:
        """Where a value has its non-finite numbers from, the first to come up first."""
        found = self._origins_in(value)
        return sorted(found, key=lambda origin: (origin.kind == "constant", origin.order))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operator."""
        kwargs = kwargs or {}
        if self._modules.is_looking:
            return func(*args, **kwargs)
        name = func.name().partition("::")[2].partition(".")[0]
        given = [*args, *kwargs.values()]
        read = given[1:] if name in _OVERWRITE else given
        writes_to_input = func._schema.is_mutable
        # An operator that writes into its input leaves nothing of it to look at afterwards.
        before = (stats_of(read), self._origins_in(read)) if writes_to_input else None
        output = func(*args, **kwargs)
        self._count += 1
        if name.startswith(_UNINITIALIZED):
            return output
        made = tensors_in([output, given if writes_to_input else None])
        bad = [tensor for tensor in made if not is_finite(tensor)]
        if bad:
            inputs, origins = before or (stats_of(read), self._origins_in(read))
            if not origins:
                origins = frozenset([self._new_origin(func, read, inputs, output)])
            # A part of a storage leaves the other parts what they are; a new tensor may lie where
            # another lay.
            shared = {_key(tensor) for tensor in tensors_in(given)}
            for tensor in bad:
                old = self._origins.get(_key(tensor), frozenset())
                self._origins[_key(tensor)] = origins | (
                    old if _key(tensor) in shared else frozenset()
                )
        return output

    def _new_origin(self, func: Any, read: list[Any], inputs: TensorStats, output: Any) -> Origin:
        came_in = inputs.non_finite or any(map(_is_non_finite_number, read))
        return Origin(
            "constant" if came_in else "operator",
            self._count,
            func.name().partition(".")[0],
            self._modules.here,
            current_line(),
            inputs,
            stats_of(output),
        )

    def _origins_in(self, value: Any) -> frozenset[Origin]:
        found: frozenset[Origin] = frozenset()
        for tensor in tensors_in(value):
            if not is_finite(tensor):
                found |= self._origins.get(_key(tensor), frozenset())
        return found


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_non_finite_number(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_non_finite_number, value))
    return isinstance(value, float) and not math.isfinite(value)
