"""What numbers a value holds: how many are not finite, and the range of the others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ...structures import Instances

_MAX_DEPTH = 8


@dataclass(frozen=True)
class TensorStats:
    """The floating-point numbers of one or several tensors.

    Attributes:
        count: All of them.
        nan: How many are NaN.
        infinite: How many are plus or minus infinity.
        low: The least of the finite ones; 0 where there is none.
        high: The greatest.
        mean_abs: Mean of their absolute values.
    """

    count: int = 0
    nan: int = 0
    infinite: int = 0
    low: float = 0.0
    high: float = 0.0
    mean_abs: float = 0.0

    @property
    def non_finite(self) -> int:
        """How many are NaN or infinite."""
        return self.nan + self.infinite

    @classmethod
    def of(cls, *tensors: Tensor) -> "TensorStats":
        """Of tensors together; those of integers are left out."""
        count = nan = infinite = finite = 0
        low, high, total = float("inf"), float("-inf"), 0.0
        for tensor in tensors:
            if not tensor.is_floating_point() or tensor.numel() == 0:
                continue
            values = tensor.detach().flatten()
            good = values[values.isfinite()]
            count += values.numel()
            nan += int(values.isnan().sum())
            infinite += int(values.isinf().sum())
            finite += good.numel()
            if good.numel():
                low, high = min(low, float(good.min())), max(high, float(good.max()))
                # In double, which numbers near the end of float32 do not overflow.
                total += float(good.double().abs().sum())
        if not finite:
            return cls(count, nan, infinite)
        return cls(count, nan, infinite, low, high, total / finite)

    def __str__(self) -> str:
        if not self.count:
            return "no floating-point numbers"
        text = ""
        if self.non_finite:
            counts = {"NaN": self.nan, "infinite": self.infinite}
            told = " and ".join(f"{n} {kind}" for kind, n in counts.items() if n)
            text = f"{told} of {self.count}"
        if self.non_finite < self.count:
            text += ", the others " if text else ""
            text += f"from {self.low:.4g} to {self.high:.4g}, mean abs {self.mean_abs:.4g}"
        return text


def tensors_in(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """Every tensor in nested containers, dataclasses and Instances."""
    if isinstance(value, Tensor):
        yield value
        return
    inner: Iterable[Any] = ()
    if isinstance(value, Instances):
        inner = value.get_fields().values()
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        inner = value
    elif is_dataclass(value):
        inner = [getattr(value, field.name, None) for field in fields(value)]
    if depth < _MAX_DEPTH:
        for each in inner:
            yield from tensors_in(each, depth + 1)


def stats_of(value: Any) -> TensorStats:
    """The numbers of every tensor in a value."""
    return TensorStats.of(*tensors_in(value))


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinity; one of integers never does."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool(tensor.detach().isfinite().all())


def all_finite(value: Any) -> bool:
    """The same of every tensor in a value."""
    return all(map(is_finite, tensors_in(value)))


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two scalars are equal, NaN to NaN as well; sign and payload of a NaN do not count."""
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(
        one.nan_to_num(nan=0.0), other.nan_to_num(nan=0.0)
    )
