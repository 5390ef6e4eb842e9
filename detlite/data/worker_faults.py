"""What befalls data workers, and how it is told."""

import signal
from dataclasses import dataclass
from typing import Literal

from .worker import SampleAtHand


@dataclass(frozen=True)
class Fault:
    """What befell a worker.

    Attributes:
        kind: As it is counted.
        what: For the log, as in "killed by SIGKILL".
        pid: The worker's.
        sample: What it was at, None between two samples.
        cause: The name of the signal that killed it, "" if none did.
    """

    kind: Literal["worker_died", "sample_hung"]
    what: str
    pid: int | None
    sample: SampleAtHand | None
    cause: str = ""


class WorkerFaults(Exception):
    """Workers have died or hang; the run cannot go on.

    Args:
        faults: One a worker.
        limit: The limit of the system that they met, with the remedy; "" if none is known.
    """

    def __init__(self, faults: list[Fault], limit: str = "") -> None:
        super().__init__("; ".join(fault.what for fault in faults))
        self.faults = faults
        self.limit = limit


def describe_exit(code: int) -> str:
    """How a process ended that has this exit code, as in "was killed by SIGKILL"."""
    return f"was killed by {signal_name(code)}" if code < 0 else f"ended with exit code {code}"


def signal_name(code: int) -> str:
    """The signal that a process of this exit code was killed by; "" if by none."""
    if code >= 0:
        return ""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
