"""Configs for another batch size, against hand-worked numbers and the peers' rules."""

import logging
import pathlib

import pytest

from detlite import load_config
from detlite.config import parse_config
from detlite.errors import ConfigError
from detlite.solver import scale_to_batch

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def test_half_the_batch_is_half_the_rate_and_twice_the_iterations(scaled):
    config = scaled(
        "test.eval_period=5001",
        "train.ema={decay: 0.99, warmup: 7}",
        "train.log_period=20",
        "train.hooks=[{name: NonFiniteLossCheck, period: 30}, {name: MetricSummary, period: 10}]",
        batch=8,
    )
    solver, train = config.solver, config.train
    assert solver.optimizer.lr == 0.005
    assert solver.schedule.milestones == [120000, 160000]
    assert solver.schedule.warmup_iters == 2000
    assert solver.max_iter == 180000
    assert train.checkpoint_period == 10000
    assert config.test.eval_period == 10002
    assert train.ema.decay == pytest.approx(0.99**0.5)
    assert train.ema.warmup == 14
    assert train.hooks[0].period == 60
    # What stays: lines of the log, shares, factors, the momentum, the weight decay.
    assert train.log_period == 20
    assert train.hooks[1].period == 10
    assert solver.schedule.warmup_factor == 0.001
    assert solver.schedule.gamma == 0.1
    assert (solver.optimizer.momentum, solver.optimizer.weight_decay) == (0.9, 0.0001)
    assert (config.data.batch_size, solver.reference_batch_size) == (8, None)


@pytest.mark.parametrize("batch", [2, 4, 6, 24, 64, 100])
def test_the_numbers_are_those_of_detectron2_and_mmdetection(scaled, batch):
    """``auto_scale_workers`` and ``--auto-scale-lr``, whose arithmetic is written out here."""
    written = load_config(CONFIGS / "retinanet/retinanet_r50_fpn_1x_coco.yaml").solver
    solver = scaled(batch=batch).solver
    scale = batch / 16
    assert solver.optimizer.lr == written.optimizer.lr * scale
    assert solver.max_iter == round(written.max_iter / scale)
    assert solver.schedule.warmup_iters == round(written.schedule.warmup_iters / scale)
    expected = [round(step / scale) for step in written.schedule.milestones]
    assert solver.schedule.milestones == expected


def test_the_written_config_has_no_reference_and_is_not_scaled_again(scaled):
    config = scaled(batch=4)
    again = parse_config(config.to_yaml(), "config.yaml")
    assert again == config
    assert scale_to_batch(again) is again


def test_without_a_reference_nothing_changes():
    config = load_config(CONFIGS / "quickstart.yaml", ["data.batch_size=3"])
    before = config.to_yaml()
    assert scale_to_batch(config) is config
    assert config.to_yaml() == before


def test_at_the_reference_only_the_reference_goes():
    config = load_config(CONFIGS / "quickstart.yaml", ["solver.reference_batch_size=8"])
    before = config.to_yaml()
    after = scale_to_batch(config)
    assert after.to_yaml() == before.replace(
        "reference_batch_size: 8", "reference_batch_size: null"
    )


def test_the_config_that_is_given_is_left_as_it_is():
    overrides = ["solver.reference_batch_size=16", "data.batch_size=4"]
    config = load_config(CONFIGS / "quickstart.yaml", overrides)
    before = config.to_yaml()
    assert scale_to_batch(config).solver.max_iter == 4000
    assert config.to_yaml() == before


def test_the_arithmetic_is_logged(scaled, caplog):
    caplog.set_level(logging.INFO)
    scaled(batch=6)
    table = caplog.messages[0].splitlines()
    assert table[0] == (
        "scaled from solver.reference_batch_size 16 to data.batch_size 6, k = 6/16 = 0.375:"
    )
    rows = {line.split()[0]: line.split()[1:] for line in table[3:]}
    assert rows["solver.optimizer.lr"] == ["0.01", "x", "k", "0.00375"]
    assert rows["solver.max_iter"] == ["90000", "/", "k", "240000"]
    assert " ".join(rows["solver.schedule.milestones"]) == "[60000, 80000] / k [160000, 213333]"
    assert table[-1].split() == ["images", "in", "the", "run", "1440000", "1440000"]


@pytest.mark.parametrize(
    ("number", "batch", "expected"),
    [
        (5, 32, 3),  # 2.5, up
        (7, 32, 4),  # 3.5, up; Python's own rounding would also say 4
        (9, 32, 5),  # 4.5, up; Python's own rounding would say 4
        (1, 64, 1),  # 0.25, but a period of 0 would be none
        (1, 1, 16),
        (1000, 48, 333),
        (2**53 + 1, 16, 2**53 + 1),
        (2**53 + 1, 8, 2**54 + 2),  # beyond the integers of floating point
    ],
)
def test_iterations_are_rounded_to_the_nearest_halves_up_and_stay_at_least_1(
    scaled, number, batch, expected
):
    config = scaled(f"train.checkpoint_period={number}", batch=batch)
    assert config.train.checkpoint_period == expected


@pytest.mark.parametrize(
    ("batch", "period", "start", "warmup", "power"),
    [
        (16, 32, 6255, 7, 1),
        (4, 128, 25020, 7, 1),  # between two updates as many images as before
        (64, 8, 1564, 7, 1),
        (48, 11, 2085, 7, 3 * 11 / 32),  # 32 / 3 is no whole number
        (1024, 1, 98, 4, 2),
    ],
)
def test_an_average_with_a_period_sees_as_many_images_from_update_to_update(
    scaled, batch, period, start, warmup, power
):
    written = "train.ema={decay: 0.99, warmup: 7, period: 32, start: 6255}"
    ema = scaled(written, batch=batch).train.ema
    assert (ema.period, ema.start, ema.warmup) == (period, start, warmup)
    assert ema.decay == pytest.approx(0.99**power)


def test_what_is_switched_off_by_0_stays_so(scaled):
    config = scaled("solver.schedule.warmup_iters=0", batch=64)
    assert (config.solver.schedule.warmup_iters, config.test.eval_period) == (0, 0)
    assert (config.train.ema.decay, config.train.ema.warmup) == (0.0, 0)


@pytest.mark.parametrize(
    ("milestones", "max_iter", "expected"),
    [
        ([10, 11, 12], 40, [3, 4, 5]),  # rounded 3, 3, 3
        ([10, 11, 12], 12, [1, 2, 3]),  # no further than the end, 3
        ([0, 1, 2], 40, [0, 1, 2]),  # rounded 0, 1, 1
        ([4, 8, 400], 12, [1, 2, 100]),  # beyond the end stays beyond it
        ([8, 8], 40, [2, 2]),  # equal ones stay equal
        ([], 40, []),
    ],
)
def test_milestones_that_rose_still_rise_within_the_run(scaled, milestones, max_iter, expected):
    config = scaled(
        f"solver.schedule.milestones={milestones}", f"solver.max_iter={max_iter}", batch=64
    )
    assert config.solver.schedule.milestones == expected


def test_more_milestones_than_iterations_are_an_error(scaled):
    with pytest.raises(ConfigError, match=r"milestones \[1, 2, 3\] would have to fit into 1 iter"):
        scaled("solver.schedule.milestones=[1, 2, 3]", "solver.max_iter=4", batch=64)


def test_every_shipped_config_can_be_scaled():
    for path in sorted(CONFIGS.glob("[!_]*/*.yaml")):
        config = load_config(path)
        reference = config.data.batch_size
        config.solver.reference_batch_size = reference
        config.data.batch_size = 2 * reference
        used = scale_to_batch(config).solver
        assert used.max_iter == (config.solver.max_iter + 1) // 2
        assert used.optimizer.lr == 2 * config.solver.optimizer.lr
        assert used.reference_batch_size is None
