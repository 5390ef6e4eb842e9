import pytest
import torch

from detlite.modeling import DeltaBoxCoder, NMSPostprocessor

# Two levels with one and with two anchors; the second anchor overlaps the first by IoU 0.8.
ANCHORS = [
    torch.tensor([[0.0, 0, 10, 10]]),
    torch.tensor([[0.0, 0, 10, 8], [50, 50, 60, 60]]),
]


def detect(scores, *, deltas=None, anchors=ANCHORS, size=(100, 100), **arguments):
    """Detections of one image as a list of (box, score, class)."""
    logits = torch.tensor([scores], dtype=torch.float64).logit().float()
    deltas = torch.zeros(1, logits.shape[1], 4) if deltas is None else torch.tensor([deltas])
    postprocessor = NMSPostprocessor(**arguments)
    results = postprocessor(logits, deltas, anchors, torch.tensor([size]), DeltaBoxCoder())
    boxes, scores, classes, counts = (value[0] for value in results)
    assert boxes.shape == (postprocessor.max_detections, 4)
    assert scores.shape == classes.shape == (postprocessor.max_detections,)
    entries = zip(boxes.tolist(), scores.tolist(), classes.tolist(), strict=True)
    return [(box, round(score, 4), k) for box, score, k in list(entries)[: counts.item()]]


FIRST, SECOND, THIRD = ([*anchor] for level in ANCHORS for anchor in level.tolist())


def test_boxes_suppress_those_of_their_own_class_over_levels():
    scores = [[0.9, 0.2], [0.8, 0.6], [0.3, 0.01]]
    assert detect(scores) == [
        (FIRST, 0.9, 0),
        (SECOND, 0.6, 1),
        (THIRD, 0.3, 0),
    ]
    assert detect(scores, nms_thresh=0.85)[:2] == [(FIRST, 0.9, 0), (SECOND, 0.8, 0)]


def test_the_score_threshold_is_exclusive():
    # The sigmoid of 0 is 1/2 exactly.
    scores = [[0.5, 0.5 + 1e-4], [0.5, 0.4], [0.4, 0.5]]
    assert detect(scores, score_thresh=0.5) == [(FIRST, 0.5001, 1)]
    assert len(detect(scores, score_thresh=0.49)) == 3
    assert detect(scores, score_thresh=0.9) == []


def test_each_level_sends_its_best_to_nms():
    scores = [[0.2, 0.1], [0.8, 0.7], [0.9, 0.6]]
    found = detect(scores, topk_per_level=1)
    assert found == [(THIRD, 0.9, 0), (FIRST, 0.2, 0)]
    found = detect(scores, topk_per_level=2)
    assert found == [(THIRD, 0.9, 0), (SECOND, 0.8, 0), (FIRST, 0.1, 1)]


def test_the_best_detections_stay():
    scores = [[0.2, 0.1], [0.8, 0.7], [0.9, 0.6]]
    assert detect(scores, max_detections=2) == [(THIRD, 0.9, 0), (SECOND, 0.8, 0)]


def test_clipping_before_nms_decides_on_what_lies_in_the_image():
    # The image is 15 pixels wide: there the two boxes are one, beyond it their IoU is 15 / 20.
    anchors = [torch.tensor([[0.0, 0, 20, 10], [0, 0, 15, 10]])]
    inside = [0, 0, 15, 10]
    for clip_before_nms, num_kept in ((True, 1), (False, 2)):
        found = detect(
            [[0.9], [0.8]],
            anchors=anchors,
            size=(10, 15),
            nms_thresh=0.76,
            clip_before_nms=clip_before_nms,
        )
        assert found == [(inside, 0.9, 0), (inside, 0.8, 0)][:num_kept]


def test_deltas_move_the_anchors():
    deltas = [[0.0] * 4, [0.0] * 4, [0.1, -0.1, 0.0, 0.0]]
    ((box, score, k),) = detect([[0.0], [0.0], [0.9]], deltas=deltas)
    assert box == pytest.approx([51, 49, 61, 59])
    assert (score, k) == (0.9, 0)


@pytest.mark.parametrize("num_images", [0, 1, 3])
@pytest.mark.parametrize("num_classes", [1, 4])
def test_shapes_do_not_depend_on_the_data(num_images, num_classes):
    postprocessor = NMSPostprocessor(max_detections=7)
    sizes = torch.full((num_images, 2), 100)
    for bias in (-20.0, 0.0, 20.0):
        logits = torch.full((num_images, 3, num_classes), bias)
        deltas = torch.zeros(num_images, 3, 4)
        results = postprocessor(logits, deltas, ANCHORS, sizes, DeltaBoxCoder())
        shapes = [tuple(value.shape) for value in results]
        assert shapes == [(num_images, 7, 4), (num_images, 7), (num_images, 7), (num_images,)]
        assert (results[3] == (0 if bias < 0 else 2 * num_classes)).all() or num_classes > 3


def test_each_image_is_clipped_to_its_own_size():
    logits, deltas = torch.full((2, 3, 1), 5.0), torch.zeros(2, 3, 4)
    sizes = torch.tensor([[5, 100], [55, 4]])
    for clip_before_nms in (True, False):
        postprocessor = NMSPostprocessor(clip_before_nms=clip_before_nms)
        boxes = postprocessor(logits, deltas, ANCHORS, sizes, DeltaBoxCoder())[0]
        assert boxes[0, 0].tolist() == [0, 0, 10, 5]
        assert boxes[1, 0].tolist() == [0, 0, 4, 10]


def test_half_precision_predictions_are_decoded_in_float32():
    logits = torch.full((1, 3, 2), 2.0, dtype=torch.bfloat16)
    deltas = torch.zeros(1, 3, 4, dtype=torch.bfloat16)
    sizes = torch.tensor([[100, 100]])
    boxes, scores, *_ = NMSPostprocessor()(logits, deltas, ANCHORS, sizes, DeltaBoxCoder())
    assert (boxes.dtype, scores.dtype) == (torch.float32, torch.float32)


def test_predictions_that_are_not_finite_give_no_detection():
    logits = torch.tensor([[[float("nan")], [3.0], [float("-inf")]]])
    deltas = torch.zeros(1, 3, 4)
    sizes = torch.tensor([[100, 100]])
    boxes, scores, _, counts = NMSPostprocessor()(logits, deltas, ANCHORS, sizes, DeltaBoxCoder())
    assert counts.tolist() == [1]
    assert boxes[0, 0].tolist() == SECOND
    assert scores[0, 0].item() == pytest.approx(0.9526, abs=1e-4)


# Beyond the right border of a 100 x 100 image, beyond the lower one, and partly within.
EDGE_ANCHORS = [torch.tensor([[100.0, 0, 120, 10], [0, 105, 20, 130], [90, 90, 120, 120]])]
WITHIN = [90, 90, 100, 100]


@pytest.mark.parametrize("clip_before_nms", [True, False])
def test_boxes_that_clipping_empties_stay_unless_they_are_to_be_dropped(clip_before_nms):
    scores = [[0.9], [0.8], [0.7]]
    arguments = {"anchors": EDGE_ANCHORS, "clip_before_nms": clip_before_nms}
    found = detect(scores, **arguments)
    assert found == [([100, 0, 100, 10], 0.9, 0), ([0, 100, 20, 100], 0.8, 0), (WITHIN, 0.7, 0)]
    assert detect(scores, drop_empty=True, **arguments) == [(WITHIN, 0.7, 0)]


def test_empty_boxes_take_places_only_where_they_are_dropped_after_nms():
    scores = [[0.9], [0.8], [0.7]]
    for clip_before_nms, expected in ((True, [(WITHIN, 0.7, 0)]), (False, [])):
        found = detect(
            scores,
            anchors=EDGE_ANCHORS,
            max_detections=2,
            clip_before_nms=clip_before_nms,
            drop_empty=True,
        )
        assert found == expected


def draw_predictions(num_images, seed):
    """Logits, deltas, anchors of two levels and sizes of images that half of the anchors miss."""
    generator = torch.Generator().manual_seed(seed)
    anchors = [80 * torch.rand(count, 4, generator=generator) - 20 for count in (150, 60)]
    for level in anchors:
        level[:, 2:] = level[:, :2].clone() + 12
    logits = torch.randn(num_images, 210, 3, generator=generator)
    deltas = torch.randn(num_images, 210, 4, generator=generator) / 5
    return logits, deltas, anchors, torch.tensor([[31, 40], [47, 23], [12, 12]])[:num_images]


@pytest.mark.parametrize("clip_before_nms", [True, False])
@pytest.mark.parametrize("num_images", [0, 1, 3])
def test_dropping_keeps_the_order_of_the_others(num_images, clip_before_nms):
    inputs = *draw_predictions(num_images, 1), DeltaBoxCoder()
    # All candidates have a place, so that it does not matter who takes one.
    arguments = {"max_detections": 700, "clip_before_nms": clip_before_nms}
    everything = NMSPostprocessor(**arguments)(*inputs)
    dropped = NMSPostprocessor(drop_empty=True, **arguments)(*inputs)
    assert [value.shape for value in dropped] == [value.shape for value in everything]
    for i in range(num_images):
        boxes, scores, classes = (value[i, : everything[3][i]] for value in everything[:3])
        keep = [x1 < x2 and y1 < y2 for x1, y1, x2, y2 in boxes.tolist()]
        assert 20 < sum(keep) < len(keep) - 20
        assert dropped[3][i] == sum(keep)
        for value, expected in zip(dropped[:3], (boxes, scores, classes), strict=True):
            assert torch.equal(value[i, : dropped[3][i]], expected[torch.tensor(keep)])


def test_dropping_before_scaling_drops_what_detectron2_drops_after_it():
    # Detectron2 scales to the output's size, clips to that and drops what has no side there.
    logits, deltas, anchors, sizes = draw_predictions(3, 2)
    outputs = torch.tensor([[97, 61], [20, 90], [333, 12]])
    arguments = {"max_detections": 60, "clip_before_nms": False}
    inputs = logits, deltas, anchors
    ours = NMSPostprocessor(drop_empty=True, **arguments)(*inputs, sizes, DeltaBoxCoder())
    far = torch.full((3, 2), 10**6)
    raw = NMSPostprocessor(**arguments)(
        logits, deltas, [level + 1000 for level in anchors], far, DeltaBoxCoder()
    )
    for i, ((height, width), (out_height, out_width)) in enumerate(
        zip(sizes.tolist(), outputs.tolist(), strict=True)
    ):
        scale = torch.tensor([out_width / width, out_height / height] * 2)
        expected = (raw[0][i, : raw[3][i]] - 1000) * scale
        expected[:, 0::2] = expected[:, 0::2].clamp(0, out_width)
        expected[:, 1::2] = expected[:, 1::2].clamp(0, out_height)
        sides = expected[:, 2:] - expected[:, :2]
        expected = expected[(sides > 0).all(dim=1)]
        assert 0 < len(expected) < raw[3][i]
        found = ours[0][i, : ours[3][i]] * scale
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)


class Detect(torch.nn.Module):
    """The post-processing with its anchors, as a model that is compiled or exported."""

    def __init__(self, **arguments):
        super().__init__()
        self.postprocessor = NMSPostprocessor(topk_per_level=200, max_detections=30, **arguments)
        generator = torch.Generator().manual_seed(0)
        self.anchors = [10 * torch.rand(count, 4, generator=generator) for count in (150, 60)]
        for level in self.anchors:
            level[:, 2:] += level[:, :2] + 5

    def forward(self, logits, deltas, sizes):
        return self.postprocessor(logits, deltas, self.anchors, sizes, DeltaBoxCoder())

    def inputs(self, num_images):
        generator = torch.Generator().manual_seed(num_images)
        logits = torch.randn(num_images, 210, 3, generator=generator)
        deltas = torch.randn(num_images, 210, 4, generator=generator) / 5
        # Small enough that some boxes lie outside.
        return logits, deltas, torch.tensor([[8, 6]] * num_images)


def assert_same(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


DROPPING = [{}, {"drop_empty": True, "clip_before_nms": False}]


@pytest.mark.parametrize("arguments", DROPPING)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
# Warnings of torch's own compiler.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_it_is_compiled_as_one_graph(backend, arguments):
    model = Detect(**arguments)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for num_images in (1, 3):
        inputs = model.inputs(num_images)
        assert_same(compiled(*inputs), model(*inputs))


@pytest.mark.parametrize("arguments", DROPPING)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_it_is_exported_whole_for_any_number_of_images(arguments):
    model = Detect(**arguments)
    images = torch.export.Dim("images", min=1, max=64)
    program = torch.export.export(
        model, model.inputs(2), dynamic_shapes=({0: images}, {0: images}, {0: images})
    )
    assert "detlite.nms_padded" in str(program.graph)
    for num_images in (1, 5):
        inputs = model.inputs(num_images)
        assert_same(program.module()(*inputs), model(*inputs))
