"""Previews are what training does."""

import csv
import pathlib

import numpy as np
import pytest
import torch

from detlite import load_config
from detlite.engine.ema import ModelEMA
from detlite.errors import ConfigError
from detlite.modeling import build_meta_arch
from detlite.solver import build_optimizer, build_schedule
from detlite.solver.preview import preview_schedule, preview_table, write_csv

QUICKSTART = pathlib.Path(__file__).parents[3] / "configs/quickstart.yaml"
SMALL = [
    "model.neck.out_channels=16",
    "model.head.num_convs=1",
    "solver.max_iter=40",
    "solver.schedule={name: WarmupMultiStepLR, milestones: [20, 30], warmup_iters: 10}",
]


def meta_model(config):
    with torch.device("meta"):
        return build_meta_arch(config.model, ["a", "b"])


def preview(*overrides, images=None):
    config = load_config(QUICKSTART, [*SMALL, *overrides])
    return preview_schedule(config, meta_model(config), images)


def test_the_rates_are_those_of_the_optimizer_in_training():
    overrides = [
        "solver.optimizer={name: SGD, lr: 0.1, momentum: 0.9}",
        "solver.schedule={name: OneCycleLR, max_lr: 0.2, total_steps: 40}",
        "solver.parameter_groups=[{match: 'head.*', lr_factor: 0.5}]",
    ]
    config = load_config(QUICKSTART, [*SMALL, *overrides])
    model = build_meta_arch(config.model, ["a", "b"])
    solver = config.solver
    optimizer = build_optimizer(solver.optimizer, model, parameter_groups=solver.parameter_groups)
    schedule = build_schedule(solver.schedule, optimizer, solver.max_iter)
    expected = []
    for _ in range(solver.max_iter):
        groups = {group["name"]: group for group in optimizer.param_groups}
        expected.append((groups["backbone, neck"]["lr"], groups["head"]["lr"]))
        momentum = optimizer.param_groups[0]["momentum"]
        optimizer.step()
        schedule.step()
    found = preview_schedule(config, meta_model(config))
    assert [curve.label.split()[0] for curve in found.lr] == ["backbone,", "head"]
    assert np.stack([curve.values for curve in found.lr], axis=1).tolist() == [
        list(rates) for rates in expected
    ]
    (curve,) = found.momentum
    assert curve.moves
    assert curve.values[-1] == momentum


def test_groups_with_the_same_rate_share_a_curve():
    found = preview("solver.weight_decay_norm=0.5")
    assert [curve.label for curve in found.lr] == ["all"]
    assert {curve.label: curve.values[0] for curve in found.weight_decay} == {
        "weights": 0.0001,
        "norms": 0.5,
        "biases": 0.0,
    }


def test_the_first_curve_has_the_plain_rate():
    found = preview("solver.parameter_groups=[{match: 'backbone.*', lr_factor: 2}]")
    assert found.lr[0].values[15] == pytest.approx(0.002)
    assert found.lr[1].values[15] == pytest.approx(0.004)


def test_the_average_keeps_what_the_run_s_average_keeps():
    found = preview("train.ema={decay: 0.9, warmup: 5}", "solver.max_iter=60").ema_decay
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    ema = ModelEMA(model, decay=0.9, warmup=5)
    torch.nn.init.ones_(model.weight)
    left = 1.0
    for share in found:
        ema.update(model)
        left *= share
        assert 1 - ema.weights["weight"].item() == pytest.approx(left, abs=1e-6)
    assert (found[0], found[-1]) == (0.2, 0.9)
    assert preview().ema_decay is None


def test_the_average_with_a_period_keeps_all_but_now_and_then():
    keys = "train.ema={decay: 0.9, warmup: 5, period: 3, start: 7}"
    found = preview(keys, "solver.max_iter=60").ema_decay
    model = torch.nn.Linear(1, 1, bias=False)
    ema = ModelEMA(model, decay=0.9, warmup=5, period=3, start=7)
    for iteration, share in enumerate(found):
        torch.nn.init.zeros_(ema.weights["weight"])
        torch.nn.init.ones_(model.weight)
        ema.update(model, iteration)
        assert 1 - ema.weights["weight"].item() == pytest.approx(share, abs=1e-6), iteration
    assert found[:13].tolist() == [0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0.2]


def test_evaluations_and_checkpoints_fall_where_the_hooks_put_them():
    found = preview("test.eval_period=15", "train.checkpoint_period=7").events
    assert found == {"evaluation": [15, 30, 40], "checkpoint": [7, 14, 21, 28, 35, 40]}
    found = preview(
        "train.hooks=[{name: Evaluation, period: 20}, {name: PeriodicCheckpointer, enabled: false}]"
    ).events
    assert found == {"evaluation": [20, 40]}
    assert preview("data.test=[]").events == {"checkpoint": [40]}


def test_an_optimizer_without_momentum_or_decay_has_no_curves_of_them():
    found = preview("solver.optimizer={name: Rprop, lr: 0.1}", "solver.weight_decay_norm=null")
    assert (found.momentum, found.weight_decay) == ([], [])
    assert "momentum" not in preview_table(found)


def test_a_schedule_that_ends_before_the_run_is_told():
    with pytest.raises(ConfigError, match=r"ends after 20 iterations.*max_iter is 40"):
        preview("solver.schedule={name: OneCycleLR, max_lr: 0.1, total_steps: 20}")


def test_frozen_parameters_are_in_no_group():
    found = preview("solver.freeze=['backbone.*', 'neck.*']")
    tensors = [line.split()[:-5] for line in found.groups.splitlines()[2:]]
    # Of the head: four convolutions; of two a norm follows, of two a bias belongs to them.
    assert tensors == [["weights", "4"], ["norms", "and", "biases", "6"]]


def test_the_table_has_the_turning_points_with_epochs_and_rates():
    table = preview_table(preview("test.eval_period=15", images=64))
    rows = [line.split(maxsplit=3) for line in table.splitlines() if line[:1].isdigit()]
    assert rows == [
        ["0", "0.00", "2e-06", "first"],
        ["10", "1.25", "0.002", "end of the rise"],
        ["20", "2.50", "0.0002", "x 0.1"],
        ["30", "3.75", "2e-05", "x 0.1"],
        ["39", "4.88", "2e-05", "last"],
    ]
    assert "40 iterations of 8 images, 320 in all, 5 epochs of 64" in table
    assert "evaluation: 3 x, after 15, 30, 40 iterations" in table
    assert "epoch" not in preview_table(preview())


def test_the_table_finds_the_peak_of_a_smooth_schedule():
    table = preview_table(
        preview("solver.schedule={name: OneCycleLR, max_lr: 0.1, total_steps: 40}")
    )
    (line,) = [line for line in table.splitlines() if "highest" in line]
    assert line.split() == ["11", "0.1", "highest"]


def test_many_rates_are_told_by_the_plain_the_lowest_and_the_highest():
    overrides = ["solver.layer_decay=0.5", "solver.schedule.warmup_iters=0"]
    overrides.append("solver.parameter_groups=[{match: 'head.*', lr_factor: 4}]")
    found = preview(*overrides)
    assert len(found.lr) == 9  # stem, six blocks, neck, head
    table = preview_table(found)
    assert "9 different rates: the plain, the lowest, the highest" in table
    (first,) = [line for line in table.splitlines() if "first" in line]
    assert first.split()[1:4] == ["0.002", "1.563e-05", "0.008"]


def test_the_csv_has_a_row_for_each_iteration(tmp_path):
    found = preview("solver.parameter_groups=[{match: 'head.*', lr_factor: 0.5}]", images=16)
    write_csv(found, tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert len(rows) == 40
    assert head[:2] == ["iteration", "epoch"]
    assert len(set(head)) == len(head)
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    assert columns["epoch"][3] == "1.5"
    for curve in found.lr:
        assert [float(value) for value in columns[f"lr: {curve.label}"]] == curve.values.tolist()
