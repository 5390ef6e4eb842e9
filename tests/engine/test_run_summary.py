"""summary.json: how a run goes and how it ended, whatever happens to it."""

import json
import math
import signal
import subprocess

import pytest

from detlite import HookBase, build_trainer
from detlite.engine.hooks import Evaluation, RunSummary


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


class Values:
    """Evaluations that give these values of ``bbox/AP``, one after the other."""

    def __init__(self, *values):
        self.values = iter(values)

    def __call__(self, model, folder="inference"):
        value = next(self.values)
        return {"set": {"bbox": {"AP": value}, "val": {"total_loss": value}}}


class Act(HookBase):
    """Does something after a step."""

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def after_step(self, trainer):
        if trainer.iter == self.iteration:
            self.action(trainer)


def fail(error):
    def action(trainer):
        raise error

    return action


def test_a_run_is_summed_up(train, tmp_path):
    train("test.eval_period=2")
    found = summary(tmp_path / "run")
    assert (found["status"], found["error"]) == ("done", None)
    assert (found["iterations"], found["max_iter"]) == (4, 4)
    assert (found["restarts"], found["rollbacks"], found["faults"]) == (0, 0, {})
    assert found["training_seconds"] > 0
    assert found["images_per_second"] > 0
    assert "bbox/AP" in found["metrics"]
    assert found["metrics_iteration"] == 3
    assert found["world_size"] == 1
    assert {"detlite", "torch", "python"} <= found["versions"].keys()


@pytest.mark.parametrize(
    ("action", "status", "done"),
    [
        (lambda trainer: None, "done", 4),
        (lambda trainer: trainer.request_stop("early"), "stopped early", 2),
        (lambda trainer: trainer.request_stop("signal"), "stopped by signal", 2),
        (fail(KeyboardInterrupt()), "interrupted", 1),
        (fail(FloatingPointError("loss_cls is nan")), "failed", 1),
    ],
)
def test_the_status_says_how_a_run_ended(small_trainer, tmp_path, action, status, done):
    trainer = small_trainer(Act(1, action), RunSummary(output_dir=str(tmp_path)))
    if status in ("interrupted", "failed"):
        with pytest.raises((KeyboardInterrupt, FloatingPointError)):
            trainer.train()
    else:
        trainer.train()
    found = summary(tmp_path)
    assert (found["status"], found["iterations"]) == (status, done)
    error = "FloatingPointError: loss_cls is nan" if status == "failed" else None
    assert found["error"] == error


def test_an_error_from_before_the_run_is_not_its_own(small_trainer, tmp_path):
    try:
        raise ValueError("an earlier attempt")
    except ValueError:
        small_trainer(RunSummary(output_dir=str(tmp_path))).train()
    assert summary(tmp_path)["status"] == "done"


def test_a_run_that_goes_on_says_so(small_trainer, tmp_path):
    seen = []
    look = Act(2, lambda trainer: seen.append(summary(tmp_path)))
    hooks = [Evaluation(evaluate=Values(1, 2), period=2), RunSummary(output_dir=str(tmp_path))]
    small_trainer(*hooks, look).train()
    assert (seen[0]["status"], seen[0]["iterations"]) == ("running", 2)
    assert seen[0]["metrics"] == {"bbox/AP": 1, "val/total_loss": 1}


def test_best_values_know_their_iteration_and_that_losses_fall(small_trainer, tmp_path):
    evaluation = Evaluation(evaluate=Values(2, math.nan, 3, 1), period=1)
    small_trainer(evaluation, RunSummary(output_dir=str(tmp_path))).train()
    found = summary(tmp_path)
    assert found["best"]["bbox/AP"] == {"value": 3, "iteration": 2}
    assert found["best"]["val/total_loss"] == {"value": 1, "iteration": 3}
    assert found["metrics"] == {"bbox/AP": 1, "val/total_loss": 1}


def test_a_value_that_is_no_number_is_null(small_trainer, tmp_path):
    evaluation = Evaluation(evaluate=Values(math.nan), period=0)
    small_trainer(evaluation, RunSummary(output_dir=str(tmp_path))).train()
    assert "NaN" not in (tmp_path / "summary.json").read_text()
    assert summary(tmp_path)["metrics"]["bbox/AP"] is None


def test_a_resumed_run_counts_on(tiny_config, train, tmp_path):
    trainer = build_trainer(tiny_config("train.checkpoint_period=1"))
    trainer.hooks.append(Act(1, fail(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    before = summary(tmp_path / "run")
    train("train.checkpoint_period=1", resume=True)
    found = summary(tmp_path / "run")
    assert (before["restarts"], found["restarts"]) == (0, 1)
    assert found["training_seconds"] > before["training_seconds"]
    assert found["status"] == "done"
    # A run that begins anew counts from nothing.
    train("train.checkpoint_period=1")
    assert summary(tmp_path / "run")["restarts"] == 0


def test_going_back_keeps_the_count_of_it_and_drops_what_is_repeated(small_trainer, tmp_path):
    hook = RunSummary(output_dir=str(tmp_path))
    state = {"best": {"bbox/AP": {"value": 1.0, "iteration": 0}}}

    def go_back(trainer):
        hook.load_state_dict(state)
        trainer.start_iter = 1
        hook.after_restore(trainer)

    evaluation = Evaluation(evaluate=Values(1, 9), period=1)
    trainer = small_trainer(evaluation, hook, Act(1, go_back), max_iter=2)
    trainer.train()
    found = summary(tmp_path)
    assert found["rollbacks"] == 1
    assert found["best"] == state["best"]


def test_faults_are_counted(small_trainer, tmp_path):
    skips = HookBase()
    skips.faults = {"skipped_steps": 2}
    small_trainer(skips, RunSummary(output_dir=str(tmp_path))).train()
    assert summary(tmp_path)["faults"] == {"skipped_steps": 2}


def test_a_full_disk_does_not_stop_the_run(small_trainer, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detlite.engine.hooks.run_summary.save_atomically", full)
    trainer = small_trainer(RunSummary(output_dir=str(tmp_path)))
    trainer.train()
    assert trainer.iter == 3
    assert "No space left" in caplog.text


def test_equal_configs_have_equal_hashes_wherever_they_write(train, tmp_path):
    train("solver.max_iter=1", output="a")
    train("solver.max_iter=1", output="b")
    train("solver.max_iter=1", "solver.optimizer.lr=0.5", output="c")
    hashes = [summary(tmp_path / name)["config_hash"] for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("inside", [True, False])
def test_the_commit_is_that_of_the_folder_it_was_started_in(
    small_trainer, tmp_path, monkeypatch, inside
):
    commit = None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    if inside:
        who = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", "init", "-q"], check=True)
        subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    small_trainer(RunSummary(output_dir=str(tmp_path / "run"))).train()
    assert summary(tmp_path / "run")["git_commit"] == commit


def test_a_signal_ends_as_a_pause(tiny_config, tmp_path):
    trainer = build_trainer(tiny_config())
    trainer.hooks.insert(0, Act(1, lambda trainer: signal.raise_signal(signal.SIGTERM)))
    trainer.train()
    found = summary(tmp_path / "run")
    assert (found["status"], found["iterations"]) == ("stopped by signal", 2)
