"""What a reader of a peer's format hands on: weights under our names, and how they were made."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

RGB_MEAN = (123.675, 116.28, 103.53)
RGB_STD = (58.395, 57.12, 57.375)
# The last layer of an image classifier: what reports call it, and our names of its tensors.
CLASSIFIER = "classifier"
CLASSIFIER_TENSORS = ("head.weight", "head.bias")


@dataclass(kw_only=True)
class PeerWeights:
    """Weights of another framework, or of detlite.

    Attributes:
        kind: Whose and what they are, in the words of a log line.
        weights: By our names.
        left_over: Tensors of the file without a counterpart of ours, by their own names.
        not_needed: What the file holds beside weights, such as a classifier or anchors: how many
            tensors of each sort.
        class_names: Of the rows of the last layer, if the file says them.
        settings: What the weights were made with: values of the model block, by dotted key.
        cell_anchors: (A, 4) of each level, if the file holds them.
        source: The file, as the user named it.
        config: The resolved config as YAML, in files of detlite.
    """

    kind: str
    weights: dict[str, Tensor]
    left_over: list[str] = field(default_factory=list)
    not_needed: dict[str, int] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    cell_anchors: list[Tensor] = field(default_factory=list)
    source: str = ""
    config: str | None = None


def translate(
    state: Mapping[str, Tensor],
    rename: Callable[[str], str | None],
    *,
    kind: str,
    not_needed: Mapping[str, Callable[[str], bool]],
    **others: Any,
) -> PeerWeights:
    """Rename the tensors of a file.

    Args:
        state: By the file's names.
        rename: Our name of one of them; None where there is none.
        kind: See ``PeerWeights``.
        not_needed: Sorts of tensors that have no counterpart and need none, with a test each.
        others: Further attributes.
    """
    result = PeerWeights(kind=kind, weights={}, **others)
    for name, value in state.items():
        sort = next((sort for sort, is_one in not_needed.items() if is_one(name)), None)
        ours = None if sort else rename(name)
        if sort:
            result.not_needed[sort] = result.not_needed.get(sort, 0) + 1
        elif ours is None or ours in result.weights:
            result.left_over.append(name)
        else:
            result.weights[ours] = value
    return result


def ends_with(*endings: str) -> Callable[[str], bool]:
    """A test of names by how they end."""
    return lambda name: name.endswith(endings)


def starts_with(*beginnings: str) -> Callable[[str], bool]:
    """A test of names by how they begin."""
    return lambda name: name.startswith(beginnings)


def levels_of(
    state: Mapping[str, Tensor], lateral: str, names: Mapping[str, str | None]
) -> dict[int, str]:
    """The pyramid levels of numbered laterals: that of res3 is p3.

    Args:
        state: By the file's names.
        lateral: A pattern of the names of the pyramid's 1x1 convolutions, with a group for the
            number; a lateral belongs to the stage that has as many channels as it takes.
        names: Our name of each tensor of the backbone.
    """
    stages = {}
    for theirs, ours in sorted(names.items(), key=lambda pair: pair[1] or ""):
        # The last convolution of a block comes last.
        if ours and (match := re.fullmatch(r"backbone\.res(\d)\.0\.conv\d\.weight", ours)):
            stages[match[1]] = len(state[theirs])
    widths = {channels: f"p{stage}" for stage, channels in stages.items()}
    laterals = {int(m[1]): v for name, v in state.items() if (m := re.fullmatch(lateral, name))}
    return {number: widths.get(weight.shape[1], "p?") for number, weight in laterals.items()}
