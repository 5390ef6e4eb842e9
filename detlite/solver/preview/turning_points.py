"""Where curves jump or bend."""

from dataclasses import dataclass

import numpy as np

# Changes below this share of the largest value are rounding, or too slow to be seen.
_NOISE = 1e-9
_SHARPER = 8


@dataclass(frozen=True)
class TurningPoint:
    """An iteration at which something changes.

    Attributes:
        iteration: The first one after a jump, or that of a bend.
        what: In words, of the first curve that turns there.
    """

    iteration: int
    what: str


def turning_points(curves: np.ndarray) -> list[TurningPoint]:
    """Find the jumps and bends of curves (C, S), any of them; smooth curves have none."""
    found: dict[int, str] = {}
    for curve in curves:
        for iteration in _turns(curve):
            found.setdefault(iteration, _words(curve, iteration))
    return [TurningPoint(iteration, found[iteration]) for iteration in sorted(found)]


def _turns(curve: np.ndarray) -> list[int]:
    if len(curve) < 3:
        return []
    # Bend i is that of the values i, i + 1 and i + 2, so at i + 1.
    bends = np.abs(np.diff(curve, 2))
    padded = np.pad(bends, 4)
    # The next but one counts as near, not the next: a jump bends a curve twice.
    near = np.max([padded[4 + d : 4 + d + len(bends)] for d in (-4, -3, -2, 2, 3, 4)], axis=0)
    sharp = (bends > _SHARPER * near) & (bends > _NOISE * np.abs(curve).max())
    turns: list[int] = []
    for i in np.flatnonzero(sharp).tolist():
        if turns and turns[-1] == i:
            # The second bend of a jump, whose first was taken for one of its own.
            turns[-1] = i + 1
        else:
            turns.append(i + 1)
    return turns


def _words(curve: np.ndarray, i: int) -> str:
    before, after = curve[i] - curve[i - 1], curve[i + 1] - curve[i]
    earlier = curve[i - 1] - curve[i - 2] if i > 1 else 0.0
    if abs(before) > _SHARPER * max(abs(earlier), abs(after)) and curve[i - 1]:
        return f"x {curve[i] / curve[i - 1]:.4g}"
    if before > 0 >= after:
        return "end of the rise"
    if after > 0 >= before:
        return "begins to rise"
    if after < 0 <= before:
        return "begins to fall"
    if before < 0 == after:
        return "end of the fall"
    return "bends"
