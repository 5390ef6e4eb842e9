"""Which node of the backward pass made the first gradient that is not finite."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

from torch import Tensor
from torch.autograd.graph import Node

from .source_lines import line_of
from .statistics import TensorStats, stats_of


@dataclass(frozen=True)
class GradientOrigin:
    """Where the first gradient that is not finite came up, in the order of the backward pass.

    Attributes:
        node: The function of autograd, named after the operator that it goes back through.
        module: Path of the module that called the operator.
        line: Of the code that called it.
        is_sum: Not the function, but the sum of the gradients that it is given is not finite.
        incoming: The gradient of its output.
        outgoing: The gradient of its inputs.
    """

    node: str
    module: str
    line: str
    is_sum: bool
    incoming: TensorStats
    outgoing: TensorStats


class GradientTrace:
    """Watches one backward pass.

    Args:
        total: What ``backward`` is called on.
        owners: The module in which each node was made.

    Attributes:
        origin: Where the first gradient that is not finite came up; None if all are finite.
    """

    def __init__(self, total: Tensor, owners: Mapping[Node, str]) -> None:
        self.origin: GradientOrigin | None = None
        seen: set[Node] = set()
        waiting = [total.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            # The hooks go with the graph.
            node.register_hook(partial(self._look, node, owners.get(node, "")))
            waiting += [before for before, _ in node.next_functions]

    def _look(
        self,
        node: Node,
        module: str,
        outgoing: tuple[Tensor | None, ...],
        incoming: tuple[Tensor | None, ...],
    ) -> None:
        if self.origin is not None:
            return
        came_in, went_out = stats_of(incoming), stats_of(outgoing)
        if came_in.non_finite or went_out.non_finite:
            # Anomaly mode has left the stack of the forward pass here.
            metadata = cast(Mapping[str, list[str]], node.metadata)
            line = line_of(metadata.get("traceback_", ()))
            name = node.name().rpartition("::")[2]
            is_sum = bool(came_in.non_finite)
            self.origin = GradientOrigin(name, module, line, is_sum, came_in, went_out)
