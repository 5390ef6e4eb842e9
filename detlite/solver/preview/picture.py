"""A preview as a picture."""

import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from .curves import Curve, SchedulePreview

_MOST_MARKS = 12
_MOST_LABELS = 18
_MOST_TICKS = 400
_LONGEST_LABEL = 60
_GREY = "#888888"
_SHARE = "1 - EMA decay"


def draw_preview(
    preview: SchedulePreview, path: str | os.PathLike[str], *, title: str = "", scale: str = "auto"
) -> None:
    """Draw the rates over the iterations, what else moves below, and when what is due.

    Args:
        preview: What to draw.
        path: A file whose ending says its format: ``.png``, ``.svg``, ``.pdf``.
        title: Written above.
        scale: Of the learning rate: "linear", "log", or "auto", which is log where it jumps.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    try:
        # Here and not above: an optional dependency, and slow to import.
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "a picture needs matplotlib, which is not installed: pip install matplotlib, or "
            "pip install 'detlite[plot]'"
        ) from None
    panels = _panels(preview)
    heights = [4.2, *(1.2 for _ in panels), 0.32 * len(preview.events) + 0.1]
    many = len(preview.lr) > 4
    figure = Figure(figsize=(10.5 if many else 9.0, sum(heights) + 1.2), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    _draw_rates(axes[0], preview, _scale(preview, scale), many)
    for axis, (name, curves) in zip(axes[1:-1], panels.items(), strict=True):
        _draw_lines(axis, curves)
        axis.set_ylabel(name)
        if name == _SHARE:
            axis.set_yscale("log")
        elif len(curves) > 1:
            axis.legend(fontsize="small", loc="center right")
    axes[0].set_xlim(-0.01 * preview.max_iter, 1.01 * preview.max_iter)
    _draw_events(axes[-1], preview)
    figure.suptitle(title or preview.optimizer, fontsize="large")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise UserError(f"the picture {path} cannot be written: {error}") from None


def _panels(preview: SchedulePreview) -> dict[str, list[Curve]]:
    """What is drawn below the rates: what moves, or differs between the groups."""
    panels = {"momentum": preview.momentum, "weight decay": preview.weight_decay}
    panels = {
        name: curves
        for name, curves in panels.items()
        if len(curves) > 1 or any(curve.moves for curve in curves)
    }
    if preview.ema_decay is not None:
        panels[_SHARE] = [Curve("all", 1 - preview.ema_decay)]
    return panels


def _scale(preview: SchedulePreview, scale: str) -> str:
    if scale != "auto":
        return scale
    jumps = any(point.what.startswith("x ") for point in preview.turning_points)
    positive = all((curve.values > 0).all() for curve in preview.lr)
    return "log" if jumps and positive else "linear"


def _draw_rates(axis: Any, preview: SchedulePreview, scale: str, many: bool) -> None:
    _draw_lines(axis, preview.lr)
    axis.set_yscale(scale)
    axis.set_ylabel("learning rate")
    if scale == "linear":
        axis.set_ylim(bottom=0)
    if len(preview.lr) > 1:
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if many else {"loc": "best"}
        axis.legend(fontsize="small", title="parameter groups", **place)
    if len(preview.turning_points) <= _MOST_MARKS:
        _mark(axis, preview)
    length = preview.iterations_per_epoch
    if length:
        above = axis.secondary_xaxis("top", functions=(lambda x: x / length, lambda x: x * length))
        above.set_xlabel(f"epochs of {preview.images} images")


def _mark(axis: Any, preview: SchedulePreview) -> None:
    """Write the turning points beside their places."""
    for point in preview.turning_points:
        axis.axvline(point.iteration, color=_GREY, linewidth=0.8, linestyle=":", zorder=0)
        is_right = point.iteration > 0.95 * preview.max_iter
        axis.annotate(
            f"{point.iteration}: {point.what}",
            (point.iteration, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if is_right else 4, 0),
            textcoords="offset points",
            fontsize="small",
            color="#444444",
            rotation=90,
            ha="right" if is_right else "left",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
        )


def _draw_lines(axis: Any, curves: list[Curve]) -> None:
    # Imported above by whoever made the axis.
    from matplotlib import colormaps

    count = len(curves)
    colors = colormaps["viridis"](np.linspace(0, 0.85, count)) if count > 4 else None
    heights = sorted(range(count), key=lambda i: -float(curves[i].values.sum()))
    for rank, i in enumerate(heights):
        is_named = rank < _MOST_LABELS or i == heights[-1]
        label = textwrap.shorten(curves[i].label, _LONGEST_LABEL) if is_named else None
        color = f"C{i}" if colors is None else colors[rank]
        axis.plot(curves[i].values, label=label, color=color, linewidth=1.5)
    axis.grid(alpha=0.25)


def _draw_events(axis: Any, preview: SchedulePreview) -> None:
    titles = list(preview.events)
    for row, title in enumerate(titles):
        iterations = preview.events[title]
        if len(iterations) > _MOST_TICKS:
            axis.plot([iterations[0], iterations[-1]], [row, row], color=f"C{row}", linewidth=6)
        else:
            axis.plot(iterations, [row] * len(iterations), "|", color=f"C{row}", markersize=9)
    counts = [f"{title} ({len(preview.events[title])})" for title in titles]
    axis.set_yticks(range(len(titles)), counts, fontsize="small")
    axis.set_ylim(len(titles) - 0.5, -0.5)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)
    axis.set_xlabel(f"iterations of {preview.batch_size} images")
    axis.ticklabel_format(axis="x", style="plain")
