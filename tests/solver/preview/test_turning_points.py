"""Where curves jump or bend."""

import math

import numpy as np
import pytest

from detlite.solver.preview.turning_points import turning_points


def found(curve):
    return [(point.iteration, point.what) for point in turning_points(np.array([curve]))]


def warmup_then(rest, length=10):
    return [(i + 1) / (length + 1) for i in range(length)] + list(rest)


def test_a_step_is_found_at_its_first_iteration_with_its_factor():
    assert found([1.0] * 20 + [0.1] * 20) == [(20, "x 0.1")]
    assert found([1.0] * 20 + [0.1] * 10 + [0.05] * 20) == [(20, "x 0.1"), (30, "x 0.5")]


def test_the_end_of_a_warmup_is_found():
    assert found(warmup_then([1.0] * 30)) == [(10, "end of the rise")]
    cosine = [0.5 * (1 + math.cos(math.pi * i / 100)) for i in range(100)]
    assert found(warmup_then(cosine)) == [(10, "end of the rise")]


@pytest.mark.parametrize(
    "smooth",
    [
        [1.0] * 50,
        [0.0] * 50,
        [1 - i / 50 for i in range(50)],
        [0.97**i for i in range(500)],
        [0.5 * (1 + math.cos(math.pi * i / 500)) for i in range(500)],
        np.full(500, 0.3) + np.random.default_rng(0).normal(0, 1e-17, 500),
        [1.0],
        [1.0, 0.1],
    ],
)
def test_a_smooth_curve_has_none(smooth):
    assert found(smooth) == []


def test_the_ways_of_a_line_have_their_words():
    falls = [1.0] * 20 + [1 - i / 20 for i in range(1, 21)] + [0.0] * 20
    assert found(falls) == [(19, "begins to fall"), (39, "end of the fall")]
    zigzag = [abs(i % 20 - 10) / 10 for i in range(41)]
    assert found(zigzag)[:2] == [(10, "begins to rise"), (20, "end of the rise")]
    bent = [1 - i / 100 for i in range(20)] + [0.81 - i / 25 for i in range(1, 15)]
    assert found(bent) == [(19, "bends")]


def test_a_restart_is_a_jump_upwards():
    cycle = [0.1 + 0.45 * (1 + math.cos(math.pi * i / 50)) for i in range(50)]
    ((iteration, what),) = found(cycle * 2)
    assert iteration == 50
    assert what == f"x {1 / cycle[-1]:.4g}"


def test_points_of_all_curves_are_found_each_once():
    curves = np.array([[1.0] * 20 + [0.5] * 20, [0.1] * 30 + [0.2] * 10, [2.0] * 20 + [1.0] * 20])
    points = turning_points(curves)
    assert [(point.iteration, point.what) for point in points] == [(20, "x 0.5"), (30, "x 2")]
