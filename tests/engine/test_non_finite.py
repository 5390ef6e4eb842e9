"""A loss or gradient that is not finite: found at its step, recorded, replayed to its place."""

import math
import pathlib
import re

import cv2
import numpy as np
import pytest
import torch

from detlite.config.loader import import_component
from detlite.engine.replay import read_bundle, replay

saboteurs = import_component(str(pathlib.Path(__file__).with_name("saboteurs.py")), "the tests")
build, bundles, check_of = saboteurs.build, saboteurs.bundles, saboteurs.check_of
same_state, POISONED = saboteurs.same_state, saboteurs.POISONED

NAN, INF = float("nan"), float("inf")
WEIGHT = "neck.laterals.p3.weight"


def stopped(trainer, iteration):
    """Train until the check stops the run; returns the message and the replay."""
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    assert f"at iteration {iteration}:" in str(caught.value)
    assert trainer.iter == iteration
    before = trainer.hooks[0].state
    assert same_state(trainer.model.state_dict(), before)
    (folder,) = bundles(trainer)
    assert folder.name == f"iter_{iteration:07d}_rank0"
    assert str(folder) in str(caught.value)
    bundle = read_bundle(folder)
    assert same_state(bundle.weights, before)
    result = replay(bundle)
    assert result.reproduced
    assert result.same_bits, result.text()
    return str(caught.value), result


def test_a_nan_in_an_image_is_found_and_the_image_is_named(tiny_config):
    trainer = build(tiny_config, POISONED % [5])
    message, result = stopped(trainer, 2)
    clean, broken = (sample["file_name"] for sample in trainer.batch)
    assert clean in message
    assert broken in message
    assert result.finding.kind == "input"
    assert f"image {broken} (1 of part 0): 1 NaN of 12288" in result.finding.title
    assert "channel 1, row 60, column 2" in result.finding.title
    assert clean not in result.finding.title
    picture = cv2.imread(str(next(bundles(trainer)[0].glob("images/0_01_*.png"))))
    # Enlarged six times.
    assert (picture[60 * 6 : 61 * 6, 2 * 6 : 3 * 6] == (255, 0, 255)).all()
    report = (bundles(trainer)[0] / "report.txt").read_text()
    assert f"{broken} (id {trainer.batch[1]['image_id']}, 3x64x64" in report
    assert "1 entries NOT FINITE" in report


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_broken_weight_is_found_and_named(tiny_config, value):
    sabotage = saboteurs.BeforeStep(saboteurs.poison_weight(WEIGHT, value), 3)
    trainer = build(tiny_config, hooks=[sabotage])
    # The sabotage stands before the memory, which is of the weights that the step sees.
    trainer.hooks[0], trainer.hooks[1] = trainer.hooks[1], trainer.hooks[0]
    with pytest.raises(FloatingPointError):
        trainer.train()
    assert trainer.iter == 3
    assert same_state(trainer.model.state_dict(), trainer.hooks[1].state)
    result = replay(read_bundle(bundles(trainer)[0]))
    assert result.reproduced
    assert result.finding.kind == "weight"
    assert result.finding.title.startswith(f"in the weight {WEIGHT}: 1 ")
    assert result.finding.module == "neck.laterals.p3"
    assert result.finding.call.outputs.non_finite
    assert not result.finding.call.inputs.non_finite


def test_a_broken_running_statistic_is_not_blamed_where_it_is_not_used(tiny_config):
    def poison(trainer):
        trainer.model.get_buffer("backbone.convs.0.norm.running_mean")[0] = NAN

    hooks = [
        saboteurs.BeforeStep(poison, 0),
        saboteurs.BeforeStep(saboteurs.poison_weight(WEIGHT), 1),
    ]
    trainer = build(tiny_config, hooks=hooks)
    with pytest.raises(FloatingPointError):
        trainer.train()
    result = replay(read_bundle(bundles(trainer)[0]))
    assert result.finding.module == "neck.laterals.p3"
    assert "buffer backbone.convs.0.norm.running_mean: 1 NaN of 8" in result.text()


def test_a_loss_that_overflows_for_a_class_is_found_and_named(tiny_config):
    trainer = build(tiny_config, "model.cls_loss={name: LossOfRareClass, rare: 2}")
    with pytest.raises(FloatingPointError, match="loss_cls = inf"):
        trainer.train()
    result = replay(read_bundle(bundles(trainer)[0]))
    assert result.reproduced
    assert result.same_bits
    assert result.finding.kind == "loss"
    assert result.finding.module == "cls_loss"
    assert "cls_loss (LossOfRareClass): aten::exp at" in result.finding.title
    assert "saboteurs.py" in result.finding.title
    assert result.finding.details[0] == "it reaches total_loss, loss_cls"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_overflow_in_the_forward_pass_is_found_in_its_module(tiny_config, precision):
    def enlarge(trainer):
        with torch.no_grad():
            trainer.model.get_parameter("backbone.convs.1.norm.weight").fill_(3e38)

    trainer = build(
        tiny_config, f"train.precision={precision}", hooks=[saboteurs.BeforeStep(enlarge, 2)]
    )
    with pytest.raises(FloatingPointError):
        trainer.train()
    assert trainer.iter == 2
    result = replay(read_bundle(bundles(trainer)[0]))
    assert result.reproduced
    assert result.same_bits
    assert result.finding.kind == "forward"
    assert result.finding.module == "backbone.convs.1.norm"
    assert result.finding.call.outputs.infinite
    assert not result.finding.call.inputs.non_finite
    assert "aten::" in result.finding.title
    assert re.search(r"^backbone.convs.1.norm +BatchNorm2d ", result.text(), re.MULTILINE)


def test_a_learning_rate_that_is_far_too_high_is_found_before_the_weights_are_lost(tiny_config):
    trainer = build(tiny_config, "solver.optimizer.lr=1e30")
    trainer.clip_gradients.norm = None
    with pytest.raises(FloatingPointError, match=r"at a learning rate of .*e\+"):
        trainer.train()
    result = replay(read_bundle(bundles(trainer)[0]))
    assert result.reproduced
    assert result.finding.kind == "forward"


def test_a_gradient_that_is_not_finite_though_the_loss_is_finite_is_found_in_its_module(
    tiny_config,
):
    trainer = build(tiny_config, "model.box_loss={name: RootLoss}", "train.accumulate=2")
    message, result = stopped(trainer, 0)
    assert message.startswith("gradient norm at iteration 0: total_loss = ")
    assert "total_loss = nan" not in message
    assert result.finding.kind == "backward"
    assert result.finding.module == "box_loss"
    assert "SqrtBackward0, which box_loss (RootLoss) called" in result.finding.title
    assert "return distance.sqrt()" in result.finding.details[0]
    assert "NaN" not in result.finding.details[1]
    assert result.repetition.bad_gradients


def test_a_norm_that_overflows_of_finite_gradients_is_told_apart(tiny_config):
    class Enlarge(saboteurs.HookBase):
        def after_backward(self, trainer):
            for parameter in trainer.model.parameters():
                parameter.grad.fill_(1e30)

    trainer = build(tiny_config, hooks=[Enlarge()])
    with pytest.raises(FloatingPointError, match=r"^gradient norm at iteration 0:.*norm = inf"):
        trainer.train()
    bundle = read_bundle(bundles(trainer)[0])
    assert bundle.bad_gradients == {}
    # The hook is no part of the step, so the replay finds nothing.
    assert not replay(bundle).reproduced


def test_only_the_steps_of_the_period_are_checked(tiny_config):
    trainer = build(tiny_config, POISONED % [2, 3, 6, 7], check=", period: 4")
    trainer.clip_gradients.norm = None
    with pytest.raises(FloatingPointError, match="at iteration 3:"):
        trainer.train()


def _fp16(tiny_config, scale):
    class Overflow(saboteurs.HookBase):
        def before_step(self, trainer):
            if trainer.iter == 1:
                trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": scale})

    return build(
        tiny_config,
        "train.precision=fp16",
        "model.box_loss={name: RootLoss}",
        "solver.max_iter=2",
        hooks=[Overflow()],
    )


def test_the_gradient_scaler_may_lower_its_scale(tiny_config):
    trainer = _fp16(tiny_config, 1024.0)
    trainer.train()
    assert trainer.scaler.get_scale() == 512.0
    assert bundles(trainer) == []


def test_a_gradient_scaler_whose_scale_has_come_to_its_end_does_not_hide_anything(tiny_config):
    trainer = _fp16(tiny_config, 1.0)
    _, result = stopped(trainer, 1)
    assert result.finding.kind == "backward"
    assert result.bundle.scale == 1.0


def test_a_run_without_anything_wrong_writes_nothing(tiny_config):
    trainer = build(tiny_config)
    trainer.train()
    assert not check_of(trainer).folder.exists()
    assert check_of(trainer).state_dict() == dict.fromkeys(
        ("found", "skipped", "skipped_in_row", "rollbacks"), 0
    )


def test_a_metric_that_is_no_loss_may_be_nan(tiny_config):
    trainer = build(tiny_config, "solver.max_iter=1")
    forward = trainer.parallel.forward
    trainer.parallel.forward = lambda *args: forward(*args) | {"accuracy": torch.tensor(math.nan)}
    trainer.train()
    assert np.isnan(float(trainer.metrics["accuracy"]))
