"""A checkpoint that is cut short or has one flipped bit is told from a good one."""

import errno
import hashlib
import zipfile

import pytest
import torch

from detlite.checkpoint import Checkpointer, load_checkpoint, read_weights, reading
from detlite.checkpoint.checksum import TRAILER_SIZE
from detlite.errors import CheckpointError


@pytest.fixture
def path(tmp_path):
    writer = Checkpointer(tmp_path, keep=1, identity={"config": "", "class_names": ["a"]})
    return writer.save("model_final", {"model": {"w": torch.arange(40.0), "n": torch.ones(3)}})


def positions(size, step):
    """Every so many bytes, and each byte of the checksum and before it."""
    return sorted({*range(0, size, step), *range(size - TRAILER_SIZE - 8, size)})


def test_one_flipped_bit_anywhere_is_found(path):
    whole = path.read_bytes()
    unnoticed = []
    for position in positions(len(whole), 9):
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 8
        path.write_bytes(broken)
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert "model_final.pth is damaged: its checksum is" in str(error)  # noqa: PT017
        else:
            unnoticed.append(position)
    assert unnoticed == []


def test_a_cut_at_any_length_is_found(path):
    whole = path.read_bytes()
    unnoticed = []
    for length in positions(len(whole), 61):
        path.write_bytes(whole[:length])
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert "model_final.pth" in str(error)  # noqa: PT017
        else:
            unnoticed.append(length)
    assert unnoticed == []


@pytest.mark.parametrize("end", [b"\0", b"\n", bytes(4096)])
def test_something_behind_the_checksum_is_found(path, end):
    path.write_bytes(path.read_bytes() + end)
    with pytest.raises(CheckpointError, match=r"its checksum is missing|cannot be read"):
        load_checkpoint(path)


def test_the_checksum_is_of_the_bytes_before_it(path):
    whole = path.read_bytes()
    digest = hashlib.sha256(whole[:-TRAILER_SIZE]).hexdigest()
    assert whole[-TRAILER_SIZE:] == f"\ndetlite-sha256:{digest}\n".encode()


def test_other_readers_pass_over_the_checksum(path):
    assert torch.load(path, weights_only=True)["model"]["w"].tolist() == list(range(40))
    assert zipfile.ZipFile(path).testzip() is None


def test_an_older_checkpoint_and_a_foreign_file_need_no_checksum(tmp_path):
    torch.save({"format": "detlite", "version": 1, "model": {}}, tmp_path / "old.pth")
    assert load_checkpoint(tmp_path / "old.pth")["version"] == 1
    torch.save({"format": "detlite", "model": {}}, tmp_path / "older.pth")
    assert load_checkpoint(tmp_path / "older.pth")["model"] == {}
    torch.save({"state_dict": {}, "version": 7}, tmp_path / "foreign.pth")
    assert read_weights(tmp_path / "foreign.pth")["version"] == 7


def test_a_checkpoint_of_a_later_version_says_so(tmp_path):
    torch.save({"format": "detlite", "version": 3, "model": {}}, tmp_path / "new.pth")
    with pytest.raises(CheckpointError, match=r"version 3, this detlite reads those up to 2"):
        load_checkpoint(tmp_path / "new.pth")


def test_a_downloaded_file_is_verified_too(path, monkeypatch):
    url = "https://example.org/model_final.pth"
    monkeypatch.setattr(reading.PATH_MANAGER, "get_local_path", lambda name: str(path))
    assert load_checkpoint(url)["class_names"] == ["a"]
    broken = bytearray(path.read_bytes())
    broken[700] ^= 4
    path.write_bytes(broken)
    with pytest.raises(CheckpointError, match=rf"{url} is damaged(.|\n)*delete that file"):
        load_checkpoint(url)


def test_a_file_that_the_disk_does_not_give_is_an_error_of_the_checkpoint(path, monkeypatch):
    def broken_disk(file, size):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("detlite.checkpoint.checksum._sha256", broken_disk)
    with pytest.raises(CheckpointError, match=r"cannot read .*model_final.pth: Input/output error"):
        load_checkpoint(path)
