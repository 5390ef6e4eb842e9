"""Groups of processes that train one model, without torchrun's slow start."""

import json
import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
import torch.distributed

HERE = pathlib.Path(__file__).parent
CONFIG = HERE / "tiny.yaml"


@dataclass
class Ended:
    """What is left of a group: exit codes by rank, and all that it has printed."""

    codes: list[int]
    text: str


@dataclass
class Groups:
    """Starts groups one after the other; see warm_start.py."""

    folder: pathlib.Path
    server: subprocess.Popen
    processes: list[int] = field(default_factory=list)
    store: torch.distributed.TCPStore | None = None
    number: int = 0
    config: pathlib.Path = CONFIG

    def start(
        self, processes, *arguments, output="run", environment=(), delays=(), same_store=False
    ):
        """Start a group that writes into ``folder/output``, beside a store such as torchrun's."""
        self.number += 1
        if not same_store:
            self.store = torch.distributed.TCPStore(
                "127.0.0.1", 0, is_master=True, wait_for_workers=False
            )
        request = {
            "processes": processes,
            "arguments": ["--config-file", str(self.config), f"output_dir={self.folder / output}"],
            "output": str(self.folder / f"output_{self.number}.txt"),
            "environment": {
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(self.store.port),
                **dict(environment),
            },
            "delays": dict(delays),
            "limit": 90,
        }
        request["arguments"] += arguments
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        self.processes = json.loads(self.server.stdout.readline())

    def wait(self):
        """Wait for its end."""
        codes = json.loads(self.server.stdout.readline())
        return Ended(codes, self.text())

    def text(self):
        """What it has printed."""
        return (self.folder / f"output_{self.number}.txt").read_text()

    def run(self, processes, *arguments, **options):
        """Start a group and wait for its end."""
        self.start(processes, *arguments, **options)
        return self.wait()

    def samples(self, output="run"):
        """The global batches of a run by iteration, and their losses; see planted.py."""
        shares, losses = {}, {}
        for path in sorted((self.folder / output / "samples").glob("rank_*.jsonl")):
            rank = int(path.stem.rpartition("_")[2])
            for line in path.read_text().splitlines():
                iteration, loss, samples = json.loads(line)
                shares.setdefault(iteration, {})[rank] = samples
                losses[iteration] = loss
        batches = {}
        for iteration, by_rank in shares.items():
            # Sample i of rank r is the batch's i * number + r.
            longest = max(map(len, by_rank.values()))
            turns = [by_rank[r][i : i + 1] for i in range(longest) for r in sorted(by_rank)]
            batches[iteration] = [tuple(sample) for turn in turns for sample in turn]
        return batches, losses


@pytest.fixture(scope="module")
def warm_server():
    """The process that groups are forked from."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TORCHELASTIC")}
    server = subprocess.Popen(
        [sys.executable, HERE / "warm_start.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1"},
    )
    assert server.stdout.readline() == "ready\n"
    yield server
    server.stdin.close()
    server.stdout.close()
    assert server.wait(60) == 0


@pytest.fixture
def groups(warm_server, tmp_path):
    """Start groups of processes that write below ``tmp_path``."""
    return Groups(tmp_path, warm_server)
