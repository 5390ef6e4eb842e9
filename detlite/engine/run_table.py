"""Runs side by side: how far each came, how good it is, and where their configs differ."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import is_locked
from ..errors import DataError, did_you_mean
from .run_files import CONFIG, METRICS, flatten_config, read_config, read_metrics, read_summary

# Where a run writes, which says nothing of what it is.
_NOT_COMPARED = {"output_dir"}
_VALIDATION_LOSS = "val/total_loss"


@dataclass
class RunRow:
    """What is known of a run.

    Attributes:
        name: Its folder, relative to where all were looked for.
        status: "running", "done", "killed", ...; "unknown" of a run without summary.
        iterations: Done so far.
        max_iter: Of the config.
        seconds: Of training, over all restarts.
        best: The best value of each metric, and its iteration.
        final: The last value of each metric.
        config: By dotted paths.
    """

    name: str
    status: str
    iterations: int
    max_iter: int | None
    seconds: float | None
    best: dict[str, tuple[float, int]]
    final: dict[str, float]
    config: dict[str, Any]


def find_runs(folders: Iterable[str | Path]) -> list[RunRow]:
    """Read every run in these folders or below: a folder with a ``config.yaml``.

    Raises:
        DataError: A folder is missing, or there is no run at all.
    """
    found: dict[Path, str] = {}
    tops = [Path(folder) for folder in folders]
    for top in tops:
        if not top.is_dir():
            raise DataError(f"'{top}' is not a folder; give the output_dir of a run or one above")
        for path in sorted(top.rglob(CONFIG)):
            here = path.parent
            inner = here.relative_to(top)
            name = str(inner if len(tops) == 1 else top / inner)
            found.setdefault(here.resolve(), top.resolve().name if name == "." else name)
    if not found:
        raise DataError(f"no run in {', '.join(map(str, tops))}: a run's folder holds a {CONFIG}")
    return [read_run(folder, name) for folder, name in found.items()]


def read_run(folder: Path, name: str) -> RunRow:
    """Read a run's summary, or where there is none its metrics; the run may still go on."""
    config = flatten_config(read_config(folder))
    summary = read_summary(folder)
    lines = read_metrics(folder / METRICS)
    best, final = _extremes(lines)
    best |= {
        metric: (float(entry["value"]), int(entry["iteration"]))
        for metric, entry in summary.get("best", {}).items()
    }
    final |= {k: v for k, v in summary.get("metrics", {}).items() if v is not None}
    status = str(summary.get("status", "unknown"))
    if status == "running" and is_locked(folder) is False:
        status = "killed"
    iterations = [int(summary.get("iterations", 0))]
    if lines and status in ("running", "killed", "unknown"):
        iterations.append(lines[-1]["iteration"] + 1)
    return RunRow(
        name=name,
        status=status,
        iterations=max(iterations),
        max_iter=summary.get("max_iter") or config.get("solver.max_iter"),
        seconds=summary.get("training_seconds"),
        best=best,
        final=final,
        config={key: value for key, value in config.items() if key not in _NOT_COMPARED},
    )


def differing_keys(runs: Sequence[RunRow]) -> list[str]:
    """The config keys that have not the same value in all runs, in the config's order."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    return [key for key in keys if any(_differ(run, runs[0], key) for run in runs)]


def sort_runs(runs: Iterable[RunRow], metric: str) -> list[RunRow]:
    """The best first, those without the metric last."""

    def order(run: RunRow) -> tuple[bool, float]:
        value = run.best.get(metric, (math.nan, -1))[0]
        return math.isnan(value), value if lower_is_better(metric) else -value

    return sorted(runs, key=order)


def check_metric(runs: Iterable[RunRow], metric: str) -> None:
    """Raise a DataError where runs have been measured, and none by this metric."""
    known = sorted({name for run in runs for name in run.best})
    if known and metric not in known:
        raise DataError(
            f"no run has the metric '{metric}'{did_you_mean(metric, known)} "
            f"Known: {', '.join(known)}"
        )


def cells(run: RunRow, metric: str, keys: list[str]) -> dict[str, str]:
    """The cells of a run, by the names of the columns."""
    best, at = run.best.get(metric, (None, None))
    row = {
        "run": run.name,
        "status": run.status,
        "iterations": f"{run.iterations}/{run.max_iter or '?'}",
        "time": _time_text(run.seconds),
        f"best {metric}": _number(best),
        "at": "-" if at is None else str(at),
        f"final {metric}": _number(run.final.get(metric)),
    }
    if metric != _VALIDATION_LOSS:
        row[_VALIDATION_LOSS] = _number(run.final.get(_VALIDATION_LOSS))
    return row | {key: str(run.config.get(key, "-")) for key in keys}


def lower_is_better(metric: str) -> bool:
    """Whether the smallest value of a metric is the best, as that of a loss is."""
    return "loss" in metric


def _extremes(
    lines: Sequence[dict[str, Any]],
) -> tuple[dict[str, tuple[float, int]], dict[str, float]]:
    """The best value and its iteration, and the last value, of each metric of an evaluation."""
    best: dict[str, tuple[float, int]] = {}
    final: dict[str, float] = {}
    for line in lines:
        for name, value in line.items():
            if "/" not in name or not isinstance(value, int | float):
                continue
            final[name] = value
            known = best.get(name)
            sign = -1 if lower_is_better(name) else 1
            if known is None or sign * value > sign * known[0]:
                best[name] = value, line["iteration"]
    return best, final


def _differ(run: RunRow, other: RunRow, key: str) -> bool:
    # The types too: 1 and True are equal in Python.
    mine, its = run.config.get(key, os), other.config.get(key, os)
    return type(mine) is not type(its) or mine != its


def _number(value: float | None) -> str:
    """A value, or a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def _time_text(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    if seconds is None:
        return "-"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
