"""When a training is killed: at random within every part of a run."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from soaking.record import Record
from soaking.runs import Run

# Attempts that are killed in a certain part of a run; the others at any moment of any iteration.
_PLACED = ("start", "first batch", "Evaluation.after_step", "BestCheckpointer.after_step")
AT_END = "end"
WRITING = "checkpoint"
ANYWHERE = "anywhere"
_WATCH = 0.0003  # seconds between looks
# Seconds in which a part of a run must be reached: a hang is a failure.
_PATIENCE = 120.0


class SoakFailure(Exception):
    """The run did not do what the proof needs."""


@dataclass
class Killer:
    """Draws the moments and waits for them.

    Args:
        run: What is killed.
        output_dir: Of the run, for the files that are being written.
        period: Iterations between checkpoints.
        max_iter: Iterations of the run.
        durations: Seconds that the phases took in the uninterrupted run.
        seed: Of the moments.
        write_time: Seconds that writing a checkpoint may take, learned from what happens.
    """

    run: Run
    output_dir: Path
    period: int
    max_iter: int
    durations: dict[str, list[float]]
    seed: int = 0
    write_time: float = 0.02
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def plan(self, kills: int, during_checkpoint: int) -> list[str]:
        """The parts of a run in which it is killed, in order; the end comes last."""
        others = kills - during_checkpoint
        at_end = min(2, others // 4)
        known = [p for p in _PLACED if "." not in p or p in self.durations]
        placed = (2 * known)[: others // 2]
        anywhere = [ANYWHERE] * (others - at_end - len(placed))
        parts = [WRITING] * during_checkpoint + placed + anywhere
        self.rng.shuffle(parts)
        return parts + [AT_END] * at_end

    def wait_for(self, part: str, record: Record, advance: bool) -> None:
        """Return at a random moment of a part of the run, or when the run has ended by itself.

        Args:
            part: Of ``plan``.
            record: Of the attempt.
            advance: Whether the attempt shall live to write a checkpoint first.
        """
        status = record.status
        if part == WRITING:
            seen = hidden_files(self.output_dir)
            # The first write of this attempt, or the second.
            for _ in range(1 + advance):
                self._until(lambda: not self._written() - seen)
                self._until(lambda: bool(self._written() - seen))
            self._sleep(self.rng.uniform(0, self.write_time))
        elif part == "start":
            self._sleep(self.rng.uniform(0, sum(self.durations["start"])))
        elif part == "first batch":
            self._until(lambda: status.phase != "start")
            self._sleep(self.rng.uniform(0, 2 * self._step_time()))
        elif part == AT_END:
            self._until(lambda: status.done >= self.max_iter)
            self._sleep(self.rng.uniform(0, 0.8 * self._end_time()))
        elif part == ANYWHERE:
            self._until(lambda: status.start_iter >= 0)
            periods = self.rng.uniform(1, 2) if advance else self.rng.uniform(0, 1)
            target = status.start_iter + int(periods * self.period)
            self._until(lambda: status.done >= target)
            self._sleep(self.rng.uniform(0, self._step_time()))
        else:
            self._until(lambda: status.phase == part)
            self._sleep(self.rng.uniform(0, max(self.durations.get(part, [0.01]))))

    def learn_write_time(self, *, was_during: bool) -> None:
        """Wait shorter where the write was over when the kill came."""
        self.write_time *= 1.3 if was_during else 0.6

    def _written(self) -> set[str]:
        return {name for name in hidden_files(self.output_dir) if is_resumable(name)}

    def _step_time(self) -> float:
        of_steps = [
            sum(seconds)
            for name, seconds in self.durations.items()
            if name != "start" and not name.endswith(("_train", "close"))
        ]
        return sum(of_steps) / len(self.durations["step"])

    def _end_time(self) -> float:
        return sum(
            sum(seconds)
            for name, seconds in self.durations.items()
            if name.endswith(("after_train", "close"))
        )

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if self.run.exit_code() is not None:
                return
            if time.monotonic() > deadline:
                raise SoakFailure(f"the run hangs: nothing for {_PATIENCE:g} seconds")
            time.sleep(_WATCH)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self.run.exit_code() is None:
            time.sleep(min(left, 0.01))


def hidden_files(folder: Path) -> set[str]:
    """Names of the checkpoints in a folder that are being written, or were when it was killed."""
    try:
        return {name for name in os.listdir(folder) if name.startswith(".model_")}
    except FileNotFoundError:
        return set()


def is_resumable(hidden_file: str) -> bool:
    """Whether it would have become a checkpoint to go on from."""
    return hidden_file.startswith(".model_0")
