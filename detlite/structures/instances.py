"""Boxes, scores and classes of one image, kept together."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor


class Instances:
    """The objects of one image: fields of equal length, e.g. ``pred_boxes``, ``scores``.

    Ground truth has ``gt_boxes`` (G, 4) and ``gt_classes`` (G,); detections have ``pred_boxes``
    (D, 4), ``scores`` (D,) and ``pred_classes`` (D,). Boxes are XYXY in pixels.

    Args:
        image_size: (height, width) that the boxes refer to.
        fields: Tensors or sequences, one entry an object.
    """

    def __init__(self, image_size: tuple[int, int], **fields: Any) -> None:
        self._image_size = (int(image_size[0]), int(image_size[1]))
        self._fields: dict[str, Any] = {}
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that the boxes refer to."""
        return self._image_size

    def set(self, name: str, value: Any) -> None:
        """Add or replace a field.

        Raises:
            ValueError: Its length is not that of the other fields, or its name is taken.
        """
        if name.startswith("_") or hasattr(type(self), name):
            raise ValueError(f"no field of Instances can be named '{name}'")
        others = [field for key, field in self._fields.items() if key != name]
        if others and len(value) != len(others[0]):
            raise ValueError(
                f"field '{name}' has {len(value)} entries, the others have {len(self)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Whether there is a field of this name."""
        return name in self._fields

    def get_fields(self) -> dict[str, Any]:
        """All fields by name."""
        return dict(self._fields)

    def to(self, *args: Any, **kwargs: Any) -> "Instances":
        """Move every tensor, with the arguments of ``torch.Tensor.to`` for a device."""
        moved = {
            name: value.to(*args, **kwargs) if hasattr(value, "to") else value
            for name, value in self._fields.items()
        }
        return Instances(self._image_size, **moved)

    @staticmethod
    def cat(parts: Sequence["Instances"]) -> "Instances":
        """Join the objects of several parts of the same image.

        Raises:
            ValueError: There is no part, or image sizes or field names differ.
        """
        if not parts:
            raise ValueError("cat needs at least one Instances, got none")
        first = parts[0]
        for part in parts[1:]:
            if part.image_size != first.image_size or set(part._fields) != set(first._fields):
                raise ValueError(f"cannot join {part} to {first}: other image size or fields")
        joined: dict[str, Any] = {}
        for name, value in first._fields.items():
            values = [part._fields[name] for part in parts]
            is_tensor = isinstance(value, Tensor)
            joined[name] = torch.cat(values) if is_tensor else list(chain.from_iterable(values))
        return Instances(first.image_size, **joined)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            known = ", ".join(self.__dict__.get("_fields", ())) or "none"
            raise AttributeError(f"these Instances have no field '{name}'; fields: {known}")
        return self._fields[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._fields]

    def __getitem__(self, item: int | slice | Tensor) -> "Instances":
        """Select objects by an index, a slice, a boolean mask or a tensor of indices.

        Iterating over Instances gives its objects one by one, each as Instances of length 1.
        """
        if isinstance(item, Tensor) and item.ndim == 0:
            item = int(item)
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"index {item} is out of range for {len(self)} objects")
            item = slice(item, None if item == -1 else item + 1)
        return Instances(self._image_size, **{k: _select(v, item) for k, v in self._fields.items()})

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        return 0

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}: {tuple(value.shape) if hasattr(value, 'shape') else value}"
            for name, value in self._fields.items()
        )
        return f"Instances({len(self)} objects, image_size={self._image_size}, {fields})"


def _select(value: Any, item: slice | Tensor) -> Any:
    if isinstance(value, Tensor) or isinstance(item, slice):
        return value[item]
    picked = item.nonzero().flatten() if item.dtype == torch.bool else item
    return [value[i] for i in picked.tolist()]
