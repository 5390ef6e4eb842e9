import math

import pytest
import torch
import torchvision
from torchvision.models.detection._utils import Matcher

from detlite.ops import match_anchors, reference

NATIVE = torch.ops.detlite.match_anchors.default.has_kernel_for_dispatch_key("CPU")


def anchors_on_a_grid() -> torch.Tensor:
    """Squares of whole sizes on whole places, so that many overlap a box equally."""
    places = torch.cartesian_prod(torch.arange(0, 200, 8), torch.arange(0, 200, 8)).float()
    sizes = torch.tensor([16.0, 32.0, 64.0])
    low = places[:, None] - sizes[None, :, None] / 2
    return torch.cat((low, low + sizes[None, :, None]), dim=-1).reshape(-1, 4)


@pytest.mark.parametrize("allow_low_quality", [False, True])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.7, 0.3), (0.5, 0.5), (1.0, 0.0)])
@pytest.mark.parametrize("num_gt", [1, 2, 30])
@pytest.mark.parametrize("whole", [False, True])
def test_matching_equals_torchvision(num_gt, thresholds, allow_low_quality, whole, make_boxes):
    gt_boxes = make_boxes(num_gt, 11)
    if whole:
        gt_boxes = torch.cat((gt_boxes / 8, gt_boxes[:3] / 8)).round() * 8
        gt_boxes[:, 2:] = torch.max(gt_boxes[:, 2:], gt_boxes[:, :2] + 8)
    anchors = anchors_on_a_grid()
    matched, labels = match_anchors(gt_boxes, anchors, *thresholds, allow_low_quality)
    expected = Matcher(*thresholds, allow_low_quality)(torchvision.ops.box_iou(gt_boxes, anchors))
    foreground = expected >= 0
    assert torch.equal(labels == 1, foreground)
    assert torch.equal(labels == 0, expected == Matcher.BELOW_LOW_THRESHOLD)
    assert torch.equal(labels == -1, expected == Matcher.BETWEEN_THRESHOLDS)
    assert torch.equal(matched[foreground], expected[foreground])
    assert (matched.dtype, labels.dtype) == (torch.int64, torch.int8)


def test_labels_of_hand_worked_overlaps():
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [100, 0, 110, 10]])
    # IoU with the first: 1, 0.5, 0.45, 0.4, 0.3; with the second 0.2; with none.
    anchors = torch.tensor([[0.0, 0, 10, width] for width in (10, 5, 4.5, 4, 3)])
    anchors = torch.cat((anchors, torch.tensor([[100.0, 0, 110, 2], [50, 50, 60, 60]])))
    matched, labels = match_anchors(gt_boxes, anchors, 0.5, 0.4, False)
    assert labels.tolist() == [1, 1, -1, -1, 0, 0, 0]
    assert matched.tolist() == [0, 0, 0, 0, 0, 1, 0]
    matched, labels = match_anchors(gt_boxes, anchors, 0.5, 0.4, True)
    assert labels.tolist() == [1, 1, -1, -1, 0, 1, 0]
    assert matched.tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_the_first_of_equal_ground_truths_wins():
    box = [0.0, 0, 10, 10]
    matched, labels = match_anchors(
        torch.tensor([[50.0, 50, 60, 60], box, box]), torch.tensor([box]), 0.5, 0.4, True
    )
    assert (matched.tolist(), labels.tolist()) == ([1], [1])


def test_a_low_quality_match_keeps_the_ground_truth_that_the_anchor_overlaps_most():
    # The anchor is the best of the small box, yet overlaps the large one more.
    gt_boxes = torch.tensor([[0.0, 0, 3, 10], [0, 0, 10, 3]])
    anchors = torch.tensor([[0.0, 0, 3, 6], [0, 0, 10, 2]])
    gt_boxes = torch.cat((gt_boxes, torch.tensor([[1.0, 0, 2, 1]])))
    matched, labels = match_anchors(gt_boxes, anchors, 0.9, 0.8, True)
    assert (matched.tolist(), labels.tolist()) == ([0, 1], [1, 1])


def test_all_equally_good_anchors_become_foreground():
    anchors = torch.tensor([[0.0, 0, 4, 4], [6, 0, 10, 4], [0, 0, 2, 2]])
    _, labels = match_anchors(torch.tensor([[0.0, 0, 10, 4]]), anchors, 0.9, 0.8, True)
    assert labels.tolist() == [1, 1, 0]


def test_without_ground_truth_all_anchors_are_background():
    matched, labels = match_anchors(torch.zeros(0, 4), anchors_on_a_grid(), 0.5, 0.4, True)
    assert len(matched) == len(labels) == 25 * 25 * 3
    assert not matched.any()
    assert not labels.any()


def test_without_anchors_there_is_nothing_to_match(make_boxes):
    for num_gt in (0, 3):
        matched, labels = match_anchors(make_boxes(num_gt), torch.zeros(0, 4), 0.5, 0.4, True)
        assert matched.shape == labels.shape == (0,)


def test_bad_ground_truth_is_given_to_no_anchor(bad_boxes):
    anchors = torch.cat((anchors_on_a_grid(), torch.tensor([[0.0, 0, 10, 10]])))
    _, labels = match_anchors(bad_boxes, anchors, 0.5, 0.4, True)
    assert not labels.any()
    good = torch.tensor([[3.0, 5, 30, 40]])
    matched, labels = match_anchors(torch.cat((bad_boxes, good)), anchors, 0.5, 0.4, True)
    assert torch.equal(labels, match_anchors(good, anchors, 0.5, 0.4, True)[1])
    assert (matched[labels == 1] == len(bad_boxes)).all()


def test_bad_anchors_are_background(bad_boxes):
    _, labels = match_anchors(torch.tensor([[0.0, 0, 10, 10]]), bad_boxes, 0.5, 0.4, True)
    assert not labels.any()


KINDS = ["scattered", "tied", "repeated", "bad", "far away", "all scales", "one line"]


def draw_boxes(kind, num_boxes, generator, bad_boxes, dtype=torch.float32):
    """Boxes (N, 4) that are hard on a matcher in one way."""
    corner, size = torch.rand(2, num_boxes, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat((150 * corner, 150 * corner + 1 + 49 * size), dim=1)
    if kind == "tied":  # many equal IoU
        boxes[:, :2] = (8 * corner).floor()
        boxes[:, 2:] = boxes[:, :2] + 1 + (6 * size).floor()
    elif kind == "repeated":  # the same few boxes in every block of anchors
        boxes = boxes[torch.arange(num_boxes) % 7]
    elif kind == "far away":  # where float32 holds few digits of a size
        boxes += 1e6
    elif kind == "all scales":
        boxes[:, 2:] = boxes[:, :2] + torch.exp(size * math.log(4000))
    elif kind == "one line":  # only touching, or on top of each other
        boxes = torch.tensor([0.0, 0, 10, 10]) + 5 * (20 * corner).floor()[:, [0, 0, 0, 0]]
    boxes = boxes.to(dtype)
    if kind == "bad":
        picked = torch.randint(len(bad_boxes), (num_boxes,), generator=generator)
        fine = torch.rand(num_boxes, generator=generator) < 0.5
        boxes = torch.where(fine[:, None], boxes, bad_boxes[picked].to(dtype))
    return boxes


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low_quality", [False, True])
def test_matching_equals_the_dense_reference_to_the_bit(kind, dtype, low_quality, bad_boxes):
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    for case in range(80):
        num_gt, num_anchors = torch.randint(1, 40, (2,), generator=generator).tolist()
        num_anchors *= 37 if case % 2 else 1  # some need several blocks
        gt_boxes = draw_boxes(kind, num_gt, generator, bad_boxes, dtype)
        anchors = draw_boxes(kind, num_anchors, generator, bad_boxes, dtype)
        # Thresholds that some IoU attains, or almost.
        attained = reference.box_iou(gt_boxes, anchors).flatten()
        picked = torch.randint(len(attained), (2,), generator=generator)
        low, high = sorted(round(value, case % 9 + 1) for value in attained[picked].tolist())
        arguments = (torch.tensor([0, num_gt]), anchors, min(high, 1), min(low, 1), low_quality)
        found = torch.ops.detlite.match_anchors(gt_boxes, *arguments)
        assert_same(found, reference.match_anchors(gt_boxes, *arguments))


@pytest.mark.parametrize("match", [match_anchors, "reference"])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.4, 0.7, 0.9])
def test_thresholds_are_rounded_to_the_type_of_the_boxes(threshold, match):
    # The IoU is the float32 next to the threshold, above it or below; torch calls them equal.
    gt_boxes = torch.tensor([[0.0, 0, 1, 1]])
    anchors = torch.tensor([[0.0, 0, 1, threshold]])
    if match == "reference":
        offsets = torch.tensor([0, 1])
        _, labels = reference.match_anchors(gt_boxes, offsets, anchors, threshold, threshold, False)
    else:
        _, labels = match(gt_boxes, anchors, threshold, threshold, False)
    assert labels.flatten().tolist() == [1]


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("num_anchors", [0, 1, 511, 512, 513, 100_000])
def test_a_batch_is_matched_as_its_images_one_by_one(num_anchors, low_quality, bad_boxes):
    generator = torch.Generator().manual_seed(num_anchors)
    anchors = draw_boxes("all scales", num_anchors, generator, bad_boxes)
    images = [
        draw_boxes("all scales", num_gt, generator, bad_boxes) for num_gt in (0, 3, 1, 0, 40, 0)
    ]
    images[2] = bad_boxes
    matched, labels = match_anchors(images, anchors, 0.5, 0.4, low_quality)
    assert matched.shape == labels.shape == (6, num_anchors)
    for i, gt_boxes in enumerate(images):
        alone = match_anchors(gt_boxes, anchors, 0.5, 0.4, low_quality)
        assert_same((matched[i], labels[i]), alone)
        dense = reference.match_anchors(
            gt_boxes, torch.tensor([0, len(gt_boxes)]), anchors, 0.5, 0.4, low_quality
        )
        assert_same(alone, [result[0] for result in dense])


def test_an_empty_batch_has_no_rows(make_boxes):
    matched, labels = match_anchors([], make_boxes(5), 0.5, 0.4, True)
    assert matched.shape == labels.shape == (0, 5)


def test_the_number_of_threads_changes_nothing(make_boxes):
    images, anchors = [make_boxes(20), make_boxes(5, 1)], make_boxes(50_000, 2)
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results.append(match_anchors(images, anchors, 0.5, 0.4, True))
    torch.set_num_threads(threads)
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_of_16_bits_are_matched_in_float32(dtype, make_boxes):
    gt_boxes, anchors = make_boxes(20, 1, dtype), make_boxes(700, 2, dtype)
    assert_same(
        match_anchors(gt_boxes, anchors, 0.5, 0.4, True),
        match_anchors(gt_boxes.float(), anchors.float(), 0.5, 0.4, True),
    )


def test_strided_boxes_are_matched(make_boxes):
    gt_boxes, anchors = make_boxes(40, 1), make_boxes(700, 2)
    assert_same(
        match_anchors(gt_boxes[::2], anchors.T.contiguous().T, 0.5, 0.4, True),
        match_anchors(gt_boxes[::2].clone(), anchors, 0.5, 0.4, True),
    )


@pytest.mark.parametrize("counts", [[20], [0, 3, 17, 0], [0], []])
def test_the_matching_op_keeps_torchs_rules(counts, make_boxes):
    offsets = torch.tensor([0, *counts]).cumsum(0)
    arguments = (make_boxes(sum(counts)), offsets, make_boxes(50), 0.5, 0.4, True)
    torch.library.opcheck(torch.ops.detlite.match_anchors.default, arguments)


@pytest.mark.skipif(not NATIVE, reason="plain torch trusts its arguments")
@pytest.mark.parametrize("offsets", [[0, 3, 2, 5], [1, 5], [0, 4], [0, 6], [-1, 5], []])
def test_the_op_refuses_offsets_that_lead_out_of_the_boxes(offsets, make_boxes):
    offsets = torch.tensor(offsets, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="offsets must"):
        torch.ops.detlite.match_anchors(make_boxes(5), offsets, make_boxes(9), 0.5, 0.4, True)


@pytest.mark.slow
def test_matching_compiles_into_one_graph(make_boxes):
    match = torch.compile(match_anchors, fullgraph=True)
    images, anchors = [make_boxes(3), make_boxes(0), make_boxes(9, 1)], make_boxes(700, 2)
    arguments = (anchors, 0.5, 0.4, True)
    assert_same(match(images, *arguments), match_anchors(images, *arguments))
    assert_same(match(images[0], *arguments), match_anchors(images[0], *arguments))


@pytest.mark.parametrize(
    ("foreground", "background"), [(0.4, 0.5), (1.1, 0.5), (0.5, -0.1), (float("nan"), 0.4)]
)
def test_matching_refuses_impossible_thresholds(foreground, background):
    with pytest.raises(ValueError, match=f"background {background}, foreground {foreground}"):
        match_anchors(torch.zeros(1, 4), torch.zeros(1, 4), foreground, background, True)


def test_matching_says_which_boxes_are_wrong():
    with pytest.raises(ValueError, match=r"gt_boxes must have shape \(N, 4\), got \(0,\)"):
        match_anchors(torch.zeros(0), torch.zeros(1, 4), 0.5, 0.4, True)
    with pytest.raises(ValueError, match="anchors must be of a floating type"):
        match_anchors(torch.zeros(1, 4), torch.zeros(1, 4).int(), 0.5, 0.4, True)
    with pytest.raises(ValueError, match=r"gt_boxes\[1\] must have shape \(N, 4\), got \(2, 5\)"):
        match_anchors([torch.zeros(1, 4), torch.zeros(2, 5)], torch.zeros(1, 4), 0.5, 0.4, True)
    with pytest.raises(ValueError, match=r"agree in type and device, got torch.float64 on cpu and"):
        match_anchors(torch.zeros(1, 4).double(), torch.zeros(1, 4), 0.5, 0.4, True)
