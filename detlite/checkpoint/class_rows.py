"""Rows of a classifier's last layer, kept by class name when the classes change."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MAX_TOLD = 12


@dataclass(frozen=True)
class ClassMatch:
    """Which of the file's rows each class of the model takes.

    Attributes:
        class_names: The model's.
        rows: For each of them the index of the file's row, -1 for a new one.
        their_names: The file's classes; None if nobody says them and rows are taken in order.
        num_theirs: How many the file has.
    """

    class_names: tuple[str, ...]
    rows: tuple[int, ...]
    their_names: tuple[str, ...] | None
    num_theirs: int

    @property
    def new(self) -> list[str]:
        """The model's classes that the file has no row for."""
        return [name for name, row in zip(self.class_names, self.rows, strict=True) if row < 0]

    @property
    def unchanged(self) -> bool:
        """Whether the file's rows are taken all and in order."""
        return self.rows == tuple(range(self.num_theirs))

    def gather(self, new: Tensor, theirs: Tensor) -> Tensor:
        """The model's tensor of the file's.

        Args:
            new: (A * K, ...) as the model begins, whose rows stay where a class is new.
            theirs: (A * K', ...) of the file; rows are numbered anchor * K + class in both.

        Returns:
            (A * K, ...).
        """
        result = new.clone().unflatten(0, (-1, len(self.class_names)))
        source = theirs.unflatten(0, (-1, self.num_theirs)).to(new.dtype)
        rows = torch.tensor(self.rows)
        result[:, rows >= 0] = source[:, rows[rows >= 0]]
        return result.flatten(0, 1)

    def __str__(self) -> str:
        if self.their_names is None:
            return (
                f"class rows: all {self.num_theirs} taken in order, since the file does not name "
                "its classes; `model.weights_class_names` can"
            )
        kept = [name for name in self.class_names if name not in self.new]
        return (
            f"class rows by name: {len(kept)} kept ({_listed(kept)}), {len(self.new)} new "
            f"({_listed(self.new)}), {self.num_theirs - len(kept)} of the file's {self.num_theirs} "
            "not used"
        )


def class_names_of(
    weights: Mapping[str, Tensor], their_names: Sequence[str] | None
) -> tuple[str, ...] | None:
    """The classes that a detector's weights find, background aside; None if nobody knows.

    Args:
        weights: With a RetinaNet's last layers, by our names.
        their_names: What the file says.
    """
    if their_names is None and {"head.cls_score.weight", "head.box_pred.weight"} <= set(weights):
        rows, deltas = weights["head.cls_score.weight"], weights["head.box_pred.weight"]
        # As many anchors as the boxes have rows for four deltas each.
        their_names = _names_of_coco(rows.shape[:1].numel() * 4 // max(deltas.shape[:1].numel(), 1))
    if their_names is None:
        return None
    return tuple(name for name in their_names if name not in _NO_CLASS)


def match_classes(
    class_names: Sequence[str],
    their_names: Sequence[str] | None,
    num_theirs: int,
    *,
    maybe_coco: bool = True,
) -> ClassMatch | None:
    """Find the file's row of each class of the model.

    Args:
        class_names: The model's.
        their_names: The file's; None if it does not say them, then those of COCO are taken where
            there are 80 (every peer) or 91 rows (torchvision's, numbered by category).
        num_theirs: How many classes the file has rows for.
        maybe_coco: Whether they can be COCO's, as those of detectors are.

    Returns:
        None if there is no knowing which row is which.
    """
    if their_names is None and maybe_coco:
        their_names = _names_of_coco(num_theirs)
    names = tuple(class_names)
    if their_names is None:
        in_order = tuple(range(num_theirs))
        return ClassMatch(names, in_order, None, num_theirs) if len(names) == num_theirs else None
    index = {name: i for i, name in enumerate(their_names) if name not in _NO_CLASS}
    # An exact name first; frameworks write "traffic light" and "traffic_light".
    loosely = {_loose(name): i for name, i in index.items()}
    rows = tuple(index.get(name, loosely.get(_loose(name), -1)) for name in names)
    return ClassMatch(names, rows, tuple(their_names), num_theirs)


_NO_CLASS = ("__background__", "N/A")


def _names_of_coco(num_theirs: int) -> list[str] | None:
    """COCO's class names if there are as many rows as COCO has classes, or category numbers."""
    if num_theirs not in (80, 91):
        return None
    # torchvision's models take half a second to import, and few files need them.
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

    slots: list[str] = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return slots if num_theirs == 91 else [name for name in slots if name not in _NO_CLASS]


def _loose(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _listed(names: Sequence[str]) -> str:
    more = f", {len(names) - _MAX_TOLD} more" if len(names) > _MAX_TOLD else ""
    return (", ".join(names[:_MAX_TOLD]) + more) or "none"
