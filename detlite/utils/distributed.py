"""The processes of a run: who am I, how many are we, and how to gather what each one has."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import UserError

T = TypeVar("T")

# Seconds in which all processes must come up; machines import and read at different speeds.
_MEETING_TIMEOUT = 600.0

# The store of the group, while there is one: what processes have told the user and each other.
_store: list[Any] = []


def world_size() -> int:
    """Number of processes; 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process; 0 outside a distributed run."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def local_rank() -> int:
    """Index of this process on its machine; 0 outside a distributed run."""
    return int(os.environ.get("LOCAL_RANK", 0)) if is_launched() else 0


def is_launched() -> bool:
    """Whether torchrun, or something that sets its variables, has started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def is_main_process() -> bool:
    """Whether this process is the one that writes files and logs."""
    return rank() == 0


def setup_distributed(device_type: str, timeout: float) -> None:
    """Join the processes that torchrun has started; does nothing where it has not.

    Args:
        device_type: "cuda" for NCCL beside gloo, which carries what is on the CPU; else gloo.
        timeout: Seconds after which a process gives up waiting for the others; to begin with, it
            waits for as long as torchrun does.
    """
    if not is_launched() or dist.is_initialized():
        return
    if device_type == "cuda":
        torch.cuda.set_device(local_rank())
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    patience = max(timeout, _MEETING_TIMEOUT)
    store, own, number = next(dist.rendezvous("env://", timeout=timedelta(seconds=patience)))
    store.set_timeout(timedelta(seconds=patience))
    store = dist.PrefixStore(_agree_on_name(store, own, number, patience), store)
    within = timedelta(seconds=timeout)
    dist.init_process_group(backend, store=store, rank=own, world_size=number, timeout=within)
    _store.append(store)


def _agree_on_name(store: "dist.Store", own: int, number: int, timeout: float) -> str:
    """A name that the processes of this start, and none of an earlier one, know.

    torchrun's store outlives its processes, and with it the addresses of those that died: who is
    quicker than the first process would call the dead (pytorch issue 135712). The number of the
    start is no such name, as each machine counts for itself.
    """
    if own:
        mine = uuid.uuid4().hex
        store.set(f"start/{own}", mine)
        name = store.get(f"start/name for {mine}").decode()
        store.set(f"start/{name}/{own}", "")
        return name
    name = uuid.uuid4().hex
    deadline = time.monotonic() + timeout
    waiting = list(range(1, number))
    while waiting:
        for other in waiting:
            # May be left from an earlier start, then it changes soon.
            if store.check([f"start/{other}"]):
                asked = store.get(f"start/{other}").decode()
                store.set(f"start/name for {asked}", name)
        waiting = [other for other in waiting if not store.check([f"start/{name}/{other}"])]
        if waiting and time.monotonic() > deadline:
            raise TimeoutError(
                f"{len(waiting)} of {number} processes have not come within {timeout:g} s, "
                f"the first is rank {waiting[0]}"
            )
        time.sleep(0.01 if waiting else 0)
    return name


def leave_distributed() -> None:
    """Leave the group that ``setup_distributed`` has joined."""
    if dist.is_available() and dist.is_initialized():
        _store.clear()
        dist.destroy_process_group()


def launch_name() -> str | None:
    """The same whenever one torchrun starts this process again, never for another torchrun.

    Its first line is the rendezvous id. None if something else has started the process.
    """
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if run_id is None else f"{run_id}\n{socket.gethostname()} {os.getppid()}\n"


def is_first_to_say(text: str) -> bool:
    """Whether a process is the first to say something: all may find the same mistake at once."""
    if not is_launched():
        return True
    if not _store:
        # Not connected yet; the processes of a machine have read the same files.
        return local_rank() == 0
    me = str(rank())
    try:
        said = _store[0].compare_set(f"said {text}", "", me)
    except RuntimeError:  # torchrun has ended
        return True
    return bool(said.decode() == me)


def tell_ranks(topic: str) -> None:
    """Let every process know of something at its next ``was_told``; nobody waits for anybody."""
    if _store:
        with suppress(RuntimeError):  # torchrun has ended
            _store[0].set(f"told {topic}", "")


def was_told(topic: str) -> bool:
    """Whether one of the processes has told of it, where ``setup_distributed`` joined them."""
    try:
        return bool(_store) and bool(_store[0].check([f"told {topic}"]))
    except RuntimeError:  # torchrun has ended
        return False


def on_main_process(work: Callable[[], T]) -> T:
    """What ``work`` returns in the main process, on every rank; it needs pickle.

    Raises:
        UserError: As the main process found it, on every rank.
    """
    value: Any = None
    error: UserError | None = None
    if is_main_process():
        try:
            value = work()
        except UserError as found:
            error = found
    value, error = broadcast_object((value, error))
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def gather_objects(value: Any) -> list[Any]:
    """The ``value`` of every rank, by rank, on every rank. Values need pickle."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_object(value: Any) -> Any:
    """The ``value`` of the main process, on every rank. It needs pickle."""
    if world_size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def sum_over_ranks(value: Tensor) -> Tensor:
    """Add up a tensor over the ranks, in place; on its own device."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def max_over_ranks(values: Sequence[int]) -> list[int]:
    """The greatest of each number over the ranks, without touching a GPU."""
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [int(value) for value in tensor.tolist()]
