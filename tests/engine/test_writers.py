"""Where metrics go, and what faults do to them: full disks, removed folders, half written lines."""

import errno
import json
import logging
import math
import os
import re
import shutil
import time
from collections import Counter

import pytest
import torch

from detlite import HookBase, build_trainer
from detlite.engine.hooks import ConsoleWriter, JSONWriter, MetricSummary
from detlite.utils.logger import close_logger, setup_logger


class Summaries(HookBase):
    """A summary after every step, with the iteration as its value."""

    def __init__(self, **values):
        self.values = values

    def after_step(self, trainer):
        trainer.summary = {"memory": 1.0, "value": float(trainer.iter), **self.values}


class At(HookBase):
    """Does something after a step."""

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def after_step(self, trainer):
        if trainer.iter == self.iteration:
            self.action()


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def iterations(folder):
    return [line["iteration"] for line in lines(folder)]


def test_a_line_is_on_the_disk_when_the_next_hook_is_called(small_trainer, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    seen = []

    class Look(HookBase):
        def after_step(self, trainer):
            seen.append((iterations(tmp_path), synced[-1]))

    writer = JSONWriter(output_dir=str(tmp_path))
    small_trainer(Summaries(), writer, Look(), max_iter=2).train()
    size = (tmp_path / "metrics.json").stat().st_size
    assert [found for found, _ in seen] == [[0], [0, 1]]
    assert seen[1][1] == size
    assert seen[0][1] < size


@pytest.mark.parametrize(
    "tail", [b'{"iteration": 4, "val', b"\x00\x00\xff\xfe", b"17", b"null", b'{"iteration": null}']
)
def test_a_resumed_run_drops_what_it_repeats_and_what_is_half_written(
    small_trainer, tmp_path, tail
):
    kept = b"".join(b'{"iteration": %d, "v": %d}\n' % (i, i) for i in range(4))
    (tmp_path / "metrics.json").write_bytes(kept + tail)
    trainer = small_trainer(Summaries(), JSONWriter(output_dir=str(tmp_path)))
    trainer.start_iter = 3
    trainer.train()
    assert iterations(tmp_path) == [0, 1, 2, 3]
    assert lines(tmp_path)[2] == {"iteration": 2, "v": 2}
    assert "value" in lines(tmp_path)[3]


def test_a_start_that_fails_leaves_the_lines_of_before(small_trainer, tmp_path, monkeypatch):
    (tmp_path / "metrics.json").write_text('{"iteration": 0}\n')

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer = small_trainer(Summaries(), JSONWriter(output_dir=str(tmp_path)))
    trainer.start_iter = 1
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        trainer.train()
    assert iterations(tmp_path) == [0]


def test_going_back_drops_the_lines_that_are_repeated(small_trainer, tmp_path):
    writer = JSONWriter(output_dir=str(tmp_path))
    trainer = small_trainer(Summaries(), writer)

    class GoBack(HookBase):
        def after_step(self, trainer):
            if trainer.iter == 3:
                trainer.start_iter = 2
                writer.after_restore(trainer)

    trainer.hooks.append(GoBack())
    trainer.train()
    assert iterations(tmp_path) == [0, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_does_not_know_is_null(small_trainer, tmp_path, value):
    writer = JSONWriter(output_dir=str(tmp_path))
    small_trainer(Summaries(loss=value), writer, max_iter=1).train()
    assert lines(tmp_path)[0]["loss"] is None


def test_a_folder_that_is_removed_comes_back_with_every_line(small_trainer, tmp_path, caplog):
    folder = tmp_path / "run"
    writer = JSONWriter(output_dir=str(folder))
    remove = At(1, lambda: shutil.rmtree(folder))
    small_trainer(Summaries(), writer, remove).train()
    assert iterations(folder) == [0, 1, 2, 3]
    assert "was removed during the run and is written anew" in caplog.text


def test_a_file_that_another_has_replaced_is_not_written_into(small_trainer, tmp_path):
    path = tmp_path / "metrics.json"
    replace = At(1, lambda: (path.unlink(), path.write_text("someone else's\n")))
    small_trainer(Summaries(), JSONWriter(output_dir=str(tmp_path)), replace).train()
    assert iterations(tmp_path) == [0, 1, 2, 3]


class Full:
    """A file on a disk with room for so many bytes more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, content):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        content = content[: self.room]
        self.room -= len(content)
        return self.file.write(content)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_on_a_full_disk_lines_wait_and_none_is_cut(small_trainer, tmp_path, caplog):
    writer = JSONWriter(output_dir=str(tmp_path))
    found = []

    def fill():
        writer._file = Full(writer._file, 10)

    def make_room():
        found.append(iterations(tmp_path))
        writer._file = writer._file.file

    hooks = [Summaries(), writer, At(0, fill), At(2, make_room)]
    with caplog.at_level(logging.INFO, logger="detlite"):
        small_trainer(*hooks).train()
    assert found == [[0]]
    assert iterations(tmp_path) == [0, 1, 2, 3]
    assert caplog.text.count("cannot be written: [Errno 28] No space left on device") == 1
    assert "is written again, nothing of it is missing" in caplog.text


def test_the_lines_of_a_disk_that_stays_full_are_lost_and_the_run_is_not(
    small_trainer, tmp_path, caplog
):
    writer = JSONWriter(output_dir=str(tmp_path))
    fill = At(1, lambda: setattr(writer, "_file", Full(writer._file, 0)))
    trainer = small_trainer(Summaries(), writer, fill)
    trainer.train()
    assert trainer.iter == 3
    assert iterations(tmp_path) == [0, 1]
    assert "or they are lost" in caplog.text


def test_a_clock_that_is_set_back_disturbs_nothing(train, tmp_path, monkeypatch):
    real, calls = time.time, []

    def falling():
        calls.append(0)
        return real() - 1e6 * len(calls)

    monkeypatch.setattr(time, "time", falling)
    train("train.log_period=1", "train.checkpoint_period=1")
    assert iterations(tmp_path / "run") == [0, 1, 2, 3]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "done"
    assert 0 < summary["training_seconds"] < 600
    assert all(0 < line["time"] < 60 for line in lines(tmp_path / "run"))


def test_the_console_counts_faults_once_there_are_any(small_trainer, caplog):
    class Loader(list):
        pass

    skips = HookBase()
    skips.faults = {"skipped_steps": 2}
    counts = Counter(unreadable=3, worker_died=0)
    for hooks, found, told in (
        ([], Counter(), "max_mem: 1M"),
        ([skips], counts, "max_mem: 1M  skipped_steps: 2  unreadable: 3"),
    ):
        trainer = small_trainer(Summaries(), *hooks, ConsoleWriter(), max_iter=1)
        trainer.loader = Loader(trainer.loader)
        trainer.loader.faults = found
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="detlite"):
            trainer.train()
        (line,) = [m for m in caplog.messages if m.startswith("eta:")]
        assert line.endswith(told)


def console_lines(caplog):
    """The iteration and the time left of each line."""
    found = [re.match(r"eta: (\S+)  iter: (\d+)/", message) for message in caplog.messages]
    return [(int(match[2]), match[1]) for match in found if match]


def test_the_first_iteration_is_reported_when_it_ends(small_trainer, caplog):
    caplog.set_level(logging.INFO, "detlite")
    small_trainer(MetricSummary(period=3), ConsoleWriter(), max_iter=6).train()
    assert [iteration for iteration, _ in console_lines(caplog)] == [0, 2, 5]


def test_a_resumed_run_reports_its_first_iteration_too(small_trainer, caplog):
    caplog.set_level(logging.INFO, "detlite")
    trainer = small_trainer(MetricSummary(period=3), ConsoleWriter(), max_iter=6)
    trainer.start_iter = 1
    trainer.train()
    assert [iteration for iteration, _ in console_lines(caplog)] == [1, 2, 5]


def test_no_silence_is_longer_than_it_may_and_nothing_else_depends_on_that(
    small_trainer, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "detlite")
    buffers = []

    class Buffers(HookBase):
        def after_step(self, trainer):
            buffers[-1].append(trainer.buffer.state_dict())

    for max_silence in (1e-9, 1e9):
        folder = tmp_path / f"{max_silence}"
        folder.mkdir()
        buffers.append([])
        caplog.clear()
        console = ConsoleWriter(max_silence=max_silence)
        writer = JSONWriter(output_dir=str(folder))
        small_trainer(MetricSummary(period=3), console, writer, Buffers(), max_iter=6).train()
        told = [iteration for iteration, _ in console_lines(caplog)]
        assert told == ([0, 1, 2, 3, 4, 5] if max_silence < 1 else [0, 2, 5])
        assert iterations(folder) == [2, 5]
    of_the_clock = {"data_time", "memory"}
    first, second = (
        [{k: v for k, v in line.items() if k not in of_the_clock} for line in lines(folder)]
        for folder in sorted(tmp_path.iterdir())
    )
    assert first == second
    values = [[state.get("total_loss") for state in states] for states in buffers]
    assert values[0] == values[1]
    assert [len(state) if state else 0 for state in values[0]] == [1, 2, 0, 1, 2, 0]


def test_the_first_iteration_does_not_count_for_the_time_left(small_trainer, caplog):
    class Clock(HookBase):
        def after_step(self, trainer):
            trainer.step_seconds = 2.0 if trainer.iter else 100.0

    caplog.set_level(logging.INFO, "detlite")
    small_trainer(Clock(), MetricSummary(period=2), ConsoleWriter(), max_iter=6).train()
    assert console_lines(caplog) == [
        (0, "0:08:20"),
        (1, "0:00:08"),
        (3, "0:00:04"),
        (5, "0:00:00"),
    ]


def test_the_log_goes_on_in_a_folder_that_was_removed(tmp_path, capsys):
    folder = tmp_path / "run"
    setup_logger(folder)
    try:
        logger = logging.getLogger("detlite.test")
        logger.info("first")
        shutil.rmtree(folder)
        logger.info("second")
        (folder / "log.txt").unlink()
        logger.info("third")
    finally:
        close_logger()
    assert "third" in (folder / "log.txt").read_text()
    assert "Traceback" not in capsys.readouterr().err


def test_averages_after_an_interruption_are_those_of_a_run_without(tiny_config, train, tmp_path):
    # Three iterations a line, interrupted in the middle of one.
    values = ["train.log_period=3", "train.checkpoint_period=2", "solver.max_iter=6"]
    train(*values, output="whole")
    with pytest.raises(KeyboardInterrupt):
        _train_until(tiny_config(*values, output="broken"), 2)
    train(*values, output="broken", resume=True)
    found = []
    for name in ("whole", "broken"):
        entries = lines(tmp_path / name)
        # How long it took, and how much memory, is the process's own.
        found.append([{k: v for k, v in e.items() if k not in ("time", "data_time", "memory")}
                      for e in entries])  # fmt: skip
    assert found[0] == found[1]
    assert [entry["iteration"] for entry in found[0]] == [2, 5]


def _train_until(config, iteration):
    class Interrupt(HookBase):
        def before_step(self, trainer):
            if trainer.iter == iteration:
                raise KeyboardInterrupt

    trainer = build_trainer(config)
    trainer.hooks.append(Interrupt())
    trainer.train()


def test_tensors_and_numbers_average_alike(small_trainer):
    trainer = small_trainer()
    trainer.buffer.put({"a": torch.tensor(0.1), "b": 1})
    state = trainer.buffer.state_dict()
    trainer.buffer.put({"a": torch.tensor(0.2), "b": 2})
    whole = trainer.buffer.take()
    trainer.buffer.load_state_dict(state)
    trainer.buffer.put({"a": torch.tensor(0.2), "b": 2})
    assert trainer.buffer.take() == whole
