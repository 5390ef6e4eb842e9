"""Starts groups of tools/train_net.py as torchrun does, from a process that has imported it all.

Reads one JSON object a line: arguments, processes, output, environment, delays (by rank) and limit,
in seconds. Answers with the process ids, and with the exit codes when all have ended.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))

import torch.distributed
import torch.utils.tensorboard  # noqa: F401 - what a run imports late
import train_net

import detlite
import detlite.cli.training
from detlite.utils.cli import run_cli

# This process itself computes nothing with torch, so that it may fork.
detlite.build_trainer  # noqa: B018


def start(request, rank):
    """Fork one process of a group."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for standard in (1, 2):
            os.dup2(output, standard)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        number = request["processes"]
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(number), **request["environment"]}
        time.sleep(request["delays"].get(str(rank), 0))
        sys.argv = ["train_net.py", *request["arguments"]]
        run_cli(train_net.main, train_net.parser())
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main():
    """Serve until the end of the input."""
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        processes = [start(request, rank) for rank in range(request["processes"])]
        print(json.dumps(processes), flush=True)
        deadline = time.monotonic() + request["limit"]
        codes = {}
        while len(codes) < len(processes):
            for process in set(processes) - codes.keys():
                found, status = os.waitpid(process, os.WNOHANG)
                if found:
                    codes[process] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > deadline:
                    os.killpg(process, signal.SIGKILL)
            time.sleep(0.01)
        print(json.dumps([codes[process] for process in processes]), flush=True)


if __name__ == "__main__":
    main()
