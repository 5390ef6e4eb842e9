"""What peers leave in their files: strings of Python 2, objects of mmengine; read without them."""

import collections
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import torch

from detlite.checkpoint.safe_unpickle import read_weights_file
from detlite.errors import CheckpointError


def python_2_pickle(protocol):
    """``{"conv1_w": arange(-2, 3) as float32, 3: u"grün", "long": 5L}`` as Python 2 writes it."""
    raw = np.arange(-2, 3, dtype="<f4").tobytes()
    if protocol == 0:

        def string(value):
            escaped = value.decode("latin-1").encode("unicode_escape").replace(b"'", b"\\'")
            return b"S'" + escaped + b"'\np1\n"

        numbers = [b"I%d\n" % n for n in (0, 1, 5, 3, -1)]
        unicode, long, three = b"Vgr\\u00fcn\n", b"L5L\n", b"I3\n"
    else:

        def string(value):
            if len(value) < 256:
                return b"U" + bytes([len(value)]) + value + b"q\x01"
            return b"T" + struct.pack("<i", len(value)) + value

        numbers = [b"K\x00", b"K\x01", b"K\x05", b"K\x03", b"J\xff\xff\xff\xff"]
        unicode, long, three = b"X\x05\0\0\0gr\xc3\xbcn", b"\x8a\x01\x05", b"K\x03"
    zero, one, five, version, minus = numbers
    start = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + zero + b"t" + string(b"b")
    )
    kind = b"cnumpy\ndtype\n(" + string(b"f4") + zero + one + b"tR(" + version + string(b"<")
    kind += b"NNN" + minus * 2 + zero + b"tb"
    array = start + b"tR(" + one + b"(" + five + b"t" + kind + zero + string(raw) + b"tb"
    items = string(b"conv1_w") + array + b"s" + three + unicode + b"s" + string(b"long") + long
    return (b"\x80\x02" if protocol else b"") + b"(d" + items + b"s."


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_of_python_2_are_read(tmp_path, protocol):
    content = python_2_pickle(protocol)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(content)
    expected = pickle.loads(content, encoding="latin1")
    got = read_weights_file(path)
    assert got["conv1_w"].dtype == torch.float32
    assert got["conv1_w"].numpy().tobytes() == expected["conv1_w"].tobytes()
    assert got["conv1_w"].tolist() == [-2, -1, 0, 1, 2]
    assert got[3] == expected[3] == "grün"
    assert got["long"] == 5


@pytest.fixture
def mm_checkpoint(monkeypatch):
    """What mmengine saves besides weights: objects of its classes, and references to methods."""
    package = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self):
            self.log = np.arange(3.0)
            self.methods = {"mean": HistoryBuffer.mean}
            self.kind = np.dtype("f8")

        def mean(self):
            return 0

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = package.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__module__ = package.__name__
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    package.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    return {
        "meta": {"epoch": 12, "seed": np.int64(5), "dataset_meta": {"CLASSES": ("a", "b")}},
        "state_dict": collections.OrderedDict(w=torch.arange(3.0)),
        "message_hub": {
            "log_scalars": {"train/loss": HistoryBuffer()},
            "runtime_info": {"iter": 9},
        },
    }


@pytest.mark.parametrize(
    "write",
    [
        torch.save,
        lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
        lambda value, path: path.write_bytes(pickle.dumps(value, 2)),
        lambda value, path: path.write_bytes(pickle.dumps(value, 5)),
    ],
    ids=["zip", "legacy", "pickle2", "pickle5"],
)
def test_objects_of_mmengine_come_as_none_without_mmengine(
    tmp_path, monkeypatch, mm_checkpoint, write
):
    path = tmp_path / "epoch_12.pth"
    write(mm_checkpoint, path)
    monkeypatch.undo()
    before = set(torch.serialization.get_safe_globals())
    content = read_weights_file(path)
    assert content["message_hub"] == {
        "log_scalars": {"train/loss": None},
        "runtime_info": {"iter": 9},
    }
    assert content["meta"] == {"epoch": 12, "seed": 5, "dataset_meta": {"CLASSES": ("a", "b")}}
    assert content["state_dict"]["w"].tolist() == [0, 1, 2]
    assert not [name for name in sys.modules if name.startswith("mmengine")]
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_refused_file_leaves_torch_as_it_was(tmp_path, mm_checkpoint):
    torch.save({**mm_checkpoint, "w": torch.ones(3).to_sparse()}, tmp_path / "sparse.pth")
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(CheckpointError, match=r"sparse.pth .*asks for .*_rebuild_sparse_tensor"):
        read_weights_file(tmp_path / "sparse.pth")
    assert set(torch.serialization.get_safe_globals()) == before
