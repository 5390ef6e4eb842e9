"""What the names in a pickle mean when it is read as data: containers, arrays and tensors.

Nothing that a pickle names is imported: each name that weights need stands in `MEANINGS` with a
function or a class of this file.
"""

import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_MAX_DIMENSIONS = 32


class Inert:
    """In place of an object whose class is not wanted here; takes everything and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def check_key(key: Any) -> Any:
    """A key of a dict or a member of a set, which must be plain.

    Hashing tuples within tuples within tuples would overflow the stack of the interpreter.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if not all(part is None or isinstance(part, str | int | float | bytes) for part in parts):
        raise pickle.UnpicklingError(f"a key of type {type(key).__name__}")
    return key


class OrderedDictData(dict[Any, Any]):
    """An OrderedDict of a pickle; what it carries besides its items is dropped."""

    def __init__(self, items: Any = ()) -> None:
        if not isinstance(items, list | tuple | dict):
            raise pickle.UnpicklingError("a dict of something else than pairs")
        pairs = items.items() if isinstance(items, dict) else items
        super().__init__((check_key(key), value) for key, value in pairs)

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True, eq=False)
class StorageData:
    """The memory of tensors; ``content`` is None where only sizes are checked."""

    dtype: torch.dtype
    numel: int
    content: torch.UntypedStorage | None = None

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class DTypeData:
    """A dtype of numpy: numbers, or strings of fixed length; objects and records are refused."""

    _CODE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6})")

    def __init__(self, code: str, *flags: Any) -> None:
        code = code.decode("latin-1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not self._CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"a numpy array of dtype {str(code)[:40]!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        _, order, *rest = state
        if any(part is not None for part in rest[:3]):
            raise pickle.UnpicklingError("a numpy array of records")
        if order in ("<", ">", b"<", b">"):
            self.dtype = self.dtype.newbyteorder("<" if order in ("<", b"<") else ">")


class ArrayData:
    """A numpy array of a pickle."""

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        shape, dtype, is_fortran, raw = state[-4:]
        self.fill(raw, dtype, shape, "F" if is_fortran else "C")

    def fill(self, raw: Any, dtype: Any, shape: Any, order: str) -> None:
        """Take the bytes of an array, which must be as many as its shape says."""
        if isinstance(raw, str):  # bytes of Python 2
            raw = raw.encode("latin-1")
        if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, DTypeData):
            raise pickle.UnpicklingError("a numpy array of objects")
        shape = _sizes(shape)
        if math.prod(shape) * dtype.dtype.itemsize != len(raw):
            raise pickle.UnpicklingError(f"a numpy array {shape} of {len(raw)} bytes")
        self.array = np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def _sizes(sizes: Any) -> tuple[int, ...]:
    sizes = (sizes,) if isinstance(sizes, int) else sizes
    if not isinstance(sizes, tuple | list) or len(sizes) > _MAX_DIMENSIONS:
        raise pickle.UnpicklingError("a shape that is none")
    if not all(isinstance(size, int) and 0 <= size < 2**62 for size in sizes):
        raise pickle.UnpicklingError(f"the shape {str(sizes)[:80]}")
    return tuple(sizes)


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> ArrayData:
    if subtype is not ArrayData or _sizes(shape) != (0,):
        raise pickle.UnpicklingError("a numpy array of an unusual class or start")
    return ArrayData()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: str, axes: Any = None) -> ArrayData:
    data = ArrayData()
    data.fill(raw, dtype, shape, "F" if order == "F" else "C")
    if axes is not None and data.array is not None:
        data.array = data.array.transpose(_sizes(axes))
    return data


def _scalar(dtype: Any, raw: Any) -> Any:
    data = ArrayData()
    data.fill(raw, dtype, (), "C")
    assert data.array is not None
    return data.array.item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str):
        raise pickle.UnpicklingError(f"bytes made of a {type(text).__name__}")
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {str(encoding)[:40]!r}")
    return text.encode("latin-1")


def _bytes(content: Any = b"", *encoding: Any) -> bytes:
    return bytes(content) if isinstance(content, bytes | bytearray) else _encode(content, *encoding)


def _set(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise pickle.UnpicklingError("a set of something else than a list")
    return {check_key(item) for item in items}


def _defaultdict(*factory: Any) -> dict[Any, Any]:
    return {}


def _getattr(owner: Any, name: Any) -> Inert:
    if not (owner is Inert or isinstance(owner, Inert)) or not isinstance(name, str):
        raise pickle.UnpicklingError("getattr of something that is no class of mmdetection")
    if name.startswith("__"):
        raise pickle.UnpicklingError(f"getattr of the name {name[:40]!r}, which leads to code")
    return Inert()


def _device(*parts: Any) -> str:
    return ":".join(map(str, parts))


def _view(storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None) -> Any:
    if not isinstance(storage, StorageData):
        raise pickle.UnpicklingError("a tensor without a storage")
    dtype = dtype or storage.dtype
    (offset,), size, stride = _sizes(offset), _sizes(size), _sizes(stride)
    if len(size) != len(stride):
        raise pickle.UnpicklingError(f"a tensor of shape {size} with the strides {stride}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    beyond = 0 not in size and last >= storage.nbytes // dtype.itemsize
    if beyond or math.prod(size) >= 2**62:
        raise pickle.UnpicklingError(
            f"a tensor of shape {size} in a storage of {storage.nbytes} bytes, which is too small"
        )
    if storage.content is None:
        return Inert()
    return torch.empty(0, dtype=dtype).set_(storage.content, offset, size, stride)  # type: ignore[call-overload]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    return _view(storage, offset, size, stride, None)


def _rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Any:
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a tensor without a dtype")
    return _view(storage, offset, size, stride, dtype)


def _rebuild_parameter(data: Any, *rest: Any) -> Any:
    return data


_REBUILD = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    if not any(function is known for known in _REBUILD.values()):
        raise pickle.UnpicklingError("a tensor rebuilt by something else than PyTorch")
    return function(*arguments)


_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_NUMPY = {
    "multiarray._reconstruct": _reconstruct,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _frombuffer,
}
# Classes that weights files name without a need for what they do.
_INERT_NAMES = ["argparse.Namespace"] + [
    f"builtins.{name}"
    for name in ("bool", "dict", "float", "int", "list", "object", "range", "slice", "str", "tuple")
]

# What the names in a pickle mean here. Tensor and Parameter are named but never called.
MEANINGS: Mapping[str, Any] = {
    **dict.fromkeys(_INERT_NAMES, Inert),
    **{f"{core}.{name}": f for core in ("numpy.core", "numpy._core") for name, f in _NUMPY.items()},
    **{f"torch.{name}Storage": dtype for name, dtype in _STORAGES.items()},
    **_DTYPES,
    **_REBUILD,
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "builtins.complex": complex,
    "builtins.frozenset": _set,
    "builtins.getattr": _getattr,
    "builtins.set": _set,
    "collections.Counter": OrderedDictData,
    "collections.OrderedDict": OrderedDictData,
    "collections.defaultdict": _defaultdict,
    "numpy.dtype": DTypeData,
    "numpy.ndarray": ArrayData,
    "torch.Size": _sizes,
    "torch.Tensor": "torch.Tensor",
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.device": _device,
    "torch.nn.parameter.Parameter": "torch.nn.Parameter",
    "torch.storage.UntypedStorage": torch.uint8,
}
