"""A snapshot is what the state was, in what a checkpoint can hold."""

import collections
import enum
import pathlib

import numpy as np
import pytest
import torch

from detlite.checkpoint import load_checkpoint, save_atomically
from detlite.checkpoint.snapshot import Snapshot
from detlite.errors import CheckpointError


class Colour(str, enum.Enum):
    """Written as its value."""

    RED = "red"


class Number(enum.IntEnum):
    """Written as its value."""

    TWO = 2


VALUES = {
    "none": None,
    "flags": [True, False],
    "numbers": (1, -(2**70), 1.5, float("inf"), 1 + 2j),
    "text": "größer",
    "bytes": b"\x00\xff",
    "keys": {3: "int", (1, "a"): "tuple", None: "none", 1.5: "float"},
    "empty": [{}, [], ()],
    "tensors": [torch.tensor(3), torch.zeros(0, 4), torch.ones(2, dtype=torch.bfloat16)],
}


def test_every_value_that_a_snapshot_takes_comes_back_from_the_file(tmp_path):
    save_atomically({"format": "detlite", **Snapshot().take(VALUES)}, tmp_path / "c.pth")
    content = load_checkpoint(tmp_path / "c.pth")
    del content["format"]
    assert repr(content) == repr(VALUES)


def test_numbers_of_numpy_enums_and_dicts_of_other_kinds_become_plain():
    taken = Snapshot().take(
        {
            "numpy": [np.float64(0.5), np.int32(3), np.bool_(True), np.float32(0.25)],
            "enums": [Colour.RED, Number.TWO],
            "dicts": [collections.OrderedDict(a=1), collections.Counter("aab")],
            "array": np.arange(3, dtype=">i2"),
        }
    )
    assert [type(value) for value in taken["numpy"]] == [float, int, bool, float]
    assert [(type(value), value) for value in taken["enums"]] == [(str, "red"), (int, 2)]
    assert [(type(v), v) for v in taken["dicts"]] == [(dict, {"a": 1}), (dict, {"a": 2, "b": 1})]
    assert taken["array"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (lambda: 0, "builtins.function"),
        ({1, 2}, "builtins.set"),
        (pathlib.Path("x"), "Path"),
        (object(), "builtins.object"),
        (np.array(["a"], dtype=object), "numpy.ndarray"),
        (torch.eye(2).to_sparse(), "torch.Tensor"),
        (torch.ones(2, device="meta"), "torch.Tensor"),
    ],
    # Not of the values, whose text holds addresses: parallel test processes compare the names.
    ids=["function", "set", "path", "object", "array", "sparse", "meta"],
)
def test_what_could_not_be_read_back_is_refused_with_its_place(value, named):
    with pytest.raises(CheckpointError, match=rf"hold hooks > Own\.1 > 0 > x, a .*{named}"):
        Snapshot().take({"hooks": {"Own.1": [{"x": value}]}})


def test_a_key_that_could_not_be_read_back_is_refused():
    with pytest.raises(CheckpointError, match=r"the key <object .* in hooks"):
        Snapshot().take({"hooks": {object(): 1}})


def test_containers_that_hold_themselves_are_refused():
    circle = []
    circle.append(circle)
    with pytest.raises(CheckpointError, match="nested over"):
        Snapshot().take({"a": circle})


def test_later_changes_do_not_reach_a_snapshot():
    parameter = torch.nn.Parameter(torch.zeros(3))
    state = {"w": parameter, "list": [1], "dict": {"a": 1}}
    taken = Snapshot().take(state)
    with torch.no_grad():
        parameter += 1
    state["list"].append(2)
    state["dict"]["a"] = 2
    assert (taken["w"].tolist(), taken["list"], taken["dict"]) == ([0, 0, 0], [1], {"a": 1})
    assert not taken["w"].requires_grad


def test_the_memory_of_the_last_snapshot_is_used_again_where_it_fits():
    snapshot = Snapshot()
    first = snapshot.take({"a": torch.zeros(8), "b": torch.zeros(8)})
    places = {name: tensor.data_ptr() for name, tensor in first.items()}
    second = snapshot.take({"a": torch.ones(8), "b": torch.ones(8, dtype=torch.float64)})
    assert second["a"].data_ptr() == places["a"]
    assert second["a"].tolist() == [1] * 8
    assert second["b"].dtype == torch.float64
    third = snapshot.take({"b": torch.full((8,), 2.0), "a": torch.full((4, 2), 3.0)})
    assert third["a"].tolist() == [[3, 3]] * 4
    assert third["b"].tolist() == [2] * 8


def test_tied_tensors_stay_one_and_others_do_not_become_one(tmp_path):
    weight = torch.arange(4.0)
    state = {"a": weight, "b": weight.detach(), "half": weight[:2], "turned": weight.view(2, 2).t()}
    taken = Snapshot().take(state)
    assert taken["a"].data_ptr() == taken["b"].data_ptr()
    assert taken["half"].untyped_storage().nbytes() == 8
    assert {name: value.tolist() for name, value in taken.items()} == {
        name: value.tolist() for name, value in state.items()
    }
    # Arrays that are copied on the way take the same memory one after the other.
    arrays = [np.full(1000, i, dtype=">f4") for i in range(20)]
    assert [t[0].item() for t in Snapshot().take(arrays)] == list(range(20))


def test_memory_formats_are_kept_and_expanded_tensors_are_filled():
    images = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    taken = Snapshot().take([images, torch.ones(1, 1).expand(3, 4)])
    assert taken[0].stride() == images.stride()
    assert torch.equal(taken[0], images)
    assert taken[1].tolist() == [[1] * 4] * 3


@pytest.mark.gpu
def test_tensors_of_a_gpu_come_to_the_cpu_as_they_were():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    weight = torch.zeros(1 << 22, device="cuda")
    snapshot = Snapshot()
    for value in range(3):
        weight.fill_(value)
        taken = snapshot.take({"w": weight})
        weight.fill_(-1)
        assert taken["w"].device.type == "cpu"
        assert taken["w"].unique().tolist() == [value]
