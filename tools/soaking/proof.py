"""One run that nobody kills, others that are killed, and what differs between them."""

import argparse
import contextlib
import importlib
import time
import warnings
from pathlib import Path

from tabulate import tabulate

from detlite import load_config
from soaking.kill_loop import Attempt, KillLoop
from soaking.moments import Killer, SoakFailure
from soaking.record import Record
from soaking.runs import ForkedRun, Run, in_child, last_words
from soaking.verdict import compare_reads, compare_runs, compare_steps

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
PERIOD = 4
# Small, with everything on that a checkpoint holds.
TINY = (
    "data.train=[{name: Shapes, num_images: 96, image_size: [64, 64]}]",
    "data.test=[{name: Shapes, num_images: 6, seed: 9, image_size: [64, 64]}]",
    "data.batch_size=4",
    "data.train_transforms=[{name: RandomHorizontalFlip}]",
    "model.backbone={out_features: [res2, res3]}",
    "model.neck.out_channels=16",
    "model.head.num_convs=1",
    "model.anchor_generator.base_size=4",
    "solver.schedule.warmup_iters=5",
    "train.accumulate=2",
    "train.ema={decay: 0.9, warmup: 4}",
    "train.log_period=3",
    f"train.checkpoint_period={PERIOD}",
    "train.hooks=[{name: ValidationLoss},"
    " {name: BestCheckpointer, metric: val/total_loss, mode: min},"
    " {name: EarlyStopping, metric: val/total_loss, mode: min, patience: 1000}]",
    "test.eval_period=6",
    "test.batch_size=3",
)


def soak(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Train once without a kill, then once with kills for each number of workers.

    Returns:
        What is not as it must be.
    """
    config_file = arguments.config_file or str(QUICKSTART)
    overrides = [*arguments.overrides, "device=cpu"]
    if arguments.config_file is None:
        max_iter = PERIOD * (arguments.kills // 2 + 2) + 1
        tiny = [*TINY, f"solver.max_iter={max_iter}"]
        if arguments.processes > 1:  # an image for each part, and one more to share unevenly
            tiny.append(f"data.batch_size={2 * arguments.processes + 1}")
        overrides = [*tiny, *overrides]
    config = load_config(config_file, overrides)

    def run(name: str, workers: int) -> tuple[Run, Path]:
        output = folder / name / "output"
        command = ["--config-file", config_file, *overrides]
        command += [f"output_dir={output}", f"data.num_workers={workers}"]
        return make_run(command, folder / name, arguments), output

    whole, whole_output = run("whole", 0)
    reference = uninterrupted(whole)
    seconds = sum(sum(values) for values in reference.durations().values())
    print(f"a run of {config.solver.max_iter} iterations without a kill: {seconds:.1f} s")
    problems = []
    for workers in arguments.workers:
        killed, output = run(f"workers_{workers}", workers)
        killer = Killer(
            killed,
            output,
            config.train.checkpoint_period,
            config.solver.max_iter,
            reference.durations(),
            arguments.seed + workers,
        )
        loop = KillLoop(killed, killer, output)
        try:
            attempts = loop.run_to_the_end(arguments.kills, arguments.during_checkpoint)
        finally:
            killed.end()
        # At hand in the step that was cut off; then torch's prefetch_factor, and one more.
        ahead = 1 + (2 * workers + 1 if workers else 0)
        found = verdict(reference, attempts, whole_output, output, ahead, arguments.processes)
        problems += [f"{workers} workers: {line}" for line in found]
        tell(workers, attempts, found)
    return problems


def make_run(command: list[str], folder: Path, arguments: argparse.Namespace) -> Run:
    """A run of one process, or of several under torchrun."""
    if arguments.processes == 1:
        return ForkedRun(command, folder)
    torchrun = importlib.import_module("soaking.torchrun")
    made: Run = torchrun.TorchrunRun(
        command, folder, processes=arguments.processes, max_restarts=2 * arguments.kills
    )
    return made


def uninterrupted(run: Run) -> Record:
    """Train without a kill; what the training has imported, this process then imports, too."""
    run.begin(0)
    try:
        while (code := run.exit_code()) is None:
            time.sleep(0.05)
    finally:
        run.end()
    folder = run.attempt_folder(0)
    record = Record(folder)
    if code != 0:
        raise SoakFailure(f"the uninterrupted run ended with {code}:\n{last_words(folder)}")
    for names in record.values("modules"):
        import_quietly(names)
    return record


def import_quietly(names: list[str]) -> None:
    """Import modules that can be imported by themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def verdict(
    reference: Record,
    attempts: list[Attempt],
    whole: Path,
    output: Path,
    ahead: int,
    processes: int,
) -> list[str]:
    """Everything in which the run with kills is not as it must be."""
    problems = [line for attempt in attempts for line in attempt.problems]
    for rank in range(processes):
        records = [Record(attempt.record.folder, rank) for attempt in attempts]
        of_rank = Record(reference.folder, rank)
        found = compare_steps(of_rank, records) + compare_reads(of_rank, records, ahead)
        problems += [f"rank {rank}: {line}" if processes > 1 else line for line in found]
    num_values, differences = in_child(lambda: compare_runs(whole, output))
    print(f"{num_values} values of checkpoints and metrics compared")
    return problems + differences


def tell(workers: int, attempts: list[Attempt], problems: list[str]) -> None:
    """Print the table of a run's deaths."""
    rows = [
        {
            "attempt": i,
            "began at": attempt.start_iter if attempt.start_iter >= 0 else "-",
            "died in": attempt.phase,
            "writing": attempt.writing,
            "iterations done": attempt.reached if attempt.reached >= 0 else "-",
            "newest checkpoint": attempt.checkpoint if attempt.checkpoint >= 0 else "-",
            "lost": attempt.lost,
        }
        for i, attempt in enumerate(attempts[:-1])
    ]
    print(tabulate(rows, headers="keys", tablefmt="github"))
    written = sum(attempt.is_half_written for attempt in attempts[:-1])
    print(
        f"{workers} workers: {len(rows)} kills, {written} of them while a checkpoint was written, "
        f"{sum(attempt.lost for attempt in attempts)} iterations computed again, at most "
        f"{max(attempt.lost for attempt in attempts)} at once: "
        f"{'DIFFERENT' if problems else 'equal bit for bit'}"
    )
