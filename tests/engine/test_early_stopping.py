"""When a run ends because it no longer gets better."""

import logging
import math

import pytest

from detlite import build_trainer
from detlite.engine import hooks
from detlite.engine.hooks import EarlyStopping, Evaluation, metric_value
from detlite.errors import ConfigError


class Values:
    """Evaluations that give these values of ``bbox/AP``, one after the other."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, model, folder="inference"):
        return {"set": {"bbox": {"AP": self.values.pop(0)}}}


def stopped_at(small_trainer, values, **arguments):
    stopping = EarlyStopping(**arguments)
    evaluation = Evaluation(evaluate=Values(*values), period=1)
    trainer = small_trainer(evaluation, stopping, max_iter=len(values))
    trainer.train()
    return trainer.iter, trainer.stop_reason, stopping


@pytest.mark.parametrize(
    ("values", "arguments", "last", "best_iter"),
    [
        ((1, 3, 2, 3, 4, 5), {"patience": 2}, 3, 1),
        ((1, 3, 2, 4, 3, 5), {"patience": 2}, 5, 5),
        ((9, 5, 6, 4, 7, 8, 1), {"patience": 2, "mode": "min"}, 5, 3),
        ((1, 1.5, 2.2, 2.5, 3), {"patience": 1, "min_delta": 1.0}, 1, 0),
        ((1, 2.5, 3, 3.4, 3.5, 9), {"patience": 3, "min_delta": 1.0}, 4, 1),
        ((math.nan, math.nan, math.nan, 1), {"patience": 3}, 2, -1),
        ((math.nan, 1, math.nan, 0, 2), {"patience": 2}, 3, 1),
    ],
)
def test_a_run_ends_after_so_many_evaluations_without_a_better_value(
    small_trainer, values, arguments, last, best_iter
):
    iteration, reason, stopping = stopped_at(small_trainer, values, **arguments)
    assert (iteration, stopping.best_iter) == (last, best_iter)
    assert reason == ("early" if last + 1 < len(values) else None)


def test_the_log_says_what_was_best_and_when(small_trainer, caplog):
    with caplog.at_level(logging.INFO, logger="detlite"):
        stopped_at(small_trainer, (1, 3.25, 2, 3, 4), patience=2)
    (line,) = [m for m in caplog.messages if m.startswith("stopping early")]
    assert "bbox/AP was best (3.2500) at iteration 1" in line
    assert "2 evaluations since (patience 2)" in line


def test_a_resumed_run_counts_on(small_trainer):
    first = EarlyStopping(patience=3)
    small_trainer(Evaluation(evaluate=Values(5, 4, 3), period=1), first, max_iter=3).train()
    second = EarlyStopping(patience=3)
    second.load_state_dict(first.state_dict())
    trainer = small_trainer(Evaluation(evaluate=Values(2, 9), period=1), second, max_iter=5)
    trainer.start_iter = 3
    trainer.train()
    assert (trainer.iter, trainer.stop_reason) == (3, "early")


def test_a_run_that_was_ended_early_stays_ended_until_it_gets_more_patience(small_trainer):
    state = {"best": 5.0, "best_iter": 0, "num_worse": 3}
    for patience, steps in ((3, 0), (4, 1)):
        stopping = EarlyStopping(patience=patience)
        stopping.load_state_dict(state)
        evaluate = Values(9)
        trainer = small_trainer(Evaluation(evaluate=evaluate, period=1), stopping, max_iter=1)
        trainer.train()
        assert len(evaluate.values) == 1 - steps


def test_an_early_end_is_an_end(tiny_config, tmp_path):
    config = tiny_config(
        "train.hooks=[{name: EarlyStopping, patience: 1}, {name: PredictionPictures}]",
        "test.eval_period=1",
        "train.log_period=50",
        "solver.max_iter=9",
    )
    trainer = build_trainer(config)
    evaluation = next(h for h in trainer.hooks if isinstance(h, hooks.Evaluation))
    evaluation.evaluate = Values(7, 6)
    trainer.train()
    assert trainer.iter == 1
    assert {"model_final.pth", "model_0000001.pth", "pictures.jpg"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_a_metric_that_nobody_measures_is_told_before_the_run_is_over(small_trainer):
    trainer = small_trainer(
        Evaluation(evaluate=Values(1), period=1), EarlyStopping(metric="val/total_loss")
    )
    with pytest.raises(ConfigError, match=r"'EarlyStopping': no metric.*name: ValidationLoss\}"):
        trainer.train()


def test_a_metric_of_another_period_is_waited_for(small_trainer):
    class Losses(hooks.evaluation.Measurement):
        def is_due(self, trainer):
            return True

        def after_step(self, trainer):
            self.put(trainer, {"set": {"val": {"total_loss": 2.0}}})

    trainer = small_trainer(Evaluation(evaluate=Values(1), period=2), Losses())
    trainer.results_iter, trainer.results = 1, {"set": {"val": {"total_loss": 2.0}}}
    assert metric_value(trainer, "bbox/AP", "X") is None
    assert metric_value(trainer, "val/total_loss", "X") == 2.0
    with pytest.raises(ConfigError, match=r"no metric 'val/total_los'; did you mean"):
        metric_value(trainer, "val/total_los", "X")
    trainer.iter = 1
    assert metric_value(trainer, "val/total_loss", "X") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("bbox/AP", 1.0), ("a/bbox/AP", 1.0), ("b/bbox/AP", 2.0)],
)
def test_of_several_data_sets_the_first_one_is_meant(small_trainer, name, value):
    trainer = small_trainer()
    trainer.results = {"a": {"bbox": {"AP": 1.0}}, "b": {"bbox": {"AP": 2.0}}}
    trainer.results_iter = 1
    assert metric_value(trainer, name, "X") == value
