"""The real torchrun: a killed process, and a torchrun that is told to stop."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from detlite.checkpoint import compare_checkpoints

ROOT = pathlib.Path(__file__).parents[3]
LONG = ["solver.max_iter=24", "test.eval_period=0", "data.num_workers=1"]
FAULT = "train.hooks=[{name: RecordSamples}, {name: Fault, what: SIGKILL, rank: 1, iteration: 5}]"


@pytest.mark.slow
def test_torchrun_brings_the_group_back_and_stops_it_with_a_checkpoint(groups):
    ended = groups.run(2, *LONG, output="whole")
    assert ended.codes == [0, 0], ended.text
    run, output = groups.folder / "run", groups.folder / "torchrun.txt"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("--max-restarts=2", str(ROOT / "tools/train_net.py"), "--config-file"),
        *(str(groups.config), f"output_dir={run}", *LONG, FAULT),
    ]
    deadline = time.monotonic() + 180
    with output.open("wb") as file:
        agent = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def wait_for(text):
        while text not in output.read_text() and agent.poll() is None:
            assert time.monotonic() < deadline, output.read_text()[-3000:]
            time.sleep(0.02)
        assert text in output.read_text(), output.read_text()[-3000:]

    try:
        # It was not told to resume: it is the same torchrun.
        wait_for("going on at iteration")
        wait_for("iter: 8/24")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(agent.pid, signal.SIGKILL)
    text = output.read_text()
    assert text.count("; --resume goes on") == 1
    assert "forcefully exiting" not in text
    stopped = int(text.partition("stopped after iteration ")[2].partition(";")[0])
    assert 8 <= stopped < 23
    assert (run / f"model_{stopped:07d}.pth").is_file()
    ended = groups.run(2, *LONG, "--resume")
    assert ended.codes == [0, 0], ended.text
    assert f"going on at iteration {stopped + 1} " in ended.text
    for name in ("model_0000023.pth", "model_final.pth"):
        number, differences = compare_checkpoints(groups.folder / "whole" / name, run / name)
        assert number > 50
        assert differences == []
    assert groups.samples() == groups.samples("whole")
