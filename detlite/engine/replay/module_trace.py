"""What went into every module of a model and what came out of it, in the order of execution."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.autograd.graph import Node

from .statistics import TensorStats, stats_of, tensors_in


@dataclass(frozen=True)
class ModuleCall:
    """One call of one module.

    Attributes:
        path: Of the module in the model, "" for the model itself.
        kind: Its class.
        inputs: All numbers of its arguments, before it ran.
        outputs: All numbers of what it returned.
    """

    path: str
    kind: str
    inputs: TensorStats
    outputs: TensorStats

    @property
    def is_origin(self) -> bool:
        """Whether what is not finite came up within it, a module inside of it included."""
        return bool(self.outputs.non_finite) and not self.inputs.non_finite

    def __str__(self) -> str:
        return f"{self.path or 'the model'} ({self.kind})"


class ModuleTrace:
    """Watches the forward pass of a model.

    Attributes:
        calls: Every finished call; those inside of a module come before its own.
        owners: The module in which each node of the autograd graph was made.
        is_looking: Whether what runs now is the trace itself.
    """

    def __init__(self) -> None:
        self.calls: list[ModuleCall] = []
        self.owners: dict[Node, str] = {}
        self.is_looking = False
        self._open: list[tuple[str, TensorStats]] = []

    @property
    def here(self) -> str:
        """Path of the module that runs, "" outside of all."""
        return self._open[-1][0] if self._open else ""

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Within the context every call is noted."""
        with ExitStack() as stack:
            for path, module in model.named_modules():
                before = partial(self._before, path)
                after = partial(self._after, path)
                for handle in (
                    module.register_forward_pre_hook(before, with_kwargs=True),
                    module.register_forward_hook(after, with_kwargs=True),
                ):
                    stack.callback(handle.remove)
            yield

    def first_origin(self) -> ModuleCall | None:
        """The first call whose output is not finite while its input is; the innermost of such."""
        return next((call for call in self.calls if call.is_origin), None)

    def _before(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        # Now, since a module may write into its input.
        self._open.append((path, self._stats_of([args, kwargs])))
        # What the modules around it have made so far is theirs.
        around = self._open[-2][0] if len(self._open) > 1 else ""
        self._own(around, [args, kwargs])

    def _after(self, path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        _, inputs = self._open.pop()
        self._own(path, output)
        self.calls.append(ModuleCall(path, type(module).__name__, inputs, self._stats_of(output)))

    def _stats_of(self, value: Any) -> TensorStats:
        self.is_looking = True
        try:
            return stats_of(value)
        finally:
            self.is_looking = False

    def _own(self, path: str, value: Any) -> None:
        """Give a module all nodes behind a value that no other has."""
        waiting = [tensor.grad_fn for tensor in tensors_in(value)]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in self.owners:
                self.owners[node] = path
                waiting += [before for before, _ in node.next_functions]
