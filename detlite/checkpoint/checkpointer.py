"""Checkpoints: written whole or not at all, read without running code."""

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .interop import DETLITE

LAST_CHECKPOINT = "last_checkpoint"
_MAX_TOLD = 6

logger = logging.getLogger(__name__)


def save_atomically(content: Any, path: str | os.PathLike[str]) -> None:
    """Write a file with ``torch.save``, or text or bytes, so that it is whole or as it was before.

    It is written under another name in the same folder, forced to the disk, then renamed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(content, str):
                file.write(content.encode())
            elif isinstance(content, bytes):
                file.write(content)
            else:
                torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read; this one gets the usual rights.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a model; every one must fit.

    Raises:
        CheckpointError: Names or shapes differ; the message tells which. The model is unchanged.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    left_over = [name for name in weights if name not in own]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} (the model's is {tuple(own[name].shape)})"
        for name in own
        if name in weights and own[name].shape != weights[name].shape
    ]
    problems = [
        f"    {len(names)} {title}: {', '.join(names[:_MAX_TOLD])}"
        + (", ..." if len(names) > _MAX_TOLD else "")
        for title, names in (
            ("of the model's tensors are not in the file", missing),
            ("of the file's tensors are not in the model", left_over),
            ("have another shape", reshaped),
        )
        if names
    ]
    if problems:
        fitting = len(own) - len(missing) - len(reshaped)
        raise CheckpointError(
            f"{source} is of another architecture: {fitting} of the model's {len(own)} tensors "
            "fit\n" + "\n".join(problems) + "\n    Use the config that it was made with; it "
            "stands in the checkpoint and in config.yaml beside it."
        )
    model.load_state_dict(dict(weights))


class Checkpointer:
    """The checkpoints of a run, in its output folder.

    Args:
        folder: Where they are.
        keep: How many of the periodic ones stay.
        identity: What every checkpoint says of itself: config, class names.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, keep: int, identity: Mapping[str, Any]
    ) -> None:
        self.folder = Path(folder)
        self.keep = keep
        self.identity = dict(identity)

    def save(self, name: str, state: Mapping[str, Any]) -> Path:
        """Write ``<name>.pth``."""
        path = self.folder / f"{name}.pth"
        save_atomically({"format": DETLITE, "version": 1, **self.identity, **state}, path)
        return path

    def save_periodic(self, iteration: int, state: Mapping[str, Any]) -> Path:
        """Write ``model_<iteration>.pth``, name it in ``last_checkpoint``, drop the oldest."""
        path = self.save(f"model_{iteration:07d}", {**state, "iteration": iteration})
        save_atomically(path.name, self.folder / LAST_CHECKPOINT)
        periodic = sorted(self.folder.glob("model_" + "[0-9]" * 7 + ".pth"))
        for old in periodic[: -self.keep]:
            if old != path:
                old.unlink()
        logger.info("saved %s", path)
        return path

    def last(self) -> Path | None:
        """The checkpoint that ``last_checkpoint`` names; None if there is none."""
        try:
            name = (self.folder / LAST_CHECKPOINT).read_text().strip()
        except FileNotFoundError:
            return None
        return self.folder / name
