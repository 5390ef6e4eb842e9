"""Where a model is computed."""

import os

import torch

from ..errors import ConfigError
from ..utils.distributed import is_launched, local_rank


def select_device(name: str) -> torch.device:
    """The device of a config's ``device``.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device is cuda, but torch sees no GPU (`python -m detlite.utils.env` tells what it "
            "sees); use device=auto or device=cpu"
        )
    # Of the GPUs of a machine each process has its own.
    if name == "cuda" and is_launched():
        return torch.device(name, local_rank())
    return torch.device(name)


def use_deterministic_algorithms() -> None:
    """Let torch use only algorithms that give the same bits every time, on GPUs too."""
    # cuBLAS reads it when it is first used (its manual, "Results reproducibility").
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
