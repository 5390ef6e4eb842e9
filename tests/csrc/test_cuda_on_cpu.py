"""The CUDA kernels against plain torch, without a GPU: their code, compiled for the CPU.

It proves logic, not speed: indices, barriers, ties, borders of blocks. tests/ops/test_cuda.py runs
the same comparisons on a GPU.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detlite.ops import reference

NAN, INF = math.nan, math.inf
BAD_BOXES = torch.tensor(
    [
        [NAN, 0, 10, 10],
        [0, 0, INF, 10],
        [-INF, -INF, INF, INF],
        [10, 0, 0, 10],
        [10, 10, 0, 0],
        [5, 0, 5, 10],
        [5, 5, 5, 5],
        [0, 0, 1e-30, 1e-30],
        [0, 0, 1e30, 1e30],
    ]
)
SMALL = [0, 1, 2, 31, 32, 33, 255]
LARGE = [1023, 1024, 1025, 2500]
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def scattered(num_boxes: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num_boxes, 2, generator=generator, dtype=torch.float64) * 150
    size = 1 + torch.rand(num_boxes, 2, generator=generator, dtype=torch.float64) * 49
    return torch.cat((corner, corner + size), dim=1).to(dtype)


def clusters(num_boxes: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    centers = scattered(max(num_boxes // 20, 1), seed)
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randint(len(centers), (num_boxes,), generator=generator)
    noise = torch.randn(num_boxes, 4, generator=generator) * 0.5
    return (centers[picked] + noise).to(dtype)


def whole(num_boxes: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Corners on a coarse grid: many equal overlaps, some boxes without an area."""
    return (scattered(num_boxes, seed) / 16).round().mul(16).to(dtype)


def chain(num_boxes: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Each box overlaps the next one by half, and no other."""
    left = torch.arange(num_boxes) % 120  # float16 counts no further
    return torch.stack((left, left * 0, left + 3, left * 0 + 1), dim=1).to(dtype)


def equal(num_boxes: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return scattered(1, seed, dtype).expand(num_boxes, 4)


def with_bad(num_boxes: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    boxes = clusters(num_boxes, seed, dtype)
    generator = torch.Generator().manual_seed(seed)
    bad = BAD_BOXES[torch.randint(len(BAD_BOXES), (num_boxes,), generator=generator)].to(dtype)
    return torch.where(torch.rand(num_boxes, 1, generator=generator) < 0.3, bad, boxes)


DRAWS = [scattered, clusters, whole, chain, equal, with_bad]


def draw_scores(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scores with ties, both zeros, infinities and NaN."""
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(shape, generator=generator) * 20).round() / 20
    special = torch.tensor([0.0, -0.0, INF, -INF, NAN])
    picked = special[torch.randint(5, shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.1, picked, scores).to(dtype)


def draw_groups(shape: tuple[int, ...], seed: int, num_groups: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_groups, shape, generator=generator) * 2**40 - 2**41


@pytest.mark.parametrize("name", ["box_iou", "generalized_box_iou"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("draw", DRAWS)
def test_overlaps_of_every_pair_equal_the_reference(emulated, name, dtype, draw):
    op, expected = getattr(emulated.ops, name), getattr(reference, name)
    for n, m in [(0, 5), (5, 0), (1, 1), (31, 511), (32, 512), (33, 514), (65, 1032), (3, 1030)]:
        boxes1, boxes2 = draw(n, n, dtype), draw(m, m + 1, dtype)
        assert torch.equal(op(boxes1, boxes2), expected(boxes1, boxes2))


def test_boxes_need_not_be_aligned_or_contiguous(emulated):
    memory = torch.cat((torch.zeros(1), scattered(200, 0).flatten()))
    shifted = memory[1:].view(-1, 4)
    columns = scattered(200, 0).t().contiguous().t()
    expected = reference.box_iou(scattered(200, 0), scattered(200, 0))
    assert torch.equal(emulated.ops.box_iou(shifted, columns), expected)
    scores = torch.rand(400, generator=torch.Generator().manual_seed(1))[::2]
    kept = emulated.ops.nms(columns, scores, 0.3)
    assert kept.tolist() == reference.nms(columns, scores, 0.3).tolist()


def assert_nms_equals_the_reference(emulated, draw, num_boxes, threshold):
    boxes, scores = draw(num_boxes, num_boxes), draw_scores((num_boxes,), num_boxes)
    kept = emulated.ops.nms(boxes, scores, threshold)
    assert kept.tolist() == reference.nms(boxes, scores, threshold).tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("num_boxes", SMALL)
@pytest.mark.parametrize("draw", DRAWS)
def test_nms_equals_the_reference(emulated, draw, num_boxes, threshold):
    assert_nms_equals_the_reference(emulated, draw, num_boxes, threshold)


@pytest.mark.parametrize("num_boxes", [1024, 1025])
@pytest.mark.parametrize("draw", DRAWS)
def test_nms_equals_the_reference_at_the_border_of_a_block(emulated, draw, num_boxes):
    assert_nms_equals_the_reference(emulated, draw, num_boxes, 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("num_boxes", LARGE)
@pytest.mark.parametrize("draw", DRAWS)
def test_nms_of_several_blocks_equals_the_reference(emulated, draw, num_boxes, threshold):
    assert_nms_equals_the_reference(emulated, draw, num_boxes, threshold)


@pytest.mark.parametrize(
    ("num_boxes", "num_groups"), [(0, 2), (1, 2), (33, 1), (33, 2), (1025, 2), (2500, 80)]
)
@pytest.mark.parametrize("draw", DRAWS)
def test_batched_nms_equals_the_reference(emulated, draw, num_boxes, num_groups):
    boxes, scores = draw(num_boxes, num_boxes), draw_scores((num_boxes,), 5)
    groups = draw_groups((num_boxes,), 7, num_groups)
    kept = emulated.ops.batched_nms(boxes, scores, groups, 0.4)
    assert kept.tolist() == reference.batched_nms(boxes, scores, groups, 0.4).tolist()


@pytest.mark.parametrize("score_dtype", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_nms_takes_all_floating_types(emulated, dtype, score_dtype):
    boxes, scores = with_bad(1100, 3, dtype), draw_scores((1100,), 4, score_dtype)
    kept = emulated.ops.nms(boxes, scores, 0.4)
    assert kept.tolist() == reference.nms(boxes, scores, 0.4).tolist()


def test_a_chain_of_thousands_is_resolved(emulated):
    boxes = torch.tensor([[i, 0, i + 3, 1] for i in range(3000)], dtype=torch.float32)
    kept = emulated.ops.nms(boxes, torch.linspace(1, 0, 3000), 0.3)
    assert kept.tolist() == list(range(0, 3000, 2))


@pytest.mark.parametrize("percent", [7, 10, 30, 33, 60, 70, 80, 90])
def test_the_iou_is_compared_with_the_exact_threshold(emulated, percent):
    boxes = torch.tensor([[0.0, 0, 100, 1], [0, 0, percent, 1]])
    scores = torch.tensor([0.9, 0.8])
    kept = emulated.ops.nms(boxes, scores, percent / 100)
    assert kept.tolist() == reference.nms(boxes, scores, percent / 100).tolist()


@pytest.mark.parametrize(
    ("num_boxes", "max_detections"),
    [(0, 0), (0, 3), (1, 1), (32, 0), (32, 5), (1024, 1024), (2100, 100), (2100, 5000)],
)
@pytest.mark.parametrize("draw", [scattered, equal, with_bad])
def test_padded_nms_equals_the_reference(emulated, draw, num_boxes, max_detections):
    boxes = torch.stack([draw(num_boxes, seed) for seed in range(3)])
    scores = draw_scores((3, num_boxes), 11)
    scores[1] = -INF
    scores[2, num_boxes // 2 :] = -INF
    groups = draw_groups((3, num_boxes), 12, 3)
    arguments = (boxes, scores, groups, 0.5, max_detections)
    waits = emulated.waits()
    indices, counts = emulated.ops.nms_padded(*arguments)
    assert emulated.waits() == waits
    expected_indices, expected_counts = reference.nms_padded(*arguments)
    assert torch.equal(indices, expected_indices)
    assert torch.equal(counts, expected_counts)


def test_padded_nms_of_no_images(emulated):
    empty = torch.zeros(0, 7)
    indices, counts = emulated.ops.nms_padded(torch.zeros(0, 7, 4), empty, empty.long(), 0.5, 3)
    assert (indices.shape, counts.shape) == ((0, 3), (0,))


def test_what_padded_nms_launches_depends_on_shapes_only(emulated):
    launches = set()
    for seed, draw in enumerate(DRAWS):
        before = emulated.launches()
        scores = draw_scores((1, 2500), seed)
        groups = torch.zeros(1, 2500, dtype=torch.int64)
        emulated.ops.nms_padded(draw(2500, seed)[None], scores, groups, 0.5, 10 * seed)
        launches.add(emulated.launches() - before)
    assert len(launches) == 1


@pytest.mark.parametrize("allow_low_quality", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("draw", DRAWS)
def test_matching_equals_the_reference(emulated, draw, dtype, allow_low_quality):
    waits = emulated.waits()
    for counts, num_anchors, thresholds in [
        ([], 5, (0.5, 0.4)),
        ([0], 5, (0.0, 0.0)),
        ([1], 1, (0.5, 0.5)),
        ([2], 0, (0.5, 0.4)),
        ([5, 0, 1], 255, (0.7, 0.3)),
        ([31], 256, (0.0, 0.0)),
        ([128], 33, (1.0, 0.0)),
        ([3, 0, 127, 0, 129, 1], 300, (0.5, 0.4)),
    ]:
        offsets = torch.tensor([0, *counts]).cumsum(0)
        gt_boxes = draw(sum(counts), 1, dtype)
        anchors = torch.cat((draw(num_anchors, 2, dtype), gt_boxes[:num_anchors:7]))
        arguments = (gt_boxes, offsets, anchors, *thresholds, allow_low_quality)
        matched, labels = emulated.ops.match_anchors(*arguments)
        expected_matched, expected_labels = reference.match_anchors(*arguments)
        assert torch.equal(matched, expected_matched)
        assert torch.equal(labels, expected_labels)
    assert emulated.waits() == waits


def test_matching_stays_within_the_ground_truth_that_there_is(emulated):
    offsets = torch.tensor([-5, 2, 2**40, 1])
    matched, labels = emulated.ops.match_anchors(
        scattered(4, 0), offsets, scattered(9, 1), 0.5, 0.4, True
    )
    assert (matched.shape, labels.shape) == ((3, 9), (3, 9))
    assert matched.min() >= 0
    assert matched.max() < 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_results_do_not_depend_on_the_order_of_threads(emulated, seed):
    emulated.seed(seed)
    boxes, scores = with_bad(2500, seed), draw_scores((2500,), seed)
    groups = draw_groups((2500,), seed, 3)
    kept = emulated.ops.batched_nms(boxes, scores, groups, 0.4)
    assert kept.tolist() == reference.batched_nms(boxes, scores, groups, 0.4).tolist()
    offsets = torch.tensor([0, 300, 300, 500])
    arguments = (boxes[:500], offsets, whole(1000, seed), 0.5, 0.4, True)
    for result, expected in zip(
        emulated.ops.match_anchors(*arguments), reference.match_anchors(*arguments), strict=True
    ):
        assert torch.equal(result, expected)


@pytest.mark.slow
def test_the_kernels_are_clean_under_sanitizers():
    """The quicker tests of this folder once more, in a process with both sanitizers."""
    # The C++ runtime too: Python has none, and the sanitizer looks for its exceptions at the start.
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True)
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    paths = [library.stdout.strip() for library in libraries]
    if not Path(paths[0]).is_absolute():
        pytest.skip("needs g++'s libasan")
    environment = os.environ | {
        "DETLITE_SANITIZE": "address,undefined",
        "LD_PRELOAD": " ".join(paths),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not 2500"]
    result = subprocess.run(
        [*command, Path(__file__).parent], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
