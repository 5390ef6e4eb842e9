"""Several processes under torchrun, one of which is killed: it starts all of them again."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from soaking.moments import hidden_files
from soaking.watched import train_watched

_POLL = 0.002
# Seconds for processes to come up or to go; torchrun itself kills after 30 what does not end.
_PATIENCE = 90.0


class TorchrunRun:
    """A group of processes on this machine, see ``soaking.runs.Run``.

    One torchrun lives through all attempts: after a death it ends the other processes and starts
    the same command again, which goes on by itself.

    Args:
        arguments: The command line of tools/train_net.py, without ``--resume``.
        folder: Where the records go.
        processes: How many train.
        max_restarts: Deaths that torchrun may answer with a new start.
        seed: Of the choice of the process that is killed.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        processes: int,
        max_restarts: int,
        seed: int = 0,
    ) -> None:
        self.arguments = list(arguments)
        self.folder = folder
        self.processes = processes
        self.max_restarts = max_restarts
        self.random = random.Random(seed)
        named = [text.partition("=")[2] for text in arguments if text.startswith("output_dir=")]
        self.output_dir = Path(named[-1])
        self._agent: subprocess.Popen[bytes] | None = None
        self._dead: set[int] = set()

    def attempt_folder(self, attempt: int) -> Path:
        """The folder of the records of an attempt, counted from 0; each rank has its own in it."""
        return self.folder / f"attempt_{attempt:03d}"

    def begin(self, attempt: int) -> None:
        """Start torchrun, or wait until it has started its processes again."""
        if self.exit_code() is not None or self._agent is None:
            self._agent = self._start(attempt)
        self._until(lambda: len(self._workers()) >= self.processes, "torchrun starts no processes")

    def kill(self, *, with_workers: bool) -> None:
        """Kill one process by SIGKILL; return when torchrun has ended the others too."""
        group = self._workers()
        if not group:
            return
        victim = self._choose(group)
        with contextlib.suppress(ProcessLookupError):
            # Each leads a session of its own, with its data workers in it.
            (os.killpg if with_workers else os.kill)(victim, signal.SIGKILL)
        self._until(lambda: not group & self._workers(), "processes outlive the death of another")
        self._dead |= group

    def exit_code(self) -> int | None:
        """What torchrun has ended with; None while it goes on."""
        return self._agent.poll() if self._agent else None

    def end(self) -> None:
        """Leave no process behind."""
        if self._agent is None:
            return
        group = self._workers()
        self._agent.kill()
        self._agent.wait()
        for worker in group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker, signal.SIGKILL)

    def _start(self, attempt: int) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={self.processes}", f"--max-restarts={self.max_restarts}"),
            *("-m", "soaking.torchrun", str(self.folder), str(attempt), *self.arguments),
            *(["--resume"] if attempt else []),
        ]
        with open(self.folder / "torchrun.txt", "ab") as output:
            return subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                start_new_session=True,
            )

    def _workers(self) -> set[int]:
        """The training processes that live and are not those of an earlier attempt."""
        if self._agent is None or self.exit_code() is not None:
            return set()
        return {pid for pid in _children(self._agent.pid) if _lives(pid)} - self._dead

    def _choose(self, group: set[int]) -> int:
        writer = [pid for pid in group if _environment(pid).get("RANK") == "0"]
        # Any of them; mostly the one that writes where the kill shall leave an unfinished file.
        if writer and hidden_files(self.output_dir) and self.random.random() < 0.8:
            return writer[0]
        return self.random.choice(sorted(group))

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition() and self.exit_code() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise}, for {_PATIENCE:g} seconds")
            time.sleep(_POLL)


def _children(parent: int) -> set[int]:
    """Processes that any thread of another has started."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{parent}/task"):
            text = Path(f"/proc/{parent}/task/{thread}/children").read_text()
            found |= {int(child) for child in text.split()}
    return found


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _environment(process: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def _main() -> None:
    """What torchrun starts for each rank."""
    folder, first_attempt, *arguments = sys.argv[1:]
    attempt = int(first_attempt) + int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    of_attempt = Path(folder) / f"attempt_{attempt:03d}"
    of_attempt.mkdir(parents=True, exist_ok=True)
    output = os.open(of_attempt / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for standard in (1, 2):
        os.dup2(output, standard)
    train_watched(arguments, of_attempt)


if __name__ == "__main__":
    _main()
