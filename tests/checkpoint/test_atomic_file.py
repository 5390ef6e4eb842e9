"""A file is whole or as it was, whatever happens while it is written."""

import errno
import os
import pickle
import shutil
import stat

import pytest
import torch

from detlite.checkpoint import atomic_file, save_atomically

CONTENT = {"w": torch.arange(5000.0), "b": torch.ones(3)}


@pytest.fixture
def fail_after(monkeypatch):
    """Let writing fail after so many bytes of a file."""
    write = os.write

    def arrange(count, number=errno.ENOSPC):
        left = [count]

        def broken(descriptor, data):
            if descriptor not in atomic_file._descriptors:
                return write(descriptor, data)
            if left[0] <= 0:
                raise OSError(number, os.strerror(number))
            done = write(descriptor, data[: left[0]])  # a part, as the last write to a disk does
            left[0] -= done
            return done

        monkeypatch.setattr(atomic_file.os, "write", broken)

    return arrange


@pytest.mark.parametrize("count", [0, 10, 100, 1000, 5000, 20000, 21000])
def test_a_full_disk_at_any_byte_leaves_the_old_file_and_its_own_error(tmp_path, fail_after, count):
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    fail_after(count)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_atomically(CONTENT, path, checksum=True)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.pth"]
    assert not atomic_file._descriptors


def test_writes_of_a_part_are_carried_on(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(atomic_file.os, "write", lambda file, data: write(file, data[:97]))
    save_atomically(CONTENT, tmp_path / "parts.pth", checksum=True)
    monkeypatch.undo()
    save_atomically(CONTENT, tmp_path / "whole.pth", checksum=True)
    assert (tmp_path / "parts.pth").read_bytes() == (tmp_path / "whole.pth").read_bytes()


@pytest.mark.parametrize("call", ["fsync", "replace", "close"])
def test_a_failure_at_the_end_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    real = getattr(os, call)

    def broken(*arguments):
        if call == "close":
            real(*arguments)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(atomic_file.os, call, broken)
    with pytest.raises(OSError, match="Input/output error"):
        save_atomically("new", path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.pth"]


def test_what_cannot_be_pickled_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.pth"
    save_atomically({"format": "detlite", "model": {}}, path)
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError), match="<lambda>"):
        save_atomically({"model": lambda: None}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.pth"]


def test_a_folder_that_is_missing_or_removed_meanwhile_is_made(tmp_path, monkeypatch):
    path = tmp_path / "run" / "a" / "config.yaml"
    save_atomically("seed: 0\n", path)
    write = os.write
    removed = []

    def removing(descriptor, data):
        if not removed:
            removed.append(shutil.rmtree(tmp_path / "run"))
        return write(descriptor, data)

    monkeypatch.setattr(atomic_file.os, "write", removing)
    save_atomically("seed: 1\n", path)
    assert path.read_text() == "seed: 1\n"


def test_the_rights_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        save_atomically(b"content", tmp_path / "file")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_file_system_that_cannot_force_a_folder_to_disk_is_no_failure(tmp_path, monkeypatch):
    fsync = os.fsync

    def picky(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(atomic_file.os, "fsync", picky)
    save_atomically("text", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "text"
