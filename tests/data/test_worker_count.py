import logging
import os

import pytest

from detlite.data.worker_count import usable_workers


@pytest.fixture(autouse=True)
def forget():
    """What was told once is told again in the next test."""
    usable_workers.cache_clear()
    yield
    usable_workers.cache_clear()


@pytest.fixture
def machine(monkeypatch):
    """Set the cores of this process and of its launcher, and the processes of the run on it."""

    def set_up(own, launcher, processes=None):
        cores = {0: set(range(own)), os.getppid(): set(range(launcher))}
        monkeypatch.setattr(os, "sched_getaffinity", cores.__getitem__, raising=False)
        names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE")
        for name in names:
            monkeypatch.delenv(name, raising=False)
            if processes is not None:
                monkeypatch.setenv(name, str(processes))

    return set_up


@pytest.mark.parametrize(
    ("asked", "own", "launcher", "processes", "expected"),
    [
        (4, 8, 8, None, 4),
        (4, 2, 2, None, 2),
        (0, 1, 1, None, 0),
        (4, 16, 16, 4, 4),
        (4, 8, 8, 4, 2),
        (4, 2, 2, 8, 1),  # at least one, if any
        (0, 2, 2, 8, 0),
        (4, 8, 64, 8, 4),  # the launcher has bound each process to cores of its own
    ],
)
def test_no_more_workers_than_cores(machine, asked, own, launcher, processes, expected):
    machine(own, launcher, processes)
    assert usable_workers(asked) == expected


def test_a_lower_number_is_told_once(machine, caplog):
    caplog.set_level(logging.INFO, "detlite")
    machine(8, 8, 4)
    assert [usable_workers(6), usable_workers(6), usable_workers(2)] == [2, 2, 2]
    (record,) = caplog.records
    assert record.getMessage() == (
        "data.num_workers is 6, but there are 8 cores for the 4 processes of the run on this "
        "machine; each of them starts 2"
    )


def test_a_machine_that_does_not_tell_of_its_launcher(machine, monkeypatch):
    machine(4, 4, 2)

    def only_own(pid):
        if pid:
            raise PermissionError
        return {0, 1, 2, 3}

    monkeypatch.setattr(os, "sched_getaffinity", only_own, raising=False)
    assert usable_workers(9) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    usable_workers.cache_clear()
    assert usable_workers(9) == 3
