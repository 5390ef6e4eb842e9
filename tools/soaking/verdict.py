"""Whether a run that was killed again and again ends as the one that was not."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detlite.checkpoint import compare_checkpoints
from soaking.moments import hidden_files
from soaking.record import Record

# What a clock or the machine says, and how often a run was resumed.
_NOT_COMPARED = {"time", "data_time", "memory"}
_MAX_TOLD = 5


def compare_runs(first: Path, second: Path) -> tuple[int, list[str]]:
    """Compare what two runs have left in their output folders.

    Args:
        first: The folder of the uninterrupted run.
        second: The folder of the other.

    Returns:
        How many values were compared, and a line for each difference.
    """
    names = [sorted(p.name for p in folder.glob("*.pth")) for folder in (first, second)]
    num_values, differences = 0, []
    if names[0] != names[1]:
        differences.append(f"checkpoints {', '.join(names[0])} against {', '.join(names[1])}")
    for name in sorted(set(names[0]) & set(names[1])):
        number, found = compare_checkpoints(first / name, second / name)
        num_values += number
        differences += [f"{name}: {line}" for line in found]
    lines = [_metrics(folder / "metrics.json") for folder in (first, second)]
    num_values += sum(len(line) for line in lines[0])
    if len(lines[0]) != len(lines[1]):
        differences.append(f"metrics.json: {len(lines[0])} lines against {len(lines[1])}")
    for a, b in zip(*lines, strict=False):
        if a != b:
            names_of = sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n))
            at = a.get("iteration")
            differences.append(f"metrics.json at iteration {at}: {', '.join(names_of)}")
    for path in sorted(first.glob("inference/*/results.json")):
        other = second / path.relative_to(first)
        if not other.is_file() or json.loads(other.read_text()) != json.loads(path.read_text()):
            differences.append(f"{path.relative_to(first)} differs")
        num_values += 1
    if left := sorted(hidden_files(second)):
        differences.append(f"unfinished files are left: {', '.join(left)}")
    return num_values, differences


def compare_steps(reference: Record, attempts: Sequence[Record]) -> list[str]:
    """Whether every step of every attempt had the images and the loss of the uninterrupted run."""
    expected = {step[0]: step[1:] for step in reference.values("steps")}
    problems, seen = [], set()
    for record in attempts:
        for iteration, loss, files in record.values("steps"):
            seen.add(iteration)
            wanted_loss, wanted_files = expected.get(iteration, (math.nan.hex(), []))
            if files != wanted_files:
                problems.append(f"{record.folder.name}: iteration {iteration}: other images")
            elif loss != wanted_loss:
                values = [
                    float.fromhex(v) if v != "none" else math.nan for v in (wanted_loss, loss)
                ]
                told = " against ".join(f"{value:.9g}" for value in values)
                problems.append(f"{record.folder.name}: iteration {iteration}: loss {told}")
    if missing := sorted(expected.keys() - seen):
        problems.append(f"iterations never computed: {missing[:_MAX_TOLD]}")
    return problems


def compare_reads(reference: Record, attempts: Sequence[Record], ahead: int) -> list[str]:
    """Whether every attempt read each sample once, and only those from its first iteration on.

    Args:
        reference: Of the uninterrupted run, without workers: it reads batch after batch.
        attempts: Of the other.
        ahead: Batches that may have been read beyond the last whole step.
    """
    stream, steps = reference.values("reads"), reference.values("steps")
    size = len(steps[0][2])
    problems = []
    for record in attempts:
        name, reads = record.folder.name, record.values("reads")
        begun = [step[0] for step in record.values("steps")]
        start = record.status.start_iter
        if start < 0:
            if reads:
                problems.append(f"{name}: {len(reads)} samples read before the first iteration")
            continue
        end = begun[-1] + 1 + ahead if begun else start + ahead
        allowed, known = set(stream[start * size : end * size]), set(stream)
        if end * size > len(stream):
            # The uninterrupted run has read no further than its last batch.
            allowed |= set(reads) - known
        if twice := sorted({p for p in reads if reads.count(p) > 1}):
            problems.append(f"{name}: samples read twice: {twice[:_MAX_TOLD]}")
        if others := sorted(set(reads) - allowed):
            problems.append(
                f"{name}: begins at iteration {start}, {len(begun)} steps, and reads samples of "
                f"other iterations: {others[:_MAX_TOLD]}"
            )
        if missing := sorted(
            {p for i in begun for p in stream[i * size : (i + 1) * size]} - set(reads)
        ):
            problems.append(f"{name}: samples trained on but not read: {missing[:_MAX_TOLD]}")
    return problems


def newest_checkpoint(folder: Path) -> int:
    """The iteration of the newest whole checkpoint in a folder; -1 if there is none."""
    found = [
        int(name[len("model_") : -len(".pth")])
        for name in (os.listdir(folder) if folder.is_dir() else [])
        if name.startswith("model_0") and name.endswith(".pth")
    ]
    return max(found, default=-1)


def _metrics(path: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in _NOT_COMPARED} for entry in entries]
