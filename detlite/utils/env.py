"""What a bug report needs: ``python -m detlite.utils.env``."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import torch
from tabulate import tabulate

from .tables import WIDTH

PACKAGES = (
    "detlite",
    "torch",
    "torchvision",
    "numpy",
    "fvcore",
    "iopath",
    "pycocotools",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
    "msgspec",
)


def environment() -> dict[str, str]:
    """System, hardware and versions, by name."""
    facts = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": f"{platform.python_version()} ({sys.executable})",
    }
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    facts["torch CUDA"] = str(torch.version.cuda)
    facts["GPU"] = ", ".join(
        torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
    ) or "none"  # fmt: skip
    facts["compiled parts"] = ", ".join(_compiled_parts()) or "none: plain torch and pycocotools"
    facts["torch CPU"] = torch.backends.cpu.get_cpu_capability()
    facts["torch threads"] = str(torch.get_num_threads())
    facts["DETLITE_DATASETS"] = os.environ.get("DETLITE_DATASETS", "not set (datasets/)")
    return facts


def _compiled_parts() -> list[str]:
    """Extensions that lie in the package, without the tails of their names."""
    package = Path(__file__).parents[1]
    files = [*package.glob("*/_*.so"), *package.glob("*/_*.pyd")]
    return sorted(f"{file.parent.name}.{file.name.partition('.')[0]}" for file in files)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            models = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return models[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown"


if __name__ == "__main__":
    facts = environment()
    # Two columns between name and value.
    width = WIDTH - 2 - max(map(len, facts))
    print(tabulate(facts.items(), tablefmt="plain", maxcolwidths=[None, width]))
