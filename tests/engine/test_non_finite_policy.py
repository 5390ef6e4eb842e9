"""What is done about a step that is not finite: skipped, gone back from, recorded within limits."""

import json
import logging
import pathlib

import pytest
import torch

from detlite.config.loader import import_component
from detlite.engine.replay import read_bundle

saboteurs = import_component(str(pathlib.Path(__file__).with_name("saboteurs.py")), "the tests")
build, bundles, check_of = saboteurs.build, saboteurs.bundles, saboteurs.check_of
same_state, POISONED = saboteurs.same_state, saboteurs.POISONED

WEIGHT = "neck.laterals.p3.weight"


def test_the_step_that_is_skipped_leaves_no_trace_in_the_model(tiny_config, tmp_path, caplog):
    overrides = ["model.loss_normalizer={name: MovingAverageNormalizer}", "train.log_period=1"]
    trainer = build(tiny_config, *overrides, POISONED % [5], check=", policy: skip")
    states = {}

    class Keep(saboteurs.HookBase):
        def after_step(self, trainer):
            state = {**trainer.model.state_dict(), **trainer.optimizer.state_dict()["state"][0]}
            states[trainer.iter] = {name: value.clone() for name, value in state.items()}

    trainer.hooks.append(Keep())
    with caplog.at_level(logging.WARNING, logger="detlite"):
        trainer.train()
    assert same_state(states[2], states[1])
    assert not same_state(states[3], states[2])
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())
    assert "loss_normalizer.average" in states[2]
    assert len(bundles(trainer)) == 1
    assert any("step skipped: total_loss, " in message for message in caplog.messages)
    text = (tmp_path / "run/metrics.json").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line.get("skipped_steps") for line in lines] == [None, None, 1, 1, 1]


def test_skipping_ends_when_it_does_not_help(tiny_config):
    check = ", policy: skip, max_skips: 2, max_bundles: 1"
    trainer = build(tiny_config, POISONED % list(range(2, 100)), check=check)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    assert str(caught.value).startswith("2 steps in a row have been skipped. total_loss")
    assert "No bundle was written: there are 1 bundles in" in str(caught.value)
    assert trainer.iter == 3
    assert len(bundles(trainer)) == 1
    assert check_of(trainer).found == 3


def test_skipped_steps_count_in_a_row_only(tiny_config):
    samples = [2, 3, 6, 7]
    trainer = build(tiny_config, POISONED % samples, check=", policy: skip, max_skips: 1")
    trainer.train()
    assert check_of(trainer).skipped == 2


ROLLBACK = ", policy: rollback, max_rollbacks: 2, lr_factor: 0.25"


def test_the_run_goes_back_to_a_checkpoint_with_a_lower_learning_rate(tiny_config):
    class Once(saboteurs.BeforeStep):
        def before_step(self, trainer):
            if trainer.iter == 3 and check_of(trainer).rollbacks == 0:
                self.function(trainer)

    rates = []

    class Rates(saboteurs.HookBase):
        def before_step(self, trainer):
            rates.append((trainer.iter, trainer.optimizer.param_groups[0]["lr"]))

    trainer = build(
        tiny_config,
        "train.checkpoint_period=2",
        "solver.schedule={name: WarmupCosineLR, warmup_iters: 0}",
        hooks=[Once(saboteurs.poison_weight(WEIGHT), 3), Rates()],
        check=ROLLBACK,
    )
    trainer.train()
    assert [iteration for iteration, _ in rates] == [0, 1, 2, 3, 2, 3, 4]
    assert rates[4][1] == pytest.approx(0.25 * rates[2][1])
    assert rates[5][1] == pytest.approx(0.25 * rates[3][1])
    assert check_of(trainer).rollbacks == 1
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())


def test_going_back_ends_when_it_does_not_help(tiny_config):
    sabotage = saboteurs.BeforeStep(saboteurs.poison_weight(WEIGHT), 3)
    trainer = build(tiny_config, "train.checkpoint_period=2", hooks=[sabotage], check=ROLLBACK)
    with pytest.raises(FloatingPointError, match="the run has gone back 2 times"):
        trainer.train()
    names = [folder.name for folder in bundles(trainer)]
    assert names == [f"iter_0000003_rank0{tail}" for tail in ("", "_2", "_3")]
    assert [read_bundle(folder).iteration for folder in bundles(trainer)] == [3, 3, 3]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tiny_config, caplog):
    sabotage = saboteurs.BeforeStep(saboteurs.poison_weight(WEIGHT), 1)
    trainer = build(tiny_config, hooks=[sabotage], check=ROLLBACK)
    with pytest.raises(FloatingPointError, match=r"there is none yet; a shorter train.checkpoint"):
        trainer.train()
    assert "The step is recorded in" in caplog.text
    assert len(bundles(trainer)) == 1


def test_a_restored_state_never_takes_back_what_the_process_has_counted(tiny_config):
    check = check_of(build(tiny_config))
    check.rollbacks, check.skipped, check.found = 2, 1, 3
    check.load_state_dict({"found": 1, "skipped": 4, "skipped_in_row": 1, "rollbacks": 0})
    assert check.state_dict() == {"found": 3, "skipped": 4, "skipped_in_row": 1, "rollbacks": 2}


def test_a_bundle_that_cannot_be_written_does_not_change_what_the_run_does(
    tiny_config, monkeypatch
):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detlite.engine.replay.writing.write_bundle_file", full)
    trainer = build(tiny_config, POISONED % [2])
    with pytest.raises(FloatingPointError, match=r"could not be recorded: .*No space left"):
        trainer.train()
    assert [path.name for path in check_of(trainer).folder.glob("*")] == []
    skipping = build(tiny_config, POISONED % [2], check=", policy: skip", output="other")
    skipping.train()
    assert check_of(skipping).skipped == 1


def test_what_a_killed_process_left_of_a_bundle_is_removed(tiny_config):
    trainer = build(tiny_config, POISONED % [2])
    left = check_of(trainer).folder / ".unfinished_rank0"
    (left / "images").mkdir(parents=True)
    (left / "images/old.png").touch()
    with pytest.raises(FloatingPointError):
        trainer.train()
    (folder,) = bundles(trainer)
    assert not left.exists()
    assert not (folder / "images/old.png").exists()
