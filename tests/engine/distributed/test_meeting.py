"""How processes find each other in a store that remembers those of an earlier start."""

import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from detlite.utils.distributed import _agree_on_name


def meet(store, number, late):
    """The name that each of some threads, as ranks, agrees on; one of them comes late."""
    names = [None] * number

    def come(rank):
        time.sleep(0.2 * (rank == late))
        # Each has a connection of its own, as processes have.
        own = dist.TCPStore("127.0.0.1", store.port, timeout=timedelta(seconds=20))
        names[rank] = _agree_on_name(own, rank, number, 20.0)

    threads = [threading.Thread(target=come, args=(rank,), daemon=True) for rank in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return names


@pytest.mark.parametrize("late", [0, 1])
def test_each_start_agrees_on_a_name_of_its_own(late):
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    # The last one is of another number of processes.
    starts = [meet(store, number, late) for number in (3, 3, 2)]
    for names in starts:
        assert len(set(names)) == 1
        assert names[0]
    assert len({names[0] for names in starts}) == 3


def test_a_process_that_never_comes_is_named():
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(TimeoutError, match=r"1 of 2 processes .* within 0\.1 s, .* rank 1"):
        _agree_on_name(store, 0, 2, 0.1)
