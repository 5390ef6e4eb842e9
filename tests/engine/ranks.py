"""Several processes of one test: functions that each rank runs, and what comes of them."""

import multiprocessing
import os
import pathlib
import sys
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist


def run_ranks(function, world, folder, *arguments):
    """What a function returns on each of ``world`` gloo processes, by rank.

    Processes meet, and leave their results, in ``folder``.
    """
    meeting = pathlib.Path(folder) / f"meeting_{function.__name__}_{world}"
    # Forked, so that torch is imported once for all of them.
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_run_rank, args=(function, arguments, rank, world, meeting))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    if codes != [0] * world:
        raise RuntimeError(f"{function.__name__} on {world} ranks ended with {codes}")
    return [torch.load(f"{meeting}_{rank}.pt", weights_only=False) for rank in range(world)]


def _run_rank(function, arguments, rank, world, meeting):
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            f"file://{meeting}",
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=120),
        )
        torch.save(function(*arguments), f"{meeting}_{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
