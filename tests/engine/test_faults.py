"""What may befall a run, end to end: it loses no more than it must, and says what it lost."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from detlite.checkpoint import RunLock
from detlite.config.loader import import_component
from detlite.engine.hooks import stop_signals, validation_loss
from detlite.evaluation import COCOEvaluator

runs = import_component(str(pathlib.Path(__file__).with_name("fault_runs.py")), "the tests")
train, checkpoints, whole = runs.run_train_net, runs.checkpoints, runs.whole


# ---- signals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "iteration"),
    [
        ("SIGTERM", 2),
        pytest.param("SIGINT", 0, marks=pytest.mark.slow),
        pytest.param("SIGTERM", 5, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_run_after_the_step_and_it_goes_on_exactly(
    name, iteration, whole, tmp_path, capsys
):
    actions = {iteration: runs.send(getattr(signal, name))}
    assert train(tmp_path / "run", actions=actions) == 75
    told = capsys.readouterr().err
    assert f"{name}: stopping after iteration {iteration}, with a checkpoint" in told
    assert f"stopped after iteration {iteration}; --resume goes on" in told
    assert checkpoints(tmp_path / "run")[-1] == iteration
    assert not (tmp_path / "run" / "model_final.pth").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert train(tmp_path / "run", "--resume") == 0
    assert runs.differences(whole, tmp_path / "run") == []


def interrupt_once(monkeypatch, owner, name, number, call):
    """Send a signal to this process within one call of a function, counted from 1."""
    function, calls = getattr(owner, name), []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return function(*arguments)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_evaluation_after_its_batch_and_resume_repeats_it(
    number, whole, tmp_path, monkeypatch, capsys
):
    interrupt_once(monkeypatch, COCOEvaluator, "process", number, call=1)
    run = tmp_path / "run"
    assert train(run, "test.batch_size=1") == 75
    told = capsys.readouterr().err
    assert "stopping in Evaluation, which --resume repeats, after iteration 5" in told
    assert "stopped after iteration 5; --resume goes on" in told
    assert checkpoints(run)[-1] == 5
    assert not list(run.glob("inference/**/*.json"))
    assert "bbox/AP" not in runs.metrics(run)[-1]
    assert json.loads((run / "summary.json").read_text())["iterations"] == 6
    assert train(run, "--resume") == 0
    assert runs.differences(whole, run) == []


def test_a_signal_ends_the_validation_loss_and_nothing_is_measured_twice(
    tmp_path, monkeypatch, capsys
):
    keys = ["test.eval_period=2", "train.hooks=[{name: ValidationLoss}]", "test.batch_size=1"]
    assert train(tmp_path / "whole", *keys) == 0
    interrupt_once(monkeypatch, validation_loss, "_losses_of", signal.SIGTERM, call=3)
    assert train(tmp_path / "run", *keys) == 75
    assert checkpoints(tmp_path / "run")[-1] == 3
    assert "stopping in ValidationLoss" in capsys.readouterr().err
    assert train(tmp_path / "run", *keys, "--resume") == 0
    assert runs.differences(tmp_path / "whole", tmp_path / "run") == []
    assert capsys.readouterr().err.count("inference done") == 1  # the last; its first two are kept


def test_sigusr1_writes_a_checkpoint_and_the_run_goes_on(whole, tmp_path, capsys):
    actions = {2: runs.send(signal.SIGUSR1)}
    assert train(tmp_path / "run", "train.checkpoint_period=100", actions=actions) == 0
    assert checkpoints(tmp_path / "run") == [2, 5]
    assert "SIGUSR1: writing a checkpoint" in capsys.readouterr().err
    assert runs.differences(whole, tmp_path / "run") == []


def test_a_second_ctrl_c_ends_the_run_at_once(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stop_signals, "_SECOND_AFTER", 0.01)

    def twice(trainer):
        runs.send(signal.SIGINT)(trainer)
        time.sleep(0.02)
        runs.send(signal.SIGINT)(trainer)

    assert train(tmp_path / "run", actions={3: twice}) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert checkpoints(tmp_path / "run") == [1]
    assert train(tmp_path / "run", "--resume") == 0
    assert runs.differences(whole, tmp_path / "run") == []


IN_A_GROUP = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
import fault_runs
number = getattr(signal, sys.argv[3])
# To all processes of the session, as a terminal or a scheduler does.
actions = {2: lambda trainer: os.killpg(0, number)}
folder = pathlib.Path(sys.argv[2])
sys.exit(fault_runs.run_train_net(folder, "data.num_workers=2", actions=actions))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_to_the_workers_too_changes_nothing(name, whole, tmp_path):
    here = pathlib.Path(__file__).parent
    command = [sys.executable, "-c", IN_A_GROUP, here, tmp_path / "run", name]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, start_new_session=True
    )
    assert done.returncode == 75, done.stderr
    assert "Traceback" not in done.stderr
    assert "was killed" not in done.stderr
    assert train(tmp_path / "run", "--resume") == 0
    assert runs.differences(whole, tmp_path / "run") == []


def test_a_run_that_had_ended_early_ends_in_the_same_way_again(tmp_path, capsys):
    overrides = [
        "test.eval_period=1",
        "train.hooks=[{name: ValidationLoss}, {name: EarlyStopping, metric: val/total_loss,"
        " mode: min, min_delta: 100, patience: 2}]",
    ]
    assert train(tmp_path / "run", *overrides) == 0
    assert checkpoints(tmp_path / "run") == [1, 2]
    final, lines = tmp_path / "run" / "model_final.pth", runs.metrics(tmp_path / "run")
    # As if it had been killed before it wrote the last file.
    expected = final.rename(tmp_path / "expected.pth")
    assert train(tmp_path / "run", *overrides, "--resume") == 0
    assert runs.compare_checkpoints(expected, final)[1] == []
    assert runs.metrics(tmp_path / "run") == lines


def test_an_evaluation_that_cannot_write_its_results_is_refused_before_it_begins(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert train(tmp_path / "file", "--eval-only", "--weights", "nowhere.pth") == 2
    told = capsys.readouterr().err
    assert "file cannot be written to: File exists" in told
    assert "nowhere.pth" not in told


# ---- the output folder ------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_outlives_its_output_folder(replaced, whole, tmp_path, capsys):
    def remove(trainer):
        # First renamed: a checkpoint may be written into it at this moment.
        (tmp_path / "run").rename(tmp_path / "gone")
        shutil.rmtree(tmp_path / "gone", ignore_errors=True)
        if replaced:
            (tmp_path / "run").mkdir(exist_ok=True)

    assert train(tmp_path / "run", actions={2: remove}) == 0
    told = capsys.readouterr().err
    assert "was removed or replaced during the run" in told
    assert "ERROR" in told
    assert checkpoints(tmp_path / "run")[0] == 2  # at once, not when it would have been due
    assert {"config.yaml", "log.txt", "last_checkpoint"} <= set(os.listdir(tmp_path / "run"))
    assert train(tmp_path / "run", "--resume") == 0
    for name in ("model_0000005.pth", "model_final.pth"):
        assert runs.compare_checkpoints(whole / name, tmp_path / "run" / name)[1] == []


def test_a_second_run_in_the_folder_is_refused(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(RunLock.acquire, "__defaults__", (0.2,))
    # Another process holds the lock as a training does.
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline()
        for option in ("--resume", "--overwrite"):
            assert train(tmp_path / "run", option) == 2
            told = capsys.readouterr().err
            assert f"another run goes on in output_dir {tmp_path / 'run'}" in told
            assert f"process {holder.pid} on " in told
        assert not (tmp_path / "run" / "log.txt").exists()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert train(tmp_path / "run", "--resume") == 0


# Without the seconds that importing torch takes.
HOLD = """
import fcntl, os, sys, time
os.makedirs(sys.argv[1])
with open(sys.argv[1] + "/.lock", "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    file.write(f"process {os.getpid()} on this machine")
    file.flush()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_refused_second_run_leaves_the_first_unharmed(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(RunLock.acquire, "__defaults__", (0.2,))
    seen = []

    def another(trainer):
        tool = runs.ROOT / "tools" / "train_net.py"
        for option in ("--resume", "--overwrite"):
            arguments = runs.command_line(tmp_path / "run", option)
            done = subprocess.run(
                [sys.executable, tool, *arguments], capture_output=True, text=True, timeout=100
            )
            seen.append((done.returncode, "another run goes on in" in done.stderr))

    assert train(tmp_path / "run", actions={3: another}) == 0
    assert seen == [(2, True)] * 2
    assert runs.differences(whole, tmp_path / "run") == []


# ---- the clock --------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_changes_nothing(whole, tmp_path, capsys, monkeypatch):
    now = time.time

    def set_back(trainer):
        monkeypatch.setattr(time, "time", lambda: now() - 86400)
        monkeypatch.setattr(time, "time_ns", lambda: int((now() - 86400) * 1e9))

    # Checkpoints of which the oldest one has the latest time.
    assert train(tmp_path / "run", actions={3: set_back, 4: runs.send(signal.SIGTERM)}) == 75
    os.utime(tmp_path / "run" / "model_0000001.pth", (now() + 9999, now() + 9999))
    assert train(tmp_path / "run", "--resume") == 0
    assert "going on at iteration 5" in capsys.readouterr().err
    assert runs.differences(whole, tmp_path / "run") == []
    lines = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    assert all(0 <= json.loads(line)["time"] < 60 for line in lines)
