"""Which checkpoints of a run there are, and what a run can go on from."""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .reading import load_checkpoint

LAST_CHECKPOINT = "last_checkpoint"
_PERIODIC = re.compile(r"model_(\d{7,})\.pth")
# As `save_atomically` calls them, and tempfile's names, which it took before.
_LEFT_OVER = re.compile(r"\.(.+\.(pth|json|yaml)|last_checkpoint|\.launch)\.[0-9a-z_]{8}")
_WEIGHTS = ("model_best.pth", "model_final.pth", "model_final_plain.pth")
_OF_A_RUN = (
    *_WEIGHTS,
    LAST_CHECKPOINT,
    "metrics.json",
    "summary.json",
    # What a tracking service calls the run.
    "wandb_run_id.txt",
    "mlflow_run_id.txt",
)
_NEEDED = ("iteration", "model", "optimizer")


def periodic_name(iteration: int) -> str:
    """The name of the checkpoint after an iteration, without its extension."""
    return f"model_{iteration:07d}"


def periodic_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The periodic checkpoints of a run by rising iteration, which is what their names say.

    Their times are not asked: clocks are set back, and copies are as old as the copying.
    """
    found = []
    for name in _names_in(folder):
        match = _PERIODIC.fullmatch(name)
        if match and name == f"{periodic_name(int(match[1]))}.pth":
            found.append((int(match[1]), folder / name))
    return sorted(found)


def checkpoints_of_run(folder: Path) -> list[Path]:
    """The periodic checkpoints of a run, and its files of weights."""
    weights = [folder / name for name in _WEIGHTS]
    return [path for _, path in periodic_checkpoints(folder)] + [p for p in weights if p.is_file()]


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names; None if it names none."""
    try:
        name = (folder / LAST_CHECKPOINT).read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return None
    return folder / name if name and "\0" not in name else None


def read_resumable(path: Path) -> dict[str, Any]:
    """Read a checkpoint that a run can go on from.

    Raises:
        CheckpointError: It cannot be read, is damaged, or does not hold a run.
    """
    content = load_checkpoint(path)
    missing = [key for key in _NEEDED if key not in content]
    if missing == ["optimizer"]:
        raise CheckpointError(f"{path} holds weights only; a run cannot be resumed from it")
    if missing:
        raise CheckpointError(f"{path} holds no run: it has no {', '.join(missing)}")
    if type(content["iteration"]) is not int:
        raise CheckpointError(f"{path} holds no run: its iteration is {content['iteration']!r:.40}")
    return content


def leftovers(folder: Path) -> list[Path]:
    """Files that a killed run was about to write."""
    return [folder / name for name in _names_in(folder) if _LEFT_OVER.fullmatch(name)]


def files_of_run(folder: Path) -> list[Path]:
    """What a run that begins anew must not find of an earlier one."""
    named = [folder / name for name in _OF_A_RUN]
    existing = [path for path in named if path.is_file() or path.is_symlink()]
    return [path for _, path in periodic_checkpoints(folder)] + existing + leftovers(folder)


def _names_in(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []
