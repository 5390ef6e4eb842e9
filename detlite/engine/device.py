"""Where a model is computed."""

import os

import torch

from ..errors import ConfigError, shorten
from ..utils.distributed import is_launched, local_rank


def select_device(name: str) -> torch.device:
    """The device of a config's ``device``.

    Raises:
        ConfigError: It is not here, or names one GPU for several processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdecimal())):
        raise ConfigError(f"device is '{shorten(name)}', but it must be one of {_devices()}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device is {name}, but torch sees no GPU (`python -m detlite.utils.env` tells what it "
            "sees); use device=auto or device=cpu"
        )
    if index:
        if int(index) >= torch.cuda.device_count():
            raise ConfigError(f"device is {name}, which is not here; there are {_devices()}")
        if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                f"device is {name}, one GPU for {os.environ['LOCAL_WORLD_SIZE']} processes; with "
                "device=cuda each process takes its own, CUDA_VISIBLE_DEVICES chooses among them"
            )
        return torch.device(kind, int(index))
    # Of the GPUs of a machine each process has its own.
    if name == "cuda" and is_launched():
        return torch.device(name, local_rank())
    return torch.device(name)


def _devices() -> str:
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ", ".join(["auto", "cpu", *(["cuda"] if gpus else []), *gpus])


def use_deterministic_algorithms() -> None:
    """Let torch use only algorithms that give the same bits every time, on GPUs too."""
    # cuBLAS reads it when it is first used (its manual, "Results reproducibility").
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
