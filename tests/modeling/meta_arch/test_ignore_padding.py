"""Anchors on the padding of a batch learn nothing and match nothing where they are ignored."""

import math

import pytest
import torch
import torchvision

from detlite.modeling import MaxIoUMatcher, build_meta_arch
from detlite.modeling.meta_arch.dense_losses import DensePredictions
from detlite.registry import Block
from detlite.structures import Instances

STRIDES = (8, 16, 32, 64, 128)
CLASS_NAMES = ("cat", "dog", "owl")
MATCHERS = [
    {},
    {"reassign_low_quality": True},
    {"allow_low_quality": False},
    {"background_thresh": 0.0},
]


def build(**keys):
    block = Block(
        name="RetinaNet",
        backbone=Block(name="ResNet", depth=18),
        neck=Block(name="FPN", out_channels=32, extra_levels=Block(name="P6P7")),
        anchor_generator=Block(name="GridAnchorGenerator", order="ratio_major"),
        head=Block(name="RetinaNetHead", num_convs=1),
        loss_normalizer=Block(name="BatchNormalizer"),
        **keys,
    )
    return build_meta_arch(block, CLASS_NAMES)


@pytest.fixture(scope="module")
def model():
    return build(ignore_padding=True)


def draw_boxes(num_boxes, seed):
    """Boxes around and beyond the borders of the images below, some of them far outside."""
    generator = torch.Generator().manual_seed(seed)
    corner = 220 * torch.rand(num_boxes, 2, generator=generator)
    boxes = torch.cat((corner, corner + 20 + 60 * torch.rand(num_boxes, 2, generator=generator)), 1)
    return boxes, torch.randint(3, (num_boxes,), generator=generator)


def cells_of(size, grids, size_divisor):
    """Whether each anchor's cell begins within the padded image, by counting cells."""
    height, width = (math.ceil(side / size_divisor) * size_divisor for side in size)
    flags = []
    for stride, (rows, columns) in zip(STRIDES, grids, strict=True):
        row = torch.arange(rows) < math.ceil(height / stride)
        column = torch.arange(columns) < math.ceil(width / stride)
        flags.append((row[:, None] & column[None, :]).flatten().repeat_interleave(9))
    return torch.cat(flags)


def expected_losses(model, logits, deltas, anchors, grids, truths, sizes, size_divisor):
    """Losses of the anchors that are left when the others are taken away before matching."""
    sums, positives = torch.zeros(2), 0
    for i, ((boxes, classes), size) in enumerate(zip(truths, sizes, strict=True)):
        keep = cells_of(size, grids, size_divisor)
        matched, labels = (value[0] for value in model.matcher([boxes], anchors[keep]))
        targets = torch.zeros(int(keep.sum()), 3)
        foreground = labels == 1
        if foreground.any():
            targets[foreground, classes[matched[foreground]]] = 1
            coded = model.box_coder.encode(boxes[matched[foreground]], anchors[keep][foreground])
            sums[1] += (deltas[i][keep][foreground] - coded).abs().sum()
        used = labels >= 0
        sums[0] += torchvision.ops.sigmoid_focal_loss(
            logits[i][keep][used], targets[used], alpha=0.25, gamma=2.0, reduction="sum"
        )
        positives += int(foreground.sum())
    return (sums / max(positives, 1)).tolist(), positives


def run_both(model, sizes, num_boxes, size_divisor=32):
    """What the model's losses are, and what they should be, for random predictions."""
    height, width = (
        math.ceil(max(size[axis] for size in sizes) / size_divisor) * size_divisor
        for axis in (0, 1)
    )
    grids = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in STRIDES]
    anchors = torch.cat(model.anchor_generator(grids, (height, width)))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(sizes), len(anchors), 3, generator=generator)
    deltas = torch.randn(len(sizes), len(anchors), 4, generator=generator)
    truths = [draw_boxes(count, seed) for seed, count in enumerate(num_boxes)]
    instances = [
        Instances(size, gt_boxes=boxes, gt_classes=classes)
        for size, (boxes, classes) in zip(sizes, truths, strict=True)
    ]
    losses = model.losses(DensePredictions(logits, deltas, []), [anchors], instances, sizes)
    found = [losses["loss_cls"].item(), losses["loss_box"].item()]
    expected = expected_losses(model, logits, deltas, anchors, grids, truths, sizes, size_divisor)
    return (found, losses["num_positives"].item()), expected


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("size_divisor", [1, 32])
@pytest.mark.parametrize(
    ("sizes", "num_boxes"),
    [
        ([(96, 128), (250, 300)], (6, 4)),
        ([(97, 65), (200, 40), (33, 222)], (5, 0, 9)),
        ([(64, 64), (256, 256)], (0, 0)),
    ],
)
def test_anchors_beyond_the_padded_image_are_as_good_as_absent(
    sizes, num_boxes, size_divisor, matcher, model, monkeypatch
):
    monkeypatch.setattr(model, "matcher", MaxIoUMatcher(**matcher))
    monkeypatch.setattr(model.preprocessor, "size_divisor", size_divisor)
    found, expected = run_both(model, sizes, num_boxes, size_divisor)
    assert found[1] == expected[1]
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    monkeypatch.setattr(model, "ignore_padding", False)
    used, _ = run_both(model, sizes, num_boxes, size_divisor)
    assert used[0] != pytest.approx(found[0], rel=1e-3)


def test_images_of_one_size_have_no_anchors_to_ignore(model, monkeypatch):
    sizes, num_boxes = [(97, 130)] * 2, (3, 5)
    ignored, _ = run_both(model, sizes, num_boxes)
    monkeypatch.setattr(model, "ignore_padding", False)
    assert run_both(model, sizes, num_boxes)[0] == ignored


def test_a_best_anchor_on_the_padding_leaves_its_place_to_the_best_one_within(model, monkeypatch):
    # An image of 32 x 32 in a batch of 64 x 64; the object lies across its right border.
    grids = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    anchors = torch.cat(model.anchor_generator(grids, (64, 64)))
    boxes = torch.tensor([[20.0, 0, 64, 32]])
    for ignore, x in ((False, 40), (True, 24)):
        monkeypatch.setattr(model, "ignore_padding", ignore)
        _, labels = model._match([boxes, boxes[:0]], [anchors], [(32, 32), (64, 64)])
        (row,) = labels[0].eq(1).nonzero().flatten().tolist()[:1]
        assert anchors[row, [0, 2]].mean().item() == pytest.approx(x)
        on_padding = anchors[:, [0, 2]].mean(dim=1) > 31
        assert (labels[0][on_padding] == -1).all() == ignore
        assert not labels[1].any()


def test_training_from_a_config_ignores_the_padding():
    torch.manual_seed(0)
    model = build(ignore_padding=True).train()
    batch = []
    for seed, size in enumerate([(64, 64), (128, 160)]):
        image = torch.randint(256, (3, *size), dtype=torch.uint8)
        boxes, classes = torch.tensor([[4.0, 4, 40, 50]]), torch.tensor([seed])
        batch.append(
            {"image": image, "instances": Instances(size, gt_boxes=boxes, gt_classes=classes)}
        )
    torch.nn.init.constant_(model.head.cls_score.bias, 0.0)
    losses = model(batch)
    (losses["loss_cls"] + losses["loss_box"]).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    model.ignore_padding = False
    assert model(batch)["loss_cls"] > losses["loss_cls"]
