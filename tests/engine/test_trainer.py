"""The loop: order of hooks, steps, and going on after an interruption."""

import json

import pytest
import torch
from torch import nn

from detlite import HookBase, Trainer, build_trainer
from detlite.config.schema import ClipGradients
from detlite.engine import ModelEMA


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


class Interrupt(HookBase):
    """Ends a run as Ctrl-C would."""

    def __init__(self, at):
        self.at = at

    def before_step(self, trainer):
        if trainer.iter == self.at:
            raise KeyboardInterrupt


EVERY_STEP = ["train.checkpoint_period=1", "train.ema={decay: 0.9, warmup: 4}", "solver.max_iter=6"]
SGD = "solver.optimizer={name: SGD, lr: 0.01, momentum: 0.9}"


def test_a_resumed_run_ends_in_the_same_bits(tiny_config, train):
    whole = train(*EVERY_STEP, SGD, output="whole")
    broken = build_trainer(tiny_config(*EVERY_STEP, SGD, output="broken"))
    broken.hooks.append(Interrupt(at=3))
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = build_trainer(tiny_config(*EVERY_STEP, SGD, output="broken"), resume=True)
    assert resumed.start_iter == 3
    momentum = next(iter(resumed.optimizer.state.values()))["momentum_buffer"]
    assert momentum.abs().sum() > 0
    resumed.train()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert all(torch.equal(v, resumed.ema.weights[k]) for k, v in whole.ema.weights.items())


def test_a_resumed_run_continues_log_and_learning_rate(tiny_config, train, tmp_path):
    whole = train(*EVERY_STEP, SGD, "train.log_period=1", output="whole")
    broken = build_trainer(tiny_config(*EVERY_STEP, SGD, "train.log_period=1", output="broken"))
    broken.hooks.append(Interrupt(at=3))
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    train(*EVERY_STEP, SGD, "train.log_period=1", output="broken", resume=True)
    lines = {}
    for name in ("whole", "broken"):
        text = (tmp_path / name / "metrics.json").read_text()
        lines[name] = [json.loads(line) for line in text.splitlines()]
    for key in ("iteration", "lr", "total_loss"):
        assert [e[key] for e in lines["whole"]] == [e[key] for e in lines["broken"]], key
    assert len(lines["whole"]) == whole.max_iter


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
