"""What `import detlite` adds to torch and torchvision."""

import statistics
import subprocess
import sys


def run(repeat: int) -> list[dict[str, object]]:
    """Seconds of imports, one after the other in fresh processes."""
    # The names of detlite load their modules when they are first used.
    program = (
        "import time; a = time.perf_counter(); import torch, torchvision; b = time.perf_counter();"
        "from detlite import *; print(b - a, time.perf_counter() - b)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(repeat + 1)
    ][1:]
    peers, ours = ([float(run[i]) for run in runs] for i in (0, 1))
    return [
        {"work": "import torch, torchvision", "seconds": statistics.median(peers)},
        {"work": "all of detlite after them", "seconds": statistics.median(ours)},
    ]
