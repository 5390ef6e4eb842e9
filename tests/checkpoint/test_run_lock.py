"""One run in one folder, and a lock that ends with its process."""

import errno
import os
import re
import shutil
import signal
import socket
import time

import pytest

from detlite.checkpoint import RunLock, is_locked, run_lock
from detlite.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Child:
    """A process that runs a function, tells what came of it, and stays until it is killed."""

    def __init__(self, work):
        reader, writer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                told = str(work())
            except ConfigError as error:
                told = f"refused: {error}"
            except BaseException as error:
                told = f"fault: {error!r}"
            os.write(writer, told.encode())
            os.close(writer)
            signal.pause()
        os.close(writer)
        with open(reader) as file:
            self.told = file.read()

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


@pytest.fixture
def child():
    children = []

    def start(work):
        children.append(Child(work))
        return children[-1]

    yield start
    for each in children:
        each.kill()


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path, child):
    with RunLock(tmp_path):
        told = child(lambda: RunLock(tmp_path).acquire(wait=0)).told
    assert told.startswith(f"refused: another run goes on in output_dir {tmp_path}")
    pattern = rf"process {os.getpid()} on {socket.gethostname()} since \d{{4}}-\d\d-\d\d \d\d:"
    assert re.search(pattern, told), told
    assert "output_dir=ANOTHER" in told
    assert child(lambda: RunLock(tmp_path).acquire(wait=0)).told == "None"


def test_the_lock_of_a_killed_process_is_waited_for(tmp_path, child):
    holder = child(lambda: RunLock(tmp_path).acquire(wait=0))
    with pytest.raises(ConfigError, match=f"process {holder.pid} on "):
        RunLock(tmp_path).acquire(wait=0.15)
    os.kill(holder.pid, signal.SIGKILL)  # it may take a moment to be gone
    start = time.monotonic()
    with RunLock(tmp_path):
        assert time.monotonic() - start < 5


def _leads_to(descriptor, folder):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder))
    except FileNotFoundError:
        return True  # that of the listing itself


def test_workers_of_a_killed_process_do_not_hold_its_lock(tmp_path, child):
    def hold_and_fork():
        RunLock(tmp_path).acquire(wait=0)
        worker = os.fork()
        if not worker:
            for name in os.listdir("/proc/self/fd"):  # all but the lock's, which a worker inherits
                if not _leads_to(name, tmp_path):
                    os.close(int(name))
            time.sleep(60)
            os._exit(0)
        return worker

    holder = child(hold_and_fork)
    worker = int(holder.told)
    holder.kill()
    try:
        os.kill(worker, 0)  # it lives
        RunLock(tmp_path).acquire(wait=0)
        RunLock(tmp_path).release()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_worker_that_ends_does_not_take_the_lock_with_it(tmp_path, child):
    def as_worker():
        lock.release()
        return "released"

    with RunLock(tmp_path) as lock:
        assert child(as_worker).told == "released"
        told = child(lambda: RunLock(tmp_path).acquire(wait=0)).told
        assert f"process {os.getpid()} on " in told


def test_within_a_process_the_last_one_gives_it_up(tmp_path, child):
    def other():
        return RunLock(tmp_path).acquire(wait=0)

    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    second.acquire()
    first.release()
    first.release()  # twice is once
    assert child(other).told.startswith("refused")
    second.release()
    assert child(other).told == "None"


def test_the_lock_follows_a_folder_that_was_removed(tmp_path, child):
    folder = tmp_path / "run"
    with RunLock(folder) as lock:
        lock.renew()  # nothing to do
        shutil.rmtree(folder)
        lock.renew()
        assert child(lambda: RunLock(folder).acquire(wait=0)).told.startswith("refused")
        shutil.rmtree(folder)
        taken = child(lambda: RunLock(folder).acquire(wait=0))
        assert taken.told == "None"
        with pytest.raises(ConfigError, match=f"process {taken.pid} on "):
            lock.renew()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog, number):
    def no_locks(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock.fcntl, "lockf", no_locks)
    with RunLock(tmp_path):
        assert f"{tmp_path} cannot be locked ({os.strerror(number)})" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file cannot be written to: .*output_dir=ANOTHER"):
        RunLock(tmp_path / "file").acquire()


@pytest.mark.parametrize("name", ["", "a\0b", "a\ud800b", "n" * 256, "file/below", "loop"])
def test_an_odd_name_of_a_folder_is_an_error_that_says_why(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=r"cannot be written to: .*output_dir=ANOTHER"):
        RunLock(name).acquire()
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_an_odd_name_of_a_folder_that_the_file_system_takes_works(tmp_path):
    for name in ("größe", "two\nlines", "n" * 255):
        with RunLock(tmp_path / name):
            assert (tmp_path / name / ".lock").is_file()


def test_whether_a_run_goes_on_is_told_without_taking_its_lock(tmp_path, child):
    assert is_locked(tmp_path) is None  # no run ever
    with RunLock(tmp_path):
        assert is_locked(tmp_path) is True
        assert child(lambda: is_locked(tmp_path)).told == "True"
        assert child(lambda: RunLock(tmp_path).acquire(wait=0)).told.startswith("refused")
    assert is_locked(tmp_path) is False
    RunLock(tmp_path).acquire(wait=0)
    RunLock(tmp_path).release()
