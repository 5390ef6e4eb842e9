"""The ops on a GPU against the same ops on the CPU; CUDA graphs; no waiting for the device.

tests/csrc/test_cuda_on_cpu.py proves the kernels' logic where there is no GPU.
"""

import math

import pytest
import torch
from torch import Tensor

from detlite.modeling.box_coder import DeltaBoxCoder
from detlite.modeling.postprocessing import NMSPostprocessor
from detlite.ops import (
    batched_nms,
    box_iou,
    generalized_box_iou,
    match_anchors,
    nms,
    nms_padded,
    sigmoid_focal_loss,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
KINDS = ["scattered", "clusters", "whole", "equal", "chain", "bad"]


@pytest.fixture
def draw(make_boxes, make_clusters, bad_boxes):
    """A function that draws boxes (N, 4) of a kind, benign ones or such as are meant to hurt."""

    def make(kind: str, num_boxes: int, seed: int = 0, dtype: torch.dtype | None = None) -> Tensor:
        boxes = make_clusters(num_boxes, seed)
        generator = torch.Generator().manual_seed(seed)
        if kind == "scattered":
            boxes = make_boxes(num_boxes, seed) * torch.tensor(max(num_boxes, 1) ** 0.5 / 10)
        elif kind == "whole":
            boxes = (boxes / 16).round() * 16
        elif kind == "equal":
            boxes = make_boxes(1, seed).expand(num_boxes, 4)
        elif kind == "chain":
            left = torch.arange(num_boxes)
            boxes = torch.stack((left, left * 0, left + 3, left * 0 + 1), dim=1).float()
        elif kind == "bad":
            bad = bad_boxes[torch.randint(len(bad_boxes), (num_boxes,), generator=generator)]
            boxes = torch.where(torch.rand(num_boxes, 1, generator=generator) < 0.3, bad, boxes)
        return boxes.to(dtype or torch.float32)

    return make


def draw_scores(*shape: int) -> Tensor:
    """Scores with ties, infinities and NaN."""
    generator = torch.Generator().manual_seed(sum(shape))
    scores = (torch.rand(shape, generator=generator) * 1000).round() / 1000
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan])
    picked = special[torch.randint(5, shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.02, picked, scores)


def assert_same_on_both_devices(op, tensors, *arguments):
    expected = op(*tensors, *arguments)
    actual = op(*(tensor.cuda() for tensor in tensors), *arguments)
    assert actual.is_cuda
    assert torch.equal(actual.cpu(), expected)


@pytest.mark.parametrize("op", [box_iou, generalized_box_iou])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", KINDS)
def test_overlaps_of_every_pair_equal_those_of_the_cpu(op, dtype, kind, draw):
    for n, m in [(0, 5), (5, 0), (1, 1), (33, 513), (100, 1000), (257, 4099)]:
        assert_same_on_both_devices(op, (draw(kind, n, 1, dtype), draw(kind, m, 2, dtype)))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("num_boxes", [0, 1, 2, 31, 33, 1000, 1023, 1024, 1025, 5000, 20000])
@pytest.mark.parametrize("kind", KINDS)
def test_nms_equals_that_of_the_cpu(kind, num_boxes, threshold, draw):
    boxes, scores = draw(kind, num_boxes), draw_scores(num_boxes)
    assert_same_on_both_devices(nms, (boxes, scores), threshold)
    groups = torch.arange(num_boxes) % 5 * 2**40
    assert_same_on_both_devices(batched_nms, (boxes, scores, groups), threshold)


@pytest.mark.parametrize("kind", KINDS)
def test_nms_of_very_many_boxes_equals_that_of_the_cpu(kind, draw):
    assert_same_on_both_devices(nms, (draw(kind, 100_000), draw_scores(100_000)), 0.5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nms_takes_all_floating_types(dtype, draw):
    boxes, scores = draw("bad", 3000, 0, dtype), draw_scores(3000).to(dtype)
    assert_same_on_both_devices(nms, (boxes, scores), 0.4)


@pytest.mark.parametrize("max_detections", [1, 100, 3000])
@pytest.mark.parametrize("kind", KINDS)
def test_padded_nms_equals_that_of_the_cpu(kind, max_detections, draw):
    boxes = torch.stack([draw(kind, 2500, seed) for seed in range(5)])
    scores = draw_scores(5, 2500)
    scores[1] = -math.inf
    scores[2, 700:] = -math.inf
    tensors = (boxes, scores, torch.arange(2500).expand(5, 2500) % 3)
    expected = nms_padded(*tensors, 0.5, max_detections)
    actual = nms_padded(*(tensor.cuda() for tensor in tensors), 0.5, max_detections)
    assert torch.equal(actual[0].cpu(), expected[0])
    assert torch.equal(actual[1].cpu(), expected[1])


@pytest.mark.parametrize("allow_low_quality", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", KINDS)
def test_matching_equals_that_of_the_cpu(kind, dtype, allow_low_quality, draw):
    gt_boxes = [draw(kind, num, num, dtype) for num in (0, 1, 50, 0, 300)]
    anchors = torch.cat((draw(kind, 50_000, 7, dtype), gt_boxes[2]))
    for thresholds in ((0.5, 0.4), (0.0, 0.0), (1.0, 0.0)):
        expected = match_anchors(gt_boxes, anchors, *thresholds, allow_low_quality)
        on_gpu = [boxes.cuda() for boxes in gt_boxes]
        actual = match_anchors(on_gpu, anchors.cuda(), *thresholds, allow_low_quality)
        assert torch.equal(actual[0].cpu(), expected[0])
        assert torch.equal(actual[1].cpu(), expected[1])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(("rows", "num_classes"), [(0, 80), (1, 1), (1001, 3), (20_000, 80)])
def test_focal_loss_and_gradient_agree_with_the_cpu(rows, num_classes, gamma, dtype):
    generator = torch.Generator().manual_seed(rows)
    logits = (torch.randn(rows, num_classes, generator=generator) * 6).to(dtype).requires_grad_()
    classes = torch.randint(-1, num_classes + 1, (rows,), generator=generator)
    on_gpu = logits.detach().cuda().requires_grad_()
    expected = sigmoid_focal_loss(logits, classes, 0.25, gamma)
    actual = sigmoid_focal_loss(on_gpu, classes.cuda(), 0.25, gamma)
    torch.testing.assert_close(actual.cpu(), expected, rtol=2e-6, atol=1e-6)
    expected.backward()
    actual.backward()
    # One rounding to a type of 16 bits may fall the other way.
    tolerance = {"rtol": max(torch.finfo(dtype).eps, 1e-5), "atol": 1e-6}
    torch.testing.assert_close(on_gpu.grad.cpu(), logits.grad, **tolerance)


def test_the_focal_loss_is_the_same_in_every_run():
    logits = torch.randn(50_000, 80, device="cuda")
    classes = torch.randint(-1, 81, (50_000,), device="cuda")
    losses = {sigmoid_focal_loss(logits, classes, 0.25, 2.0).item() for _ in range(20)}
    assert len(losses) == 1


@pytest.fixture
def no_waiting():
    """Any wait of the host for the device is an error."""

    def forbid() -> None:
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")

    yield forbid
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_what_training_and_inference_call_does_not_wait_for_the_device(draw, no_waiting):
    boxes, scores = draw("clusters", 5000).cuda()[None], draw_scores(1, 5000).cuda()
    groups = torch.zeros(1, 5000, dtype=torch.int64, device="cuda")
    gt_boxes = [draw("clusters", 20).cuda(), draw("clusters", 0).cuda()]
    logits = torch.randn(1000, 80, device="cuda", requires_grad=True)
    classes = torch.randint(-1, 81, (1000,), device="cuda")
    no_waiting()
    nms_padded(boxes, scores, groups, 0.5, 100)
    match_anchors(gt_boxes, boxes[0], 0.5, 0.4, True)
    box_iou(boxes[0], gt_boxes[0])
    sigmoid_focal_loss(logits, classes, 0.25, 2.0).backward()


def capture(function, inputs):
    """A CUDA graph of ``function(*inputs)`` and its outputs; capturing fails if it waits."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(*inputs)
    return graph, outputs


def test_a_cuda_graph_of_padded_nms_follows_its_inputs(draw):
    boxes = torch.stack([draw("clusters", 2500, seed) for seed in range(6)]).cuda()
    scores = draw_scores(6, 2500).cuda()
    groups = torch.arange(2500, device="cuda").expand(6, 2500) % 3
    inputs = [values[:2].clone() for values in (boxes, scores, groups)]
    graph, outputs = capture(lambda *tensors: nms_padded(*tensors, 0.5, 200), inputs)
    for begin in (0, 2, 4):
        images = [values[begin : begin + 2] for values in (boxes, scores, groups)]
        for held, values in zip(inputs, images, strict=True):
            held.copy_(values)
        graph.replay()
        expected = nms_padded(*images, 0.5, 200)
        assert torch.equal(outputs[0], expected[0])
        assert torch.equal(outputs[1], expected[1])


def test_a_cuda_graph_captures_the_postprocessing(draw):
    postprocessor, box_coder = NMSPostprocessor(), DeltaBoxCoder()
    anchors = [draw("clusters", num, num).cuda() for num in (3000, 700, 90)]
    sizes = torch.tensor([[200, 180], [150, 200]], device="cuda")
    generator = torch.Generator(device="cuda").manual_seed(0)

    def draw_predictions() -> list[Tensor]:
        logits = torch.randn(2, 3790, 80, device="cuda", generator=generator) * 3 - 4
        return [logits, torch.randn(2, 3790, 4, device="cuda", generator=generator) * 0.2]

    def postprocess(logits: Tensor, deltas: Tensor) -> tuple[Tensor, ...]:
        return postprocessor(logits, deltas, anchors, sizes, box_coder)

    inputs = draw_predictions()
    graph, outputs = capture(postprocess, inputs)
    for _ in range(3):
        predictions = draw_predictions()
        for held, values in zip(inputs, predictions, strict=True):
            held.copy_(values)
        graph.replay()
        for output, expected in zip(outputs, postprocess(*predictions), strict=True):
            assert torch.equal(output, expected)
