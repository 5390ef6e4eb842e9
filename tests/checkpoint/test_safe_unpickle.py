"""Every container that weights come in is read to the bit, and what is no weight is told."""

import collections
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from detlite.checkpoint import Checkpointer
from detlite.checkpoint.safe_unpickle import read_weights_file
from detlite.errors import CheckpointError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
random = np.random.default_rng(0)
ARRAYS = {
    "plain": random.normal(size=(3, 4)).astype("f4"),
    "fortran": np.asfortranarray(random.normal(size=(3, 4, 2))),
    "permuted": random.normal(size=(3, 4, 2)).transpose(1, 2, 0),
    "strided": random.normal(size=(8, 4))[::2],
    "big_endian": random.normal(size=5).astype(">f4"),
    "half": random.normal(size=7).astype("f2"),
    "no_dimensions": np.array(3.5, "f4"),
    "empty": np.zeros((0, 4), "f4"),
    "one_by_one": np.ones((1, 1, 1), "f4"),
    "integers": np.arange(-3, 3),
    "big_endian_integers": np.arange(3, dtype=">u2"),
    "bytes": np.arange(256, dtype="u1"),
    "booleans": np.array([True, False]),
    "complex": np.array([1 + 2j], "c8"),
}


def same(tensor, array):
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    bits = tensor.numpy().tobytes()
    return (tensor.shape, bits) == (array.shape, native.tobytes()) and (
        tensor.dtype == torch.from_numpy(native).dtype
    )


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_a_pickle_become_tensors_to_the_bit(tmp_path, name, protocol):
    content = pickle.dumps({"model": {name: ARRAYS[name]}, "__author__": "me"}, protocol)
    content = read_weights_file(written(tmp_path / "model.pkl", content))
    assert content["__author__"] == "me"
    assert same(content["model"][name], ARRAYS[name])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_of_a_pickle_stay_what_they_are(tmp_path, protocol):
    value = {
        "text": "größer \u4e2d",
        7: [1, -5, 2**40, 2**2000, -(2**31)],
        "numbers": (1.5, -0.0, float("inf"), True, False, None),
        "bytes": b"\x00\xff",
        "no_bytes": b"",
        "nested": {"a": [], "b": (), "c": {}},
        (1, "key"): "tuple",
        None: 0,
    }
    path = written(tmp_path / "values.pkl", pickle.dumps(value, protocol))
    assert repr(read_weights_file(path)) == repr(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_of_python_become_plain_ones(tmp_path, protocol):
    default = collections.defaultdict(list, {"a": [1]})
    ordered = collections.OrderedDict([("z", 1), ("a", 2)])
    value = {
        "ordered": ordered,
        "default": default,
        "counter": collections.Counter("aab"),
        "set": {3},
        "frozen": frozenset([4]),
        "scalar": np.float32(0.1),
        "flag": np.bool_(True),
        "words": np.array(["a", "bcd"]),
        "size": torch.Size([1, 2]),
        "device": torch.device("cuda", 1),
        "dtype": torch.float16,
        "bytearray": bytearray(b"x"),
        "slice": slice(1, 2),
    }
    content = read_weights_file(written(tmp_path / "c.pkl", pickle.dumps(value, protocol)))
    assert list(content["ordered"].items()) == [("z", 1), ("a", 2)]
    assert {type(content[name]) for name in ("ordered", "default", "counter")} == {dict}
    assert content["default"] == {"a": [1]}
    assert content["counter"] == {"a": 2, "b": 1}
    assert (content["set"], content["frozen"]) == ([3], [4])
    assert content["scalar"] == float(np.float32(0.1))
    assert content["flag"] is True
    assert content["words"] == ["a", "bcd"]
    assert content["size"] == (1, 2)
    assert (content["device"], content["dtype"]) == ("cuda:1", "torch.float16")
    assert content["bytearray"] == b"x"
    assert content["slice"] is None


def test_what_is_shared_stays_shared(tmp_path):
    array = np.arange(3.0)
    path = written(tmp_path / "shared.pkl", pickle.dumps({"a": array, "b": array}))
    content = read_weights_file(path)
    assert content["a"] is content["b"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_in_a_plain_pickle_are_read(tmp_path, protocol):
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "view": base[1:, ::2],
        "transposed": base.t(),
        "parameter": nn.Parameter(torch.ones(2)),
        "bfloat16": torch.tensor([1.5]).bfloat16(),
        "half": torch.tensor([0.1]).half(),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(7),
        "state": nn.BatchNorm2d(3).state_dict(),
    }
    content = read_weights_file(written(tmp_path / "t.pkl", pickle.dumps(value, protocol)))
    content |= content.pop("state")
    for name, tensor in {**value.pop("state"), **value}.items():
        got = content[name]
        assert type(got) is torch.Tensor
        assert not got.requires_grad
        assert got.dtype == tensor.dtype
        assert torch.equal(got, tensor.detach())


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", ["pth", "pkl", "safetensors", "h5", ""])
def test_torch_files_are_read_whatever_their_suffix(tmp_path, suffix, new):
    base = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    value = {
        "state_dict": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict(),
        "view": base[1:, ::2],
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "parameter": nn.Parameter(base),
        "empty": torch.zeros(0, 3),
        "epoch": 3,
        "array": ARRAYS["fortran"],
        "endian": ARRAYS["big_endian"],
        "none": ARRAYS["empty"],
        "scalar": np.float64(0.5),
    }
    path = tmp_path / f"file.{suffix}"
    torch.save(value, path, _use_new_zipfile_serialization=new)
    content = read_weights_file(path)
    assert type(content["state_dict"]) is dict
    assert list(content["state_dict"]) == list(value["state_dict"])
    for name in ("view", "half", "bfloat16", "double", "parameter", "empty"):
        assert type(content[name]) is torch.Tensor
        assert content[name].dtype == value[name].dtype
        assert torch.equal(content[name], value[name].detach())
    assert all(torch.equal(content["state_dict"][k], v) for k, v in value["state_dict"].items())
    assert same(content["array"], value["array"])
    assert same(content["endian"], value["endian"])
    assert same(content["none"], value["none"])
    assert (content["epoch"], content["scalar"]) == (3, 0.5)


def test_a_file_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert read_weights_file(tmp_path / "w.pth")["w"].tolist() == [1, 1, 1]


def test_a_bare_tensor_and_tied_weights_are_read(tmp_path):
    tied = torch.arange(4.0)
    torch.save([tied, tied[2:]], tmp_path / "tied.pth")
    whole, part = read_weights_file(tmp_path / "tied.pth")
    assert part.tolist() == [2, 3]
    assert whole.untyped_storage().data_ptr() == part.untyped_storage().data_ptr()


@pytest.mark.parametrize("metadata", [None, {"format": "pt", "model": "resnet50"}])
def test_safetensors_are_read_with_their_metadata_whatever_the_suffix(tmp_path, metadata):
    tensors = {"w": torch.randn(3, 4), "h": torch.ones(2).half(), "b": torch.ones(2).bfloat16()}
    safetensors.torch.save_file(tensors, tmp_path / "model.pth", metadata)
    content = read_weights_file(tmp_path / "model.pth")
    assert (content["format"], content["metadata"]) == ("safetensors", metadata or {})
    assert content["tensors"].keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert content["tensors"][name].dtype == tensor.dtype
        assert torch.equal(content["tensors"][name], tensor)


def test_tensors_of_safetensors_outlive_their_file(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"w": torch.ones(4)}, path)
    tensor = read_weights_file(path)["tensors"]["w"]
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert tensor.tolist() == [1, 1, 1, 1]


def test_checkpoints_of_detlite_are_read(tmp_path):
    model = nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iteration": 7}
    identity = {"config": "seed: 0\n", "class_names": ["a"]}
    path = Checkpointer(tmp_path, keep=1, identity=identity).save("model_final", state)
    content = read_weights_file(path)
    assert (content["format"], content["class_names"], content["iteration"]) == (
        "detlite",
        ["a"],
        7,
    )
    assert torch.equal(content["model"]["weight"], model.weight)
    again = torch.optim.SGD(model.parameters(), lr=0.5)
    again.load_state_dict(content["optimizer"])
    assert repr(again.state_dict()) == repr(optimizer.state_dict())


def test_a_missing_file_is_told_with_its_neighbours_and_the_name_that_the_user_gave(tmp_path):
    for name in ("b.pth", "a.pkl", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"no checkpoint zoo://c; in that .* a.pkl, b.pth$"):
        read_weights_file(tmp_path / "c.pth", "zoo://c")
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nowhere/c.pth$"):
        read_weights_file(tmp_path / "nowhere" / "c.pth")


def test_a_folder_is_told_with_what_is_in_it(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"is no file.*in that folder: model.safetensors"):
        read_weights_file(tmp_path)


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    path = written(tmp_path / "secret.pth", b"x")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    # Files cannot be locked against root, who runs tests in containers.
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(CheckpointError, match=r"cannot read .*secret.pth: Permission denied"):
        read_weights_file(path)
