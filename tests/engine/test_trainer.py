"""The loop: order of hooks, steps, and going on after an interruption."""

import copy
import json
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from detlite import HookBase, Trainer, build_trainer
from detlite.checkpoint import compare_checkpoints, load_checkpoint, read_weights
from detlite.config.schema import ClipGradients
from detlite.engine import ModelEMA, hooks
from detlite.engine.run_state import scale_lr
from detlite.utils.random_state import RandomState


class Quadratic(nn.Module):
    """Loss 0.5 * |w - x|^2, whose steps can be worked by hand."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, batch):
        return {"loss_a": 0.5 * ((self.w - batch[0]["x"]) ** 2).sum(), "count": torch.tensor(3.0)}


def quadratic_trainer(max_iter=3, lr=0.5, **arguments):
    model = Quadratic()
    loader = [[{"x": torch.tensor([1.0, 2.0])}]] * 100
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Trainer(model, optimizer, loader, max_iter=max_iter, **arguments)


def test_steps_are_those_of_gradient_descent():
    trainer = quadratic_trainer(max_iter=3)
    trainer.train()
    # The distance to x halves with every step.
    assert trainer.model.w.tolist() == pytest.approx([1 - 1 / 8, 2 - 2 / 8])


def test_only_losses_are_summed():
    trainer = quadratic_trainer(max_iter=1)
    trainer.train()
    assert trainer.metrics["total_loss"].item() == pytest.approx(2.5)
    assert trainer.metrics["count"].item() == 3


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (ClipGradients(value=0.1), [0.05, 0.05]),
        (ClipGradients(norm=5**0.5 / 2), [0.25, 0.5]),
        (ClipGradients(), [0.5, 1.0]),
    ],
)
def test_gradients_are_clipped_by_value_and_norm(clip, expected):
    trainer = quadratic_trainer(max_iter=1, clip_gradients=clip)
    trainer.train()
    assert trainer.model.w.tolist() == pytest.approx(expected, rel=1e-4)


def test_the_moving_average_follows_the_weights():
    model = Quadratic()
    ema = ModelEMA(model, decay=0.9)
    with torch.no_grad():
        model.w.fill_(1.0)
    ema.update(model)
    assert ema.weights["w"].tolist() == pytest.approx([0.1, 0.1])
    with ema.applied(model):
        assert model.w.tolist() == pytest.approx([0.1, 0.1])
    assert model.w.tolist() == [1.0, 1.0]


def test_the_moving_average_warms_up():
    model = Quadratic()
    ema = ModelEMA(model, decay=0.999, warmup=10)
    with torch.no_grad():
        model.w.fill_(1.0)
    ema.update(model)
    assert ema.weights["w"].tolist() == pytest.approx([0.9, 0.9])


class Recorder(HookBase):
    """Writes down when it is called."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def before_train(self, trainer):
        self.calls.append(f"{self.name} before_train")

    def before_step(self, trainer):
        self.calls.append(f"{self.name} before_step {trainer.iter}")

    def after_step(self, trainer):
        self.calls.append(f"{self.name} after_step {trainer.iter}")

    def after_train(self, trainer):
        self.calls.append(f"{self.name} after_train")

    def close(self, trainer):
        self.calls.append(f"{self.name} close")


def test_hooks_are_called_in_their_order():
    calls = []
    quadratic_trainer(max_iter=1, hooks=[Recorder("a", calls), Recorder("b", calls)]).train()
    points = ["before_train", "before_step 0", "after_step 0", "after_train", "close"]
    assert calls == [f"{name} {point}" for point in points for name in ("a", "b")]


def test_an_error_closes_the_hooks_and_skips_after_train():
    calls = []
    trainer = quadratic_trainer(hooks=[Recorder("a", calls)])
    trainer.loader = iter([])
    with pytest.raises(StopIteration):
        trainer.train()
    assert calls == ["a before_train", "a before_step 0", "a close"]


def test_two_hooks_of_one_class_keep_their_own_state():
    class Counter(HookBase):
        def __init__(self, start):
            self.value = start

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    first = quadratic_trainer(hooks=[Counter(1), Counter(2)])
    second = quadratic_trainer(hooks=[Counter(0), Counter(0)])
    second.load_state_dict({**first.state_dict(), "iteration": 4})
    assert [hook.value for hook in second.hooks] == [1, 2]
    assert second.start_iter == 5


class At(HookBase):
    """Calls a function at a point of an iteration."""

    def __init__(self, iteration, point, function):
        self.iteration, self.function = iteration, function
        setattr(self, point, self._call)

    def _call(self, trainer):
        if trainer.iter == self.iteration:
            self.function(trainer)


def interrupt(trainer):
    raise KeyboardInterrupt


def stop(trainer):
    trainer.request_stop("signal")


EVERY_STEP = ["train.checkpoint_period=1", "train.ema={decay: 0.9, warmup: 4}", "solver.max_iter=6"]
SGD = "solver.optimizer={name: SGD, lr: 0.01, momentum: 0.9}"


def last_checkpoint(folder):
    return folder / (folder / "last_checkpoint").read_text()


def entries_of(folder):
    """The lines of metrics.json without what a clock says."""
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    clock = ("time", "data_time", "memory")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def test_a_resumed_run_ends_in_the_same_bits(tiny_config, train, tmp_path):
    overrides = [*EVERY_STEP, SGD, "train.log_period=2", "test.eval_period=2"]
    train(*overrides, output="whole")
    broken = build_trainer(tiny_config(*overrides, output="broken"))
    broken.hooks.append(At(3, "before_step", interrupt))
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = build_trainer(tiny_config(*overrides, output="broken"), resume=True)
    assert resumed.start_iter == 3
    momentum = next(iter(resumed.optimizer.state.values()))["momentum_buffer"]
    assert momentum.abs().sum() > 0
    resumed.train()
    compared, differences = compare_checkpoints(
        last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "broken")
    )
    assert compared > 300
    assert differences == []
    # The interruption came between two lines of the log: averages go over it.
    assert entries_of(tmp_path / "whole") == entries_of(tmp_path / "broken")
    assert [entry["iteration"] for entry in entries_of(tmp_path / "broken")] == [1, 3, 5]


def test_checkpoints_that_differ_are_told_apart(train, tmp_path):
    for seed in (0, 1):
        train(f"seed={seed}", output=f"seed{seed}")
    _, differences = compare_checkpoints(
        *(last_checkpoint(tmp_path / f"seed{seed}") for seed in (0, 1))
    )
    assert any(line.startswith("model.backbone.stem") for line in differences)
    assert any(line.startswith("buffer") or "random" in line for line in differences)


def test_a_run_stopped_after_its_last_step_still_writes_its_end(tiny_config, tmp_path):
    trainer = build_trainer(tiny_config(*EVERY_STEP))
    trainer.hooks.append(At(5, "after_step", stop))
    trainer.train()
    assert not (tmp_path / "run/model_final.pth").exists()
    resumed = build_trainer(tiny_config(*EVERY_STEP), resume=True)
    results = resumed.train()
    assert results["shapes_9"]["bbox"]
    final = load_checkpoint(tmp_path / "run/model_final.pth")
    assert final["iteration"] == 5
    assert (tmp_path / "run/model_final_plain.pth").exists()


def test_an_early_end_is_an_end_and_a_signal_is_a_pause():
    for reason, expected in (("early", 1), ("signal", 0)):
        ends = []
        hooks = [
            At(1, "after_step", lambda trainer, reason=reason: trainer.request_stop(reason)),
            At(1, "after_train", lambda trainer, ends=ends: ends.append(trainer.iter)),
        ]
        trainer = quadratic_trainer(max_iter=9, hooks=hooks)
        trainer.train()
        assert trainer.iter == 1
        assert len(ends) == expected


class Counting(nn.Module):
    """A model with a buffer that its forward pass moves."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch):
        self.calls += 1
        return {"loss_a": (self.w - 1) ** 2}


class Loader:
    """Counts its batches from wherever it is put."""

    def __init__(self):
        self.start, self.seen = 0, []

    def restart(self, start):
        self.start = start

    def __iter__(self):
        for i in range(self.start, 100):
            self.seen.append(i)
            yield [{"i": i}]


def counting_trainer(**arguments):
    model = Counting()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Trainer(model, optimizer, Loader(), max_iter=6, **arguments)


def test_a_skipped_step_moves_nothing():
    states = []

    def note(trainer):
        states.append({name: float(value) for name, value in trainer.model.state_dict().items()})

    def skip(trainer):
        note(trainer)
        trainer.skip_update("planted")

    trainer = counting_trainer(hooks=[At(2, "after_backward", skip), At(2, "after_step", note)])
    trainer.ema = ModelEMA(trainer.model, decay=0.5)
    trainer.train()
    assert states[1] == {"w": states[0]["w"], "calls": states[0]["calls"] - 1}
    assert trainer.model.calls == 5
    assert trainer.ema.updates == 5
    assert trainer.iter == 5


def test_the_first_step_may_be_skipped_and_its_losses_are_not_averaged():
    trainer = counting_trainer(hooks=[At(0, "after_backward", lambda t: t.skip_update("planted"))])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(trainer.optimizer, 10)
    trainer.hooks.append(hooks.LRScheduler(schedule=schedule))
    trainer.train()
    assert len(trainer.buffer.state_dict()["total_loss"]) == 5
    assert schedule.last_epoch == 6


def test_going_back_restores_everything_and_lowers_the_rate():
    saved = {}
    calls = []

    def go_back(trainer):
        if trainer.lr_factor > 0.2:
            trainer.go_back(0.5)

    trainer = counting_trainer(
        hooks=[
            At(1, "after_step", lambda t: saved.update(copy.deepcopy(t.state_dict()))),
            At(3, "after_backward", go_back),
            At(2, "after_restore", lambda t: calls.append(t.start_iter)),
        ],
        last_checkpoint=lambda: copy.deepcopy(saved),
    )
    trainer.train()
    # Three times back from 3 to 2, each time with half the rate of the time before.
    assert trainer.loader.seen == [0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5]
    assert calls == [2, 2, 2]
    assert trainer.lr_factor == 0.125
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.125)
    assert trainer.model.calls == 6


def test_going_back_without_a_checkpoint_says_so():
    trainer = counting_trainer(hooks=[At(0, "after_backward", lambda t: t.go_back(0.5))])
    with pytest.raises(FloatingPointError, match=r"iteration 0 .* there is none.*_period"):
        trainer.train()


def test_lower_rates_survive_schedules():
    trainer = counting_trainer()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(trainer.optimizer, 10)
    trainer.hooks.append(hooks.LRScheduler(schedule=schedule))
    scale_lr(trainer, 0.5)
    trainer.train()
    expected = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05), 10
    )
    for _ in range(6):
        expected.optimizer.step()
        expected.step()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(expected.get_last_lr()[0])


def test_an_average_that_begins_in_a_resumed_run_begins_with_its_weights(tiny_config, train):
    first = train("solver.max_iter=2")
    resumed = build_trainer(tiny_config("solver.max_iter=3", "train.ema={decay: 0.9}"), resume=True)
    for name, value in first.model.state_dict().items():
        assert torch.equal(resumed.ema.weights[name], value), name


def test_accumulation_makes_the_same_steps(train):
    # Without batch norms, which see the images of a part only.
    overrides = ["data.batch_size=4", "model.backbone.norm=GN", SGD, "solver.optimizer.lr=0.0001"]
    whole, *others = (
        train(*overrides, f"train.accumulate={parts}", output=f"parts{parts}")
        for parts in (1, 2, 4)
    )
    for run in others:
        for name, value in whole.model.state_dict().items():
            assert torch.allclose(value, run.model.state_dict()[name], atol=1e-4), name
        loss = float(run.metrics["total_loss"])
        assert loss == pytest.approx(float(whole.metrics["total_loss"]), rel=1e-4)


def test_random_states_survive_a_checkpoint(tmp_path):
    torch.randn(3), np.random.rand(), random.gauss(0, 1)
    np.random.randn()  # leaves half a pair
    torch.save(RandomState.capture().to_dict(), tmp_path / "state.pth")
    state = RandomState.from_dict(read_weights(tmp_path / "state.pth"))
    draws = []
    for _ in range(2):
        state.restore()
        draws.append((torch.rand(2).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1)))
    assert draws[0] == draws[1]


def test_the_number_of_workers_does_not_change_a_run(train):
    runs = [
        train("data.num_workers=0", "data.train_transforms=[{name: RandomHorizontalFlip}]"),
        train(
            "data.num_workers=2",
            "data.train_transforms=[{name: RandomHorizontalFlip}]",
            output="workers",
        ),
    ]
    states = [run.model.state_dict() for run in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_a_batch_with_a_checkpoint_of_the_last_step(number):
    class Interruptions(HookBase):
        seen = ()

        def after_interruption(self, trainer):
            self.seen = (*self.seen, trainer.iter)

    def batches():
        for _ in range(2):
            yield [{"x": torch.tensor([1.0, 2.0])}]
        os.kill(os.getpid(), number)
        time.sleep(60)
        raise AssertionError("it waits on")

    interruptions = Interruptions()
    trainer = quadratic_trainer(hooks=[hooks.StopSignals(), interruptions])
    trainer.loader = batches()
    trainer.train()
    assert trainer.stop_reason == "signal"
    assert interruptions.seen == (1,)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
