"""One training on two machines, which are network namespaces here, with a cable that is pulled."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from detlite.checkpoint import compare_checkpoints

ROOT = pathlib.Path(__file__).parents[3]
PORT = 29400
LIMIT = 240  # seconds for everything, on a machine that is busy
ARGUMENTS = [
    "solver.max_iter=40",
    "solver.schedule.warmup_iters=2",
    "data.batch_size=5",
    "test.eval_period=0",
    "train.checkpoint_period=5",
    "train.log_period=10",
]


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


class TwoMachines:
    """Machines 1 and 2 at 10.77.0.1 and .2, and 0 as the switch between them."""

    def __init__(self):
        self.names = [f"detlite_{os.getpid()}_{i}" for i in range(3)]
        self.processes = []

    def build(self):
        switch = self.names[0]
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for i in (1, 2):
            machine = self.names[i]
            plug = ("peer", "name", f"port{i}", "netns", switch)
            ip("link", "add", "cable", "netns", machine, "type", "veth", *plug)
            ip("-n", machine, "address", "add", f"10.77.0.{i}/24", "dev", "cable")
            ip("-n", machine, "link", "set", "cable", "up")
            ip("-n", switch, "link", "set", f"port{i}", "master", "bridge", "up")

    def start(self, i, command, output):
        """Run a command on a machine until it succeeds, as a scheduler or systemd does."""
        again = 'for k in 1 2 3 4 5; do "$@" && exit 0; sleep 1; done; exit 1'
        with output.open("ab") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.names[i], "bash", "-c", again, "bash", *command],
                stdout=file,
                stderr=file,
                env={**os.environ, "GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self.processes.append(process)

    def lose_packets(self, lose):
        """The switch forgets the second machine; nobody is told."""
        where = ("nomaster",) if lose else ("master", "bridge")
        ip("-n", self.names[0], "link", "set", "port2", *where)

    def take_down(self, down):
        """The second machine's own link goes down."""
        ip("-n", self.names[2], "link", "set", "cable", "down" if down else "up")

    def remove(self):
        for name in self.names:
            for process in ip("netns", "pids", name, check=False).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
        for process in self.processes:
            process.wait(30)
        for name in self.names:
            ip("netns", "delete", name, check=False)


@pytest.fixture
def machines():
    """Two of them; gone afterwards, whatever happens."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the command ip (iproute2)")
    made = TwoMachines()
    try:
        try:
            made.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield made
    finally:
        made.remove()


def torchrun(i, config, output_dir):
    """What is started on machine ``i``."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
        *("--max-restarts=5", "--rdzv-backend=c10d", "--rdzv-id=cut"),
        *(f"--rdzv-endpoint=10.77.0.1:{PORT}", f"--local-addr=10.77.0.{i}"),
        f"--rdzv-conf=is_host={int(i == 1)},read_timeout=10,keep_alive_interval=1",
        *(str(ROOT / "tools/train_net.py"), "--config-file", str(config)),
        *(f"output_dir={output_dir}", "train.collective_timeout=3", "--resume", *ARGUMENTS),
    ]


@pytest.mark.slow
def test_a_training_on_two_machines_survives_the_loss_of_their_link(groups, machines):
    ended = groups.run(2, *ARGUMENTS, output="whole")
    assert ended.codes == [0, 0], ended.text
    deadline = time.monotonic() + LIMIT
    run, outputs = groups.folder / "run", [groups.folder / f"machine_{i}.txt" for i in (1, 2)]

    def text():
        return "".join(path.read_text(errors="replace") for path in outputs)

    def wait_for(condition, what):
        while not condition():
            assert time.monotonic() < deadline, f"{what}, after {LIMIT} s:\n{text()[-5000:]}"
            time.sleep(0.05)

    for i, output in zip((1, 2), outputs, strict=True):
        machines.start(i, torchrun(i, groups.config, run), output)
    for starts, cut in enumerate((machines.lose_packets, machines.take_down), start=1):
        # A step behind a checkpoint of this start.
        wait_for(lambda n=starts: text().count("saved ") >= 2 * n, "no second checkpoint")
        cut(True)
        # Both have noticed by themselves, whoever was first.
        wait_for(lambda n=starts: text().count("Error: ") >= 2 * n, "nobody notices the cut")
        assert (run / "model_final.pth").exists() is False
        cut(False)
    for process in machines.processes:
        wait_for(lambda p=process: p.poll() is not None, "no recovery")
    assert [process.returncode for process in machines.processes] == [0, 0], text()[-5000:]
    assert text().count("going on at iteration") >= 2
    for name in ("model_0000039.pth", "model_final.pth"):
        number, differences = compare_checkpoints(groups.folder / "whole" / name, run / name)
        assert number > 50
        assert differences == []
    assert groups.samples() == groups.samples("whole")
