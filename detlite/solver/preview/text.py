"""A preview for the terminal, and for programs."""

import csv
import os

import numpy as np

from ...utils.tables import fitted_table
from .curves import Curve, SchedulePreview

_MOST_CURVES = 4
_MOST_TURNS = 30


def preview_table(preview: SchedulePreview) -> str:
    """Groups, rates at the turning points, and how often what is due."""
    return "\n\n".join([preview.groups, _rates(preview), _summary(preview)])


def _rates(preview: SchedulePreview) -> str:
    last = preview.max_iter - 1
    turns = {point.iteration: point.what for point in preview.turning_points}
    left_out = len(turns) - _MOST_TURNS
    if left_out > 0:
        turns = dict(list(turns.items())[:_MOST_TURNS])
    plain = preview.lr[0]
    highest = int(plain.values.argmax())
    if plain.moves and 0 < highest < last:
        turns.setdefault(highest, "highest")
    quarters = {last // 4, last // 2, last * 3 // 4} if len(turns) < 3 else set()
    notes = {0: "first", last: "last"}
    rows = []
    curves = _typical(preview.lr)
    for i in sorted({0, last, *turns, *quarters}):
        epoch = _epoch(preview, i)
        note = ", ".join(filter(None, (turns.get(i), notes.get(i))))
        rates = [f"{curve.values[i]:.4g}" for curve in curves]
        rows.append([str(i), *([epoch] if epoch else []), *rates, note])
    names = [f"lr of {curve.label}" for curve in curves] if len(preview.lr) > 1 else ["lr"]
    headers = ["iteration", *(["epoch"] if preview.images else []), *names, ""]
    # Three rates, the epoch and a note fit then.
    widths = [13] * len(headers)
    table = fitted_table(rows, headers, disable_numparse=True, maxheadercolwidths=widths)
    parts = [table]
    if left_out > 0:
        parts.append(f"... and {left_out} more turning points, see the CSV")
    if len(curves) < len(preview.lr):
        parts.append(f"{len(preview.lr)} different rates: the plain, the lowest, the highest")
    return "\n".join(parts)


def _typical(curves: list[Curve]) -> list[Curve]:
    """All of few curves; of many the first, the lowest and the highest."""
    if len(curves) <= _MOST_CURVES:
        return curves
    by_height = sorted(curves, key=lambda curve: float(curve.values.sum()))
    kept = {id(curve): curve for curve in (curves[0], by_height[0], by_height[-1])}
    return list(kept.values())


def _summary(preview: SchedulePreview) -> str:
    images = preview.max_iter * preview.batch_size
    lines = [
        f"{preview.optimizer}: {preview.max_iter} iterations of {preview.batch_size} images, "
        f"{images} in all"
    ]
    if preview.images:
        lines[0] += f", {images / preview.images:.4g} epochs of {preview.images}"
    for title, iterations in preview.events.items():
        text = f"{title}: {len(iterations)} x, after {_listed(iterations)} iterations"
        lines.append(text)
    for title, curves in (("momentum", preview.momentum), ("weight decay", preview.weight_decay)):
        if curves:
            values = np.concatenate([curve.values for curve in curves])
            lines.append(f"{title}: {_span(values)}")
    if preview.ema_decay is not None:
        lines.append(f"moving average keeps: {_span(preview.ema_decay)}")
    return "\n".join(lines)


def _listed(iterations: list[int]) -> str:
    if len(iterations) <= 4:
        return ", ".join(map(str, iterations))
    return f"{iterations[0]}, {iterations[1]}, ..., {iterations[-1]}"


def _span(values: np.ndarray) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _epoch(preview: SchedulePreview, iteration: int) -> str:
    length = preview.iterations_per_epoch
    return f"{iteration / length:.2f}" if length else ""


def write_csv(preview: SchedulePreview, path: str | os.PathLike[str]) -> None:
    """Write a row an iteration: epoch, rates by group, momentum, weight decay, moving average."""
    iterations = np.arange(preview.max_iter)
    columns: list[tuple[str, np.ndarray]] = [("iteration", iterations)]
    length = preview.iterations_per_epoch
    if length:
        columns.append(("epoch", iterations / length))
    titles = {
        "lr": preview.lr,
        "momentum": preview.momentum,
        "weight_decay": preview.weight_decay,
    }
    for title, curves in titles.items():
        for curve in curves:
            name = title if len(curves) == 1 else f"{title}: {curve.label}"
            columns.append((name, curve.values))
    if preview.ema_decay is not None:
        columns.append(("ema_decay", preview.ema_decay))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([name for name, _ in columns])
        writer.writerows(zip(*(values.tolist() for _, values in columns), strict=True))
