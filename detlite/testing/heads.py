"""Checks of heads: shapes, the order of anchors, layers whose rows are classes."""

from typing import Any

import torch
from torch import Tensor, nn

from ..modeling import Head
from .catalogue import check
from .modules import reinitialize
from .probes import make_input
from .report import Broken, NotApplicable
from .subject import IMAGE_SIZE, ODD_SIZE, Size, Subject

NEAR = 4
"""Cells between a changed cell and the anchors that change most; half of a large kernel."""


def _num_anchors(subject: Subject, size: Size) -> list[int]:
    cells = [
        -(-size[0] // spec.stride) * -(-size[1] // spec.stride)
        for spec in subject.around.levels.values()
    ]
    return [count * subject.around.num_anchors for count in cells]


@check("head", of=Head, line="Levels (N, C, H, W) to logits (N, R, K) and deltas (N, R, B)")
def predictions_have_their_shapes(subject: Subject) -> None:
    """Logits are (N, R, K) and deltas (N, R, B), also for odd sizes."""
    network = subject.build().eval()
    around, code_size = subject.around, subject.computed()["code_size"]
    for size in (IMAGE_SIZE, ODD_SIZE):
        with torch.no_grad():
            output = network(make_input(subject, size=size))
        rows = sum(_num_anchors(subject, size))
        expected = [(2, rows, around.num_classes), (2, rows, code_size)]
        expected += [(2, rows)] if network.predicts_centerness else []  # type: ignore[list-item]
        if not isinstance(output, tuple) or len(output) != len(expected):
            raise Broken(
                f"forward gives {_count(output)}; a tuple of {len(expected)} was expected "
                f"(predicts_centerness is {network.predicts_centerness})"
            )
        found = [tuple(value.shape) for value in output]
        if found != expected:
            raise Broken(
                f"for images of {size} and levels of {_num_anchors(subject, size)} anchors the "
                f"shapes are {found}; expected {expected}"
            )


@check("head", of=Head, line="in the anchors' order.")
def predictions_are_in_the_order_of_anchors(subject: Subject) -> None:
    """Row r is anchor r: level by level, cells row by row, a cell's anchors together.

    A change of one cell of one level shows most in the rows of that cell, or near it.
    """
    network = subject.build().eval()
    reinitialize(network)
    levels = make_input(subject, num_images=1)
    with torch.no_grad():
        before = network(levels)
    for level, value in enumerate(levels):
        height, width = value.shape[-2:]
        for row, column in ((0, width - 1), (height - 1, 0)):
            changed = [x.clone() for x in levels]
            changed[level][:, :, row, column] += 10
            with torch.no_grad():
                after = network(changed)
            for name, x, y in zip(("logits", "deltas"), before, after, strict=False):
                found = _place_of_change(subject, (y - x)[0])
                if not _is_near(found, (level, row, column)):
                    raise Broken(
                        f"cell (row {row}, column {column}) of level {level} was changed, and the "
                        f"{name} changed most at (level, row, column) {found}"
                    )


def _is_near(found: tuple[int, int, int], changed: tuple[int, int, int]) -> bool:
    distance = max(abs(found[1] - changed[1]), abs(found[2] - changed[2]))
    return found[0] == changed[0] and distance <= NEAR


def _place_of_change(subject: Subject, change: Tensor) -> tuple[int, int, int]:
    """Level, row and column of the row of (R, X) that is largest."""
    row = int(change.abs().sum(dim=1).argmax())
    for level, spec in enumerate(subject.around.levels.values()):
        count = _num_anchors(subject, IMAGE_SIZE)[level]
        if row < count:
            cell, columns = row // subject.around.num_anchors, -(-IMAGE_SIZE[1] // spec.stride)
            return level, cell // columns, cell % columns
        row -= count
    raise AssertionError("a row beyond all anchors")


@check("head", of=Head, line="Layers whose output channels are anchor * K + class.")
def class_layers_hold_the_classes(subject: Subject) -> None:
    """Channel ``anchor * K + class`` of a class layer moves the logits of that anchor and class."""
    network = subject.build().eval()
    if not network.class_layers:
        raise NotApplicable("class_layers is empty: weights for other classes are not kept")
    levels = make_input(subject, num_images=1)
    num_classes, num_anchors = subject.around.num_classes, subject.around.num_anchors
    anchor, klass = num_anchors - 1, max(num_classes - 2, 0)
    for name in network.class_layers:
        layer = _layer(network, name)
        if layer.bias is None:
            raise NotApplicable(f"'{name}' has no bias to try it with")
        if len(layer.bias) != num_anchors * num_classes:
            raise Broken(
                f"'{name}' has {len(layer.bias)} output channels; A * K = {num_anchors} * "
                f"{num_classes} was expected"
            )
        with torch.no_grad():
            before = network(levels)[0][0]
            layer.bias[anchor * num_classes + klass] += 1
            moved = (network(levels)[0][0] - before).abs() > 1e-4
            layer.bias[anchor * num_classes + klass] -= 1
        rows, classes = moved.nonzero().unbind(dim=1)
        if len(rows) and not ((rows % num_anchors == anchor) & (classes == klass)).all():
            raise Broken(
                f"channel {anchor} * K + {klass} of '{name}' moves logits of anchors "
                f"{sorted({*(rows % num_anchors).tolist()})} and classes "
                f"{sorted({*classes.tolist()})}"
            )
        if not len(rows):
            raise Broken(f"channel {anchor} * K + {klass} of '{name}' moves no logit")


def _layer(network: nn.Module, name: str) -> Any:
    try:
        return network.get_submodule(name)
    except AttributeError:
        raise Broken(f"class_layers names '{name}', which the head does not have") from None


@check("head", of=Head, line="``num_classes``, ``code_size``")
def one_class_and_one_anchor_are_enough(subject: Subject) -> None:
    """One class and one anchor a cell work as well."""
    network = subject.build(num_classes=1, num_anchors=1).eval()
    with torch.no_grad():
        output = network(make_input(subject, num_images=1))
    rows = sum(_num_anchors(subject, IMAGE_SIZE)) // subject.around.num_anchors
    if tuple(output[0].shape) != (1, rows, 1):
        raise Broken(f"logits have shape {tuple(output[0].shape)}; expected {(1, rows, 1)}")


def _count(output: Any) -> str:
    many = isinstance(output, tuple | list)
    return f"a {type(output).__name__} of {len(output)}" if many else type(output).__name__
