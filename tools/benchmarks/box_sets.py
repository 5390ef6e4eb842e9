"""Boxes that are easy for NMS, and boxes that are hard for it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


class _Draw:
    """Random numbers of one seed, in float64."""

    def __init__(self, num_boxes: int, seed: int) -> None:
        self.n = num_boxes
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> Tensor:
        numbers = torch.rand(self.n, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * numbers

    def log_uniform(self, low: float, high: float) -> Tensor:
        return self.uniform(math.log(low), math.log(high)).exp()

    def rank(self) -> Tensor:
        return torch.arange(self.n, dtype=torch.float64)

    def constant(self, value: float) -> Tensor:
        return torch.full((self.n,), value, dtype=torch.float64)


def _from_corner(x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    return torch.stack((x, y, x + width, y + height), dim=1)


def _around(x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    return torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), dim=1)


def scattered(num_boxes: int, seed: int = 0) -> Tensor:
    """Boxes (N, 4) of 10 to 70 pixels, as many for each piece of the plane whatever N is."""
    draw = _Draw(num_boxes, seed)
    side = 60 * math.sqrt(num_boxes)
    return _from_corner(
        draw.uniform(0, side), draw.uniform(0, side), draw.uniform(10, 70), draw.uniform(10, 70)
    ).float()


def _scales(draw: _Draw) -> Tensor:
    side = draw.log_uniform(1, 4000)
    shape = draw.uniform(0.5, 1.5)
    return _from_corner(draw.uniform(0, 4000), draw.uniform(0, 4000), side, side * shape)


def _one_huge(draw: _Draw) -> Tensor:
    boxes = _from_corner(
        draw.uniform(0, 4000), draw.uniform(0, 4000), draw.uniform(5, 25), draw.uniform(5, 25)
    )
    boxes[:1] = torch.tensor([0.0, 0, 4000, 4000], dtype=boxes.dtype)
    return boxes


def _mostly_bad(draw: _Draw) -> Tensor:
    boxes = _from_corner(
        draw.uniform(0, 300), draw.uniform(0, 300), draw.uniform(-20, 40), draw.uniform(-20, 40)
    )
    values = torch.tensor([math.nan, math.inf, -math.inf, 1e38, 1e-38, 0.0], dtype=boxes.dtype)
    places = draw.uniform(0, 4).long()
    picked = values[draw.uniform(0, len(values)).long()]
    spoiled = boxes.scatter(1, places[:, None], picked[:, None])
    return torch.where((draw.uniform(0, 1) < 0.3)[:, None], spoiled, boxes)


# Each is a way in which a spatial index, or a shortcut, can be slow or wrong.
ADVERSARIAL: dict[str, Callable[[_Draw], Tensor]] = {
    "identical": lambda d: torch.tensor([[10.0, 10, 60, 60]]).double().repeat(d.n, 1),
    "nearly identical": lambda d: _around(
        d.uniform(99, 101), d.uniform(99, 101), d.uniform(98, 102), d.uniform(98, 102)
    ),
    "all overlap": lambda d: _from_corner(
        d.uniform(0, 90), d.uniform(0, 90), d.constant(100), d.uniform(100, 101)
    ),
    "concentric": lambda d: _around(
        d.constant(500), d.constant(500), 1 + d.rank() * 999 / d.n, 1 + d.rank() * 999 / d.n
    ),
    "one centre": lambda d: _around(
        d.constant(2000), d.constant(2000), d.log_uniform(1, 4000), d.log_uniform(1, 4000)
    ),
    "scales of 1 to 4,000": _scales,
    "coordinates of 1e6": lambda d: _from_corner(
        d.uniform(1e6, 1e6 + 500), d.uniform(1e6, 1e6 + 500), d.uniform(5, 105), d.uniform(5, 105)
    ),
    "one huge": _one_huge,
    "thin side by side": lambda d: _from_corner(
        d.rank(), d.constant(0), d.constant(1), d.constant(4000)
    ),
    "thin overlapping": lambda d: _from_corner(
        d.uniform(0, 1000), d.uniform(0, 10), d.constant(1), d.constant(1000)
    ),
    "chain": lambda d: _from_corner(d.rank() * 30, d.constant(0), d.constant(100), d.constant(100)),
    "whole numbers": lambda d: _from_corner(
        d.uniform(0, 60).floor() * 8, d.uniform(0, 60).floor() * 8, d.constant(16), d.constant(16)
    ),
    "a crowded image": lambda d: _from_corner(
        d.uniform(0, 1333), d.uniform(0, 800), d.uniform(16, 216), d.uniform(16, 216)
    ),
    "points": lambda d: _from_corner(
        d.uniform(0, 100), d.uniform(0, 100), d.constant(0), d.constant(0)
    ),
    "microscopic": lambda d: _from_corner(
        d.uniform(0, 1e-18), d.uniform(0, 1e-18), d.log_uniform(1e-20, 1e-18), d.constant(1e-19)
    ),
    "mostly bad": _mostly_bad,
}


def adversarial(name: str, num_boxes: int, seed: int = 0) -> Tensor:
    """One of the sets above: boxes (N, 4) float64; a float32 copy is as hard."""
    return ADVERSARIAL[name](_Draw(num_boxes, seed))
