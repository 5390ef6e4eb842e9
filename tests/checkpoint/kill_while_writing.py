"""Write checkpoints in processes that are killed again and again, and check what each one leaves.

Run as ``kill_while_writing.py FOLDER KILLS``; prints what it saw as one line of JSON. Every process
is forked from this one, so that none has to import anything.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

# One thread: those of OpenMP do not survive a fork, and the forked process would wait for them.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

from detlite.checkpoint import Checkpointer, RunLock, atomic_file

SIZE = 250_000  # 1 MB


def checkpointer():
    return Checkpointer(sys.argv[1], keep=2, identity={"config": "", "class_names": []})


def slow_disk(seconds):
    write = os.write
    atomic_file.os.write = lambda file, data: (time.sleep(seconds), write(file, data))[1]


def train(acknowledged):
    """Go on from the last good checkpoint, for ever; tell of every third that is complete."""
    with RunLock(sys.argv[1]):
        writer = checkpointer()
        writer.remove_leftovers()
        good = writer.last_good()
        iteration = good[1]["iteration"] + 1 if good else 0
        weight = good[1]["model"]["w"] if good else torch.full((SIZE,), -1.0)
        os.write(acknowledged, b"started\n")
        while True:
            weight += 1  # while the last one may still be being written
            writer.save_periodic(iteration, {"model": {"w": weight}, "optimizer": {}})
            if iteration % 3 == 0:
                writer.wait()
                os.write(acknowledged, f"{iteration}\n".encode())
            iteration += 1


def kill_one(choice, in_the_middle):
    """The last iteration that a process told of as complete before its end."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        os.close(reader)
        if in_the_middle:
            slow_disk(0.002)
        train(writer)
    os.close(writer)
    with open(reader) as told:
        assert told.readline() == "started\n"
        complete = [] if in_the_middle else [int(told.readline())]
        time.sleep(choice.random() * 0.06)
        deadline = time.monotonic() + 10
        while in_the_middle and time.monotonic() < deadline:
            if any(name.startswith(".model_") for name in os.listdir(sys.argv[1])):
                break
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return max([*complete, *map(int, told.read().split())], default=-1)


def end_in_an_error(iteration):
    """A process that ends while a slow disk takes its checkpoint, which shall be complete."""
    process = os.fork()
    if not process:
        slow_disk(0.01)
        weight = torch.full((SIZE,), float(iteration))
        checkpointer().save_periodic(iteration, {"model": {"w": weight}, "optimizer": {}})
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 3


def main():
    folder = Path(sys.argv[1])
    choice = random.Random(0)
    unfinished = 0
    newest = -1
    for kill in range(int(sys.argv[2])):
        newest = max(kill_one(choice, in_the_middle=kill % 2 == 0), newest)
        unfinished += bool(list(folder.glob(".model_*")))
        good = checkpointer().last_good()
        iteration = good[1]["iteration"] if good else -1
        assert iteration >= newest, f"{iteration} is left, {newest} was complete"
        if good:
            values = good[1]["model"]["w"].unique().tolist()
            assert values == [iteration], f"{values} at {iteration}"
            newest = iteration
    end_in_an_error(newest + 1)
    kept = sorted(path.name for path in folder.glob("model_*.pth"))
    assert len(kept) == 2, kept
    assert checkpointer().last_good()[1]["iteration"] == newest + 1
    print(json.dumps({"iterations": newest, "unfinished": unfinished}))


main()
