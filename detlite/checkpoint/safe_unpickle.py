"""Files of weights, of any framework, read without running code from them."""

import io
import math
import mmap
import os
import pickle
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import safetensors
import torch
from torch import Tensor

from ..errors import CheckpointError
from .file_format import (
    LEGACY_MAGIC,
    cut_short,
    foreign_format,
    is_text,
    open_legacy,
    open_torch_zip,
)
from .pickle_machine import PickleMachine, RefusedNamesError
from .pickle_values import ArrayData, DTypeData, Inert, StorageData

_MAX_TOLD = 6
_MAX_NAMES_TOLD = 60
_MAX_DEPTH = 100
_SUFFIXES = {".pth", ".pt", ".pkl", ".pyth", ".bin", ".ckpt", ".safetensors"}
# Larger tensors must have their elements in the file: a view may repeat one of them 10**12 times.
_MAX_EXPANDED_BYTES = 1 << 20


def read_weights_file(path: str | os.PathLike[str], name: str | None = None) -> Any:
    """Read a local file of weights: of torch.save, pickle, or safetensors, whatever its extension.

    Args:
        path: The file.
        name: What the user called it, for the errors; the path where it is not given.

    Returns:
        What was saved, as plain containers with tensors on the CPU as leaves; arrays of numpy are
        tensors too. Objects of mmdetection and its packages are None. A safetensors file comes as
        ``{"format": "safetensors", "metadata": {...}, "tensors": {...}}``.

    Raises:
        CheckpointError: The file is missing, broken, of another kind, or asks for code to run.
    """
    name = os.fspath(path) if name is None else name
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CheckpointError(f"{name} is no file; name a file of weights{_others_in(path)}")
        with open(path, "rb") as file:
            return _read(file, os.fspath(path), name)
    except FileNotFoundError:
        others = _others_in(Path(path).parent)
        raise CheckpointError(f"there is no checkpoint {name}{others}") from None
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(
            f"cannot read the checkpoint {name}: {reason}; see who may read it"
        ) from error


def _others_in(folder: str | os.PathLike[str]) -> str:
    folder = Path(folder)
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    others = [each for each in names if Path(each).suffix in _SUFFIXES]
    return f"; in that folder: {', '.join(others[:_MAX_TOLD])}" if others else ""


def _read(file: BinaryIO, path: str, name: str) -> Any:
    head = file.read(512)
    if not head:
        raise cut_short(name, "it is empty")
    if told := foreign_format(head):
        raise CheckpointError(f"{name} is {told}")
    try:
        # Mapped, so that a length in the file cannot ask for more memory than the file has bytes.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if head[:4] == b"PK\x03\x04":
                value = _read_torch_zip(file, content, name)
            elif head[8:9] == b"{" and not is_text(head[:8]):
                return _read_safetensors(path, head, len(content), name)
            elif LEGACY_MAGIC in head[:32]:
                machine = open_legacy(cast(BinaryIO, content), len(content)).machine
                value = _load_with_torch(file, machine)
            else:
                value = _read_pickle(content)
        return _Plain().of(value)
    except RefusedNamesError as error:
        raise CheckpointError(_refusal(error.names, name)) from error
    except EOFError as error:
        raise _text(head, name) if is_text(head) else cut_short(name, error) from error
    except pickle.UnpicklingError as error:
        if is_text(head):
            raise _text(head, name) from error
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{name} is no checkpoint that can be read safely: {reason}. Nothing of it was run; "
            "get it again, from a source that you trust"
        ) from error


def _text(head: bytes, name: str) -> CheckpointError:
    begin = " ".join(head[:60].decode("utf-8", "ignore").split())
    return CheckpointError(f"{name} is a text, not weights; it begins with: {begin}. Get it again")


def _read_torch_zip(file: BinaryIO, content: mmap.mmap, name: str) -> Any:
    archive = open_torch_zip(content, name)
    machine = PickleMachine(io.BytesIO(archive.pickled), with_storages=True)
    machine.load()
    for key, storage in machine.storages.items():
        size = archive.sizes.get(f"data/{key}", 0)
        if size != storage.nbytes:
            raise EOFError(f"its tensor data/{key[:40]} has {size} bytes, not {storage.nbytes}")
    return _load_with_torch(file, machine)


def _load_with_torch(file: BinaryIO, machine: PickleMachine) -> Any:
    """Load what the machine found harmless; ``weights_only`` is the second wall."""
    # torch asks its own list first; these are the names that are not on it.
    stand_ins: list[Any] = [
        (meaning, full)
        for full, meaning in machine.asked.items()
        if callable(meaning) and not full.startswith("torch.")
    ]
    file.seek(0)
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        warnings.simplefilter("ignore")
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
        except pickle.UnpicklingError as error:
            # Its own paragraph; those around it advise to load the file unsafely.
            told = [*str(error).split("\n\n"), "", ""][1]
            raise pickle.UnpicklingError(
                f"PyTorch's own reader refuses it ({told}), as it does another pickle protocol "
                "than that of torch.save"
            ) from error
        except Exception as error:
            raise EOFError(f"{type(error).__name__}: {error}") from error


def _load_from_bytes(raw: Any) -> StorageData:
    """The storage in a tensor that was pickled without torch.save: a legacy file within."""
    if not isinstance(raw, bytes):
        raise pickle.UnpicklingError("a storage that is not in bytes")
    inner = open_legacy(io.BytesIO(raw), len(raw))
    storage = inner.value
    if not isinstance(storage, StorageData) or len(inner.starts) != 1:
        raise pickle.UnpicklingError("a storage that is none")
    ((key, start),) = inner.starts.items()
    if inner.machine.storages[key].numel != storage.numel:
        raise pickle.UnpicklingError("a part of a storage")
    elements = bytearray(raw[start : start + storage.nbytes])
    content = torch.frombuffer(elements, dtype=torch.uint8) if elements else torch.empty(0)
    return StorageData(storage.dtype, storage.numel, content.untyped_storage())


def _read_pickle(content: mmap.mmap) -> Any:
    further = {"torch.storage._load_from_bytes": _load_from_bytes}
    value = PickleMachine(cast(BinaryIO, content), meanings=further).load()
    if content.tell() != len(content):
        raise EOFError(f"{len(content) - content.tell()} bytes follow its end")
    return value


def _read_safetensors(path: str, head: bytes, size: int, name: str) -> dict[str, Any]:
    header = int.from_bytes(head[:8], "little")
    if header > size - 8:
        raise cut_short(name, f"its header says {header} bytes, the whole file has {size}")
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            # Copies, since the library's tensors change when the file is written again.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except Exception as error:  # SafetensorError, and torch's for dtypes that it lacks
        raise cut_short(name, error) from error
    return {"format": "safetensors", "metadata": metadata, "tensors": tensors}


class _Plain:
    """Make plain containers and tensors of what was read; what is shared stays shared."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}
        self.depth = 0

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, str | int | float | complex | bytes):
            return value
        if id(value) not in self.done:
            if self.depth > _MAX_DEPTH:
                raise pickle.UnpicklingError(f"containers nested over {_MAX_DEPTH} deep")
            self.depth += 1
            self.done[id(value)] = self._converted(value)
            self.depth -= 1
        return self.done[id(value)]

    def _converted(self, value: Any) -> Any:
        if isinstance(value, dict):
            # Of dict itself, since a file may have put other things in the object's attributes.
            items = dict.items(value)
            return {key: self.of(each) for key, each in items if not isinstance(key, Inert)}
        if isinstance(value, list | set | frozenset):
            return [self.of(each) for each in value]
        if isinstance(value, tuple):
            return tuple(self.of(each) for each in value)
        if isinstance(value, Tensor):
            return value.detach()
        if isinstance(value, ArrayData):
            return _tensor_of(value.array)
        if isinstance(value, bytearray):
            return bytes(value)
        if isinstance(value, DTypeData | torch.dtype | torch.device):
            return str(value.dtype if isinstance(value, DTypeData) else value)
        if isinstance(value, Inert | type) or callable(value):
            return None
        raise pickle.UnpicklingError(f"a {type(value).__name__} outside of a tensor")


def _tensor_of(array: np.ndarray | None) -> Any:
    if array is None:
        raise pickle.UnpicklingError("a numpy array without content")
    if array.dtype.kind in "SU":
        return array.tolist()
    # A copy, since the bytes of a pickle are read-only.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _refusal(names: list[str], name: str) -> str:
    told = ", ".join(each[:100] for each in names[:_MAX_NAMES_TOLD])
    more = f" and {len(names) - _MAX_NAMES_TOLD} more" if len(names) > _MAX_NAMES_TOLD else ""
    if any(each.startswith("torch.nn.modules.") for each in names):
        return (
            f"{name} holds a pickled model object, whose classes would have to run as code: "
            f"{told}{more}. Nothing of it was run. Save its tensors alone, where those classes "
            "are at hand: torch.save(model.state_dict(), 'weights.pth')"
        )
    return (
        f"{name} is no checkpoint that can be read safely: it asks for {told}{more}, which weights "
        "do not need. Nothing of it was run. If you trust it, save its tensors alone, where it "
        "was made: torch.save(model.state_dict(), 'weights.pth')"
    )


def check_tensors(tensors: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The tensors of a state dict as float32, or int64 for ``num_batches_tracked``.

    Args:
        tensors: By their names, as `read_weights_file` gives them.
        name: The file, for the errors.

    Raises:
        CheckpointError: Some are no tensors, of other dtypes, or hold NaN or infinity.
    """
    problems = {key: told for key, value in tensors.items() if (told := _problem(key, value))}
    if problems:
        told = ", ".join(f"{key} ({problems[key]})" for key in list(problems)[:_MAX_TOLD])
        raise CheckpointError(
            f"{name}: {len(problems)} of its {len(tensors)} tensors are no weights: {told}"
            + (", ..." if len(problems) > _MAX_TOLD else "")
            + ". Weights are finite floating-point numbers; save them so, without quantization"
        )
    return {
        key: value.to(torch.float32 if value.is_floating_point() else torch.int64).contiguous()
        for key, value in tensors.items()
    }


def _problem(key: Any, value: Any) -> str | None:
    """Why a value is no weight; None where it is one."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.is_quantized or value.layout is not torch.strided or value.device.type != "cpu":
        layout = "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")
        return layout if value.device.type == "cpu" else f"on the device {value.device}"
    # In Python's integers: the product of a made-up shape overflows.
    nbytes = math.prod(value.shape) * value.element_size()
    if nbytes > max(value.untyped_storage().nbytes(), _MAX_EXPANDED_BYTES):
        return f"shape {tuple(value.shape)}, of which the file holds only a part"
    if str(key).endswith("num_batches_tracked") and value.dtype in (torch.int64, torch.int32):
        return None
    if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return str(value.dtype).removeprefix("torch.")
    count = int((~value.to(torch.float32).isfinite()).sum())
    return f"NaN or infinity at {count} of {value.numel()} places" if count else None
