"""What a run is and how far it has come, in one small file."""

import hashlib
import importlib.metadata
import json
import logging
import math
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ...checkpoint import save_atomically
from ...utils.distributed import world_size
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..run_files import SUMMARY, flatten_config, read_config, read_summary
from ..trainer import Trainer
from .evaluation import MEASURED_WITH, flatten_results
from .writers import faults

logger = logging.getLogger(__name__)

_PACKAGES = ("detlite", "torch", "torchvision", "numpy")


@HOOK_REGISTRY.register
class RunSummary(HookBase):
    """``summary.json`` in the output folder: how a run goes or how it ended, one file a run.

    Written when the run begins, at each evaluation and when it ends, however it does; a killed
    run's says "running". ``tools/compare_runs.py`` makes a table of those of many runs.

    Args:
        output_dir: Folder of the run.
    """

    state_depends_on = MEASURED_WITH

    def __init__(self, *, output_dir: str) -> None:
        self.folder = Path(output_dir)
        self.best: dict[str, dict[str, float]] = {}
        self._facts: dict[str, Any] = {}
        # Of earlier processes: not in checkpoints, which know nothing of what came after them.
        self._seconds_before = 0.0
        self._restarts = self._rollbacks = 0
        self._start = 0.0
        self._done = 0
        self._step_seconds: list[float] = []
        self._images_per_step = 0
        self._outer_error: BaseException | None = None

    def before_train(self, trainer: Trainer) -> None:
        """Take over what earlier processes of the run have counted."""
        earlier = read_summary(self.folder) if trainer.start_iter else {}
        self._seconds_before = float(earlier.get("training_seconds", 0.0))
        self._rollbacks = int(earlier.get("rollbacks", 0))
        self._restarts = int(earlier.get("restarts", 0)) + 1 if trainer.start_iter else 0
        self._start = time.perf_counter()
        self._done = trainer.start_iter
        self._outer_error = sys.exc_info()[1]
        self._facts = _facts(self.folder)
        self._write(trainer, "running")

    def after_step(self, trainer: Trainer) -> None:
        """Remember speed and best values; write after an evaluation."""
        self._done = trainer.iter + 1
        if trainer.summary is not None and "time" in trainer.summary:
            self._step_seconds.append(trainer.summary["time"])
        if trainer.batch:  # a resumed run may begin with an evaluation
            self._images_per_step = len(trainer.batch) * world_size()
        if trainer.results_iter != trainer.iter + 1:
            return
        for name, value in flatten_results(trainer.results).items():
            best = self.best.get(name)
            if math.isfinite(value) and (best is None or _is_better(name, value, best["value"])):
                self.best[name] = {"value": value, "iteration": trainer.iter}
        self._write(trainer, "running")

    def after_interruption(self, trainer: Trainer) -> None:
        """Count the last step, also where its evaluation was broken off."""
        self._done = trainer.iter + 1

    def after_restore(self, trainer: Trainer) -> None:
        """Count it."""
        self._rollbacks += 1
        self._done = trainer.start_iter

    def close(self, trainer: Trainer) -> None:
        """Say how the run has ended."""
        if self._facts:
            self._write(trainer, *how_it_ended(trainer, self._outer_error))

    def state_dict(self) -> dict[str, Any]:
        """The best values so far."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        self.best = {name: dict(best) for name, best in state["best"].items()}

    def _write(self, trainer: Trainer, status: str, error: str | None = None) -> None:
        mean = sum(self._step_seconds) / max(len(self._step_seconds), 1)
        seconds = self._seconds_before + time.perf_counter() - self._start
        content = {
            "status": status,
            "error": error,
            "iterations": self._done,
            "max_iter": trainer.max_iter,
            "training_seconds": round(seconds, 3),
            "restarts": self._restarts,
            "rollbacks": self._rollbacks,
            "images_per_second": round(self._images_per_step / mean, 3) if mean else None,
            "faults": faults(trainer),
            "metrics": _finite(flatten_results(trainer.results)),
            "metrics_iteration": trainer.results_iter - 1 if trainer.results else None,
            "best": self.best,
            **self._facts,
            "world_size": world_size(),
            "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        try:
            save_atomically(json.dumps(content, indent=1) + "\n", self.folder / SUMMARY)
        except OSError as problem:
            logger.warning("%s cannot be written: %s", self.folder / SUMMARY, problem)


def how_it_ended(trainer: Trainer, outer: BaseException | None = None) -> tuple[str, str | None]:
    """The status of a run that is being closed, and its error if it had one.

    Args:
        trainer: The run.
        outer: An error that was being handled before the run began, which is not its own.
    """
    error = sys.exc_info()[1]
    if error is not None and error is not outer:
        if isinstance(error, KeyboardInterrupt):
            return "interrupted", None
        return "failed", f"{type(error).__name__}: {error}"
    if trainer.stop_reason is not None:
        return {"early": "stopped early", "signal": "stopped by signal"}[trainer.stop_reason], None
    return "done", None


def _is_better(name: str, value: float, best: float) -> bool:
    return value < best if "loss" in name else value > best


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    # JSON knows no NaN.
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _facts(folder: Path) -> dict[str, Any]:
    """What does not change during a run."""
    config = {k: v for k, v in flatten_config(read_config(folder)).items() if k != "output_dir"}
    text = json.dumps(config, sort_keys=True, default=str)
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "config_hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        "git_commit": _git_commit(),
        "host": socket.gethostname(),
        "versions": versions,
    }


def _git_commit() -> str | None:
    """The commit of the folder that the run was started in; None if it is in no repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
