"""The state of a run at one moment: plain values, and copies of its tensors on the CPU."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError

_MAX_DEPTH = 90  # the reader takes 100
Place = tuple[str, ...]


class Snapshot:
    """Copies of a state that nothing changes afterwards.

    The copies of the last time are written over: memory that is new to the process costs ten times
    as much as filling it again. So only the newest snapshot of an object is valid.
    """

    def __init__(self) -> None:
        self._copies: dict[Place, tuple[Any, Tensor]] = {}

    def take(self, state: Any) -> Any:
        """Copy a state: plain containers and values, tensors on the CPU.

        Tensors that are one and the same stay so, and keep their strides where they are dense.

        Raises:
            CheckpointError: A checkpoint cannot hold a value; the message says where it is.
        """
        copies: dict[Place, tuple[Any, Tensor]] = {}
        # Copies with their sources, so that no other tensor gets the memory of one meanwhile.
        same: dict[Any, tuple[Tensor, Tensor]] = {}
        devices = set()

        def copy(tensor: Tensor, place: Place) -> Tensor:
            shape = (tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
            memory = (tensor.data_ptr(), shape)
            if memory not in same or not tensor.numel():
                known, target = self._copies.get(place, (None, tensor))
                if known != shape:
                    target = _memory_for(tensor)
                target.copy_(tensor, non_blocking=tensor.is_cuda)
                copies[place] = (shape, target)
                same[memory] = target, tensor
                if tensor.is_cuda:
                    devices.add(tensor.device)
            return same[memory][0]

        with torch.no_grad():
            plain = plain_state(state, copy)
        for device in devices:
            torch.cuda.current_stream(device).synchronize()
        self._copies = copies
        return plain


def _memory_for(tensor: Tensor) -> Tensor:
    if tensor.is_cuda:
        # Pinned, so that the GPU can fill it on its own; a system may have little of that.
        with contextlib.suppress(RuntimeError):
            return torch.empty_like(tensor, device="cpu", pin_memory=True)
    return torch.empty_like(tensor, device="cpu")


def plain_state(value: Any, tensor_of: Callable[[Tensor, Place], Tensor], place: Place = ()) -> Any:
    """A state as what a checkpoint can hold, to be read back without running code.

    Args:
        value: Containers of Python and torch, with tensors, arrays, numbers and strings.
        tensor_of: Makes the tensor that is held of one that is found, detached, at a place.
        place: The keys that lead to the value.

    Raises:
        CheckpointError: Something else is among it, or containers hold each other.
    """
    if len(place) > _MAX_DEPTH:
        raise CheckpointError(f"{_told(place[:6])}... is nested over {_MAX_DEPTH} deep")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    # Such as an enum's members, which would be written by the name of their class.
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value) if kind is not str else str.__str__(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        value = torch.from_numpy(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise _not_held(value, place)
        return tensor_of(value.detach(), place)
    if isinstance(value, Mapping):
        for key in value:
            _check_key(key, place)
        return {
            key: plain_state(each, tensor_of, (*place, str(key))) for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        parts = [plain_state(v, tensor_of, (*place, str(i))) for i, v in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    raise _not_held(value, place)


def _check_key(key: Any, place: Place) -> None:
    parts = key if type(key) is tuple else (key,)
    if not all(part is None or type(part) in (str, int, float, bool, bytes) for part in parts):
        raise CheckpointError(
            f"a checkpoint cannot hold the key {key!r:.60} in {_told(place)}, a "
            f"{type(key).__name__}; let state_dict() use strings or numbers as keys"
        )


def _not_held(value: Any, place: Place) -> CheckpointError:
    return CheckpointError(
        f"a checkpoint cannot hold {_told(place)}, a {type(value).__module__}."
        f"{type(value).__name__}: reading it back would have to run code. Let state_dict() return "
        "dicts, lists, tuples, dense tensors, numbers and strings"
    )


def _told(place: Place) -> str:
    return " > ".join(place) or "the state"
