"""What a run finds of an earlier one: the last good checkpoint, and what is to be removed."""

import errno
import logging
import os

import pytest
import torch

from detlite.checkpoint import Checkpointer
from detlite.errors import CheckpointError

STATE = {"model": {"w": torch.arange(500.0)}, "optimizer": {"state": {}}}


def checkpointer(folder, keep=2):
    return Checkpointer(folder, keep=keep, identity={"config": "seed: 0\n", "class_names": ["a"]})


def write(folder, *iterations, keep=2, state=STATE):
    writer = checkpointer(folder, keep)
    for iteration in iterations:
        writer.save_periodic(iteration, state)
    writer.wait()
    return writer


def names(folder, pattern="model_*.pth"):
    return sorted(path.name for path in folder.glob(pattern))


def flip(path, position=600):
    content = bytearray(path.read_bytes())
    content[position] ^= 16
    path.write_bytes(content)


def test_order_is_by_the_number_not_by_the_clock(tmp_path):
    write(tmp_path, 9, 19)
    # The clock has been set back a day, and the older file was copied in the future.
    os.utime(tmp_path / "model_0000009.pth", (4e9, 4e9))
    os.utime(tmp_path / "model_0000019.pth", (1e9, 1e9))
    assert checkpointer(tmp_path).last_good()[1]["iteration"] == 19
    write(tmp_path, 29)
    assert names(tmp_path) == ["model_0000019.pth", "model_0000029.pth"]


def test_more_than_seven_digits_are_the_newest(tmp_path):
    writer = write(tmp_path, 9_999_998, 9_999_999, 10_000_000)
    assert names(tmp_path) == ["model_10000000.pth", "model_9999999.pth"]
    assert writer.last_good()[0].name == "model_10000000.pth"


def test_damaged_checkpoints_are_passed_over_and_told(tmp_path, caplog):
    writer = write(tmp_path, 9, 19, 29, keep=3)
    flip(tmp_path / "model_0000029.pth")
    (tmp_path / "model_0000019.pth").write_bytes(b"")
    path, content = writer.last_good()
    assert (path.name, content["iteration"]) == ("model_0000009.pth", 9)
    assert content["model"]["w"].tolist() == STATE["model"]["w"].tolist()
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == 3
    assert told[0].startswith("model_0000029.pth is passed over: ")
    assert "its checksum is" in told[0]
    assert told[1].startswith("model_0000019.pth is passed over: ")
    assert "it is empty" in told[1]
    assert "model_0000009.pth; the iterations 10 to 29 are computed once more" in told[2]


def test_a_damaged_checkpoint_takes_no_good_ones_place(tmp_path):
    write(tmp_path, 9, 19, 29, keep=3)
    flip(tmp_path / "model_0000029.pth")
    flip(tmp_path / "model_0000009.pth")
    writer = checkpointer(tmp_path)
    assert writer.last_good()[1]["iteration"] == 19
    writer.save_periodic(24, STATE)
    writer.wait()
    # The damaged one of a later iteration went; the damaged one of an earlier was not looked at.
    assert names(tmp_path) == ["model_0000019.pth", "model_0000024.pth"]
    assert writer.last_good()[1]["iteration"] == 24


def test_without_any_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    assert checkpointer(tmp_path).last_good() is None
    assert checkpointer(tmp_path / "nowhere").last_good() is None
    checkpointer(tmp_path).save("model_best", {"model": {}})
    (tmp_path / "model_12.pth").write_text("not ours")
    (tmp_path / "last_checkpoint").write_text("\n")
    assert checkpointer(tmp_path).last_good() is None


def spoil_all(folder):
    for path in folder.glob("model_*.pth"):
        flip(path)


def only_the_pointer(folder):
    for path in folder.glob("model_*.pth"):
        path.unlink()


def weights_only(folder):
    only_the_pointer(folder)
    checkpointer(folder).save("model_final", {"model": {}, "iteration": 3})
    (folder / "last_checkpoint").write_text("model_final.pth")


def strange_pointer(folder):
    only_the_pointer(folder)
    (folder / "last_checkpoint").write_bytes(b"\xff\xfe\x80")


def no_number(folder):
    only_the_pointer(folder)
    checkpointer(folder).save("model_0000019", {**STATE, "iteration": "many"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (no_number, "its iteration is 'many'"),
        (spoil_all, "its checksum is"),
        (only_the_pointer, "there is no checkpoint"),
        (weights_only, "holds weights only"),
        (strange_pointer, "there is no checkpoint"),
    ],
)
def test_a_run_does_not_begin_anew_silently(tmp_path, damage, reason):
    write(tmp_path, 9, 19)
    damage(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        checkpointer(tmp_path).last_good()
    assert f"none of the checkpoints in {tmp_path} can be used" in str(caught.value)
    assert reason in str(caught.value)
    assert "--overwrite" in str(caught.value)


def test_a_checkpoint_of_another_name_is_found_by_last_checkpoint(tmp_path):
    checkpointer(tmp_path).save("mine", {**STATE, "iteration": 7})
    (tmp_path / "last_checkpoint").write_text("mine.pth\n")
    path, content = checkpointer(tmp_path).last_good()
    assert (path.name, content["iteration"]) == ("mine.pth", 7)


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path):
    writer = write(tmp_path, 9)
    left = [".model_0000019.pth.0a1b2c3d", ".last_checkpoint.0a1b2c3d", ".config.yaml.ab_cdef0"]
    left += [".metrics.json.0a1b2c3d", "..launch.0a1b2c3d"]
    others = [".lock", ".model_notes", "model_0000009.pth.0a1b2c3d", ".gitignore", "log.txt"]
    for name in left + others:
        (tmp_path / name).write_text("")
    before = set(os.listdir(tmp_path))
    writer.remove_leftovers()
    assert before - set(os.listdir(tmp_path)) == set(left)


def test_a_run_that_begins_anew_finds_nothing_of_the_earlier_one(tmp_path):
    writer = write(tmp_path, 9, 19)
    writer.save("model_best", {"model": {}})
    writer.save("model_final", {"model": {}})
    writer.save("model_final_plain", {"model": {}})
    for name in (
        "metrics.json",
        "summary.json",
        "log.txt",
        "mine.pth",
        ".model_0000029.pth.0a1b2c3d",
    ):
        (tmp_path / name).write_text("")
    writer.remove_run()
    assert sorted(os.listdir(tmp_path)) == ["log.txt", "mine.pth"]
    writer.remove_run()


def test_a_run_that_cannot_be_removed_is_told(tmp_path, monkeypatch):
    writer = write(tmp_path, 9)

    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(CheckpointError, match=r"model_0000009.pth .*Operation not permitted"):
        writer.remove_run()
