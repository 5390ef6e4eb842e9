"""Start, kill, start again: one run under many deaths."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from soaking.moments import AT_END, WRITING, Killer, SoakFailure, hidden_files, is_resumable
from soaking.record import Record
from soaking.runs import Run, last_words
from soaking.verdict import newest_checkpoint


@dataclass
class Attempt:
    """One life of the training.

    Attributes:
        part: In which part of the run it was to die; "" for the last life, which is not ended.
        record: What it left.
        start_iter: The iteration that it began with; -1 if it died before that was known.
        reached: Iterations finished.
        phase: What it was doing when it died.
        writing: The unfinished checkpoint that it left, or "".
        checkpoint: The iteration of the newest whole checkpoint afterwards; -1 for none.
        problems: What is not as it must be.
    """

    part: str
    record: Record
    start_iter: int = -1
    reached: int = -1
    phase: str = ""
    writing: str = ""
    checkpoint: int = -1
    problems: list[str] = field(default_factory=list)

    @property
    def is_half_written(self) -> bool:
        """Whether it died while it wrote a checkpoint that a run could have gone on from."""
        return is_resumable(self.writing)

    @property
    def lost(self) -> int:
        """Iterations that the next life computes once more."""
        return max(self.reached - self.checkpoint - 1, 0) if self.start_iter >= 0 else 0


class KillLoop:
    """Lives of a run until it has died as often as it shall, and one more to its end.

    Args:
        run: The processes.
        killer: Chooses the moments.
        output_dir: Of the run.
    """

    def __init__(self, run: Run, killer: Killer, output_dir: Path) -> None:
        self.run = run
        self.killer = killer
        self.output_dir = output_dir
        self.attempts: list[Attempt] = []

    def run_to_the_end(self, kills: int, during_checkpoint: int) -> list[Attempt]:
        """Kill so often, at least so often while a checkpoint is written, then let the run end.

        Raises:
            SoakFailure: The run hangs, fails, or ends before it has been killed so often.
        """
        plan = self.killer.plan(kills, during_checkpoint)
        # Over the lives the checkpoints shall move on evenly from the beginning to the end.
        pace = max(self.killer.max_iter - 2 * self.killer.period, 0) / max(len(plan), 1)
        while plan:
            part = plan.pop(0)
            advance = newest_checkpoint(self.output_dir) < pace * len(self.attempts)
            attempt = self._live(part, advance)
            if part == WRITING and not attempt.is_half_written:
                # Too late, so this was a death between two writes: once more, for another one.
                others = [i for i, other in enumerate(plan) if other not in (WRITING, AT_END)]
                if others:
                    plan.pop(others[-1])
                plan.insert(0, WRITING)
        self._live_on()
        return self.attempts

    def _live(self, part: str, advance: bool) -> Attempt:
        attempt = self._begin(part)
        before = hidden_files(self.output_dir)
        self.killer.wait_for(part, attempt.record, advance)
        code = self.run.exit_code()
        if code is not None and not (code == 0 and part == AT_END):
            raise SoakFailure(
                f"attempt {len(self.attempts) - 1} ended by itself with {code} before it was "
                f"killed ({part}):\n{last_words(attempt.record.folder)}"
            )
        self.run.kill(with_workers=self.killer.rng.random() < 0.5)
        self._close(attempt, before)
        if part == WRITING:
            self.killer.learn_write_time(was_during=attempt.is_half_written)
        return attempt

    def _live_on(self) -> None:
        attempt = self._begin("")
        before = hidden_files(self.output_dir)
        deadline = time.monotonic() + 600
        while (code := self.run.exit_code()) is None:
            if time.monotonic() > deadline:
                raise SoakFailure(
                    f"the last life does not end:\n{last_words(attempt.record.folder)}"
                )
            time.sleep(0.02)
        self._close(attempt, before)
        if code != 0:
            raise SoakFailure(
                f"the last life ended with {code}:\n{last_words(attempt.record.folder)}"
            )

    def _begin(self, part: str) -> Attempt:
        number = len(self.attempts)
        self.run.begin(number)
        attempt = Attempt(part, Record(self.run.attempt_folder(number)))
        self.attempts.append(attempt)
        return attempt

    def _close(self, attempt: Attempt, before: set[str]) -> None:
        status = attempt.record.status
        attempt.start_iter, attempt.reached = status.start_iter, status.done
        attempt.phase = status.phase
        # In the first moments the files of the death before may still be there.
        attempt.writing = next(iter(sorted(hidden_files(self.output_dir) - before)), "")
        attempt.checkpoint = newest_checkpoint(self.output_dir)
        expected = self.attempts[-2].checkpoint + 1 if len(self.attempts) > 1 else 0
        if attempt.start_iter >= 0 and attempt.start_iter != expected:
            attempt.problems.append(
                f"{attempt.record.folder.name} began at iteration {attempt.start_iter}, but the "
                f"newest whole checkpoint said {expected}"
            )
        # The checkpoint that is being written in the background is of one period ago at most.
        if attempt.lost > 2 * self.killer.period:
            attempt.problems.append(
                f"{attempt.record.folder.name} lost {attempt.lost} iterations, more than two "
                f"periods of {self.killer.period}"
            )
