"""A batch in parts: what each part counts and computes, added up, is the whole batch's."""

import math

import pytest
import torch
import torch.nn.functional as F

from detlite.errors import UserError
from detlite.modeling import (
    ImageNormalizer,
    MaxIoUMatcher,
    Neck,
    Preprocessor,
    build_meta_arch,
)
from detlite.modeling.heads import RetinaNetHead
from detlite.registry import Block
from detlite.structures import BatchShare, ImageList, Instances, ShapeSpec

SIZES = [(61, 58), (40, 52), (30, 31), (48, 20)]
CANVAS = (61, 58)


def build(**changes):
    torch.manual_seed(0)
    block = Block(
        name="RetinaNet",
        backbone=Block(name="ResNet", depth=18, out_features=("res3", "res4")),
        neck=Block(name="FPN", out_channels=8),
        anchor_generator=Block(name="GridAnchorGenerator"),
        head=Block(name="RetinaNetHead", num_convs=0),
    )
    return build_meta_arch(Block({**block, **changes}), ("cat", "dog")).train()


def draw_batch(counts=(3, 0, 1, 2)):
    generator = torch.Generator().manual_seed(0)
    batch = []
    for size, num in zip(SIZES, counts, strict=True):
        corner = torch.rand(num, 2, generator=generator) * 30
        boxes = torch.cat((corner, corner + 10 + 20 * torch.rand(num, 2, generator=generator)), 1)
        classes = torch.randint(2, (num,), generator=generator)
        image = torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)
        instances = Instances(size, gt_boxes=boxes, gt_classes=classes)
        batch.append({"image": image, "instances": instances})
    return batch


def run_in_parts(model, parts):
    """The sums of all parts' scalars."""
    counts = torch.cat([model.count_targets(part, CANVAS) for part in parts])
    weights = model.loss_weights(counts).split([len(part) for part in parts])
    losses = [
        model(part, BatchShare(CANVAS, weight)) for part, weight in zip(parts, weights, strict=True)
    ]
    return {name: sum(each[name] for each in losses) for name in losses[0]}


@pytest.mark.parametrize("ignore_padding", [False, True])
@pytest.mark.parametrize("size_divisor", [1, 32])
@pytest.mark.parametrize(
    "normalizer", ["MovingAverageNormalizer", "BatchNormalizer", "PerImageNormalizer"]
)
def test_the_parts_of_a_batch_add_up_to_it(normalizer, size_divisor, ignore_padding):
    model = build(
        loss_normalizer=Block(name=normalizer),
        preprocessor=Block(name="ImageNormalizer", size_divisor=size_divisor),
        ignore_padding=ignore_padding,
    )
    batch, start = draw_batch(), model.state_dict()
    start = {name: value.clone() for name, value in start.items()}
    expected = model(batch)
    assert expected["num_positives"] > 0
    for cut in (1, 2, 3):
        model.load_state_dict(start)
        found = run_in_parts(model, [batch[:cut], batch[cut:]])
        assert found["num_positives"] == expected["num_positives"]
        for name in ("loss_cls", "loss_box"):
            assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-5)


def test_a_batch_that_is_its_own_only_part_has_the_same_bits():
    model, batch = build(), draw_batch()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model(batch)
    model.load_state_dict(start)
    found = run_in_parts(model, [batch])
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_images_are_counted_one_by_one():
    model, batch = build(ignore_padding=True), draw_batch()
    counts = model.count_targets(batch, CANVAS)
    alone = [model.count_targets([sample], CANVAS).item() for sample in batch]
    assert counts.tolist() == alone
    assert [count > 0 for count in alone] == [True, False, True, True]
    assert not counts.requires_grad


@pytest.mark.parametrize("size_divisor", [1, 8, 32])
def test_as_many_are_counted_as_then_learn(size_divisor):
    preprocessor = Block(name="ImageNormalizer", size_divisor=size_divisor)
    model, (sample,) = build(preprocessor=preprocessor), draw_batch()[2:3]
    # Centred on the last row of cells before (40, 35), beside those that the padding adds.
    sample["instances"].gt_boxes = torch.tensor([[20.0, 28, 44, 52]])
    counted = model.count_targets([sample], (40, 35)).item()
    losses = model([sample], BatchShare((40, 35), torch.ones(1)))
    assert counted == losses["num_positives"] > 0


def test_the_moving_average_moves_once_a_step_with_the_whole_batch():
    model, batch = build(), draw_batch()
    counts = model.count_targets(batch, CANVAS)
    assert model.loss_normalizer.average.item() == 100
    run_in_parts(model, [batch[:1], batch[1:2], batch[2:]])
    expected = 90 + 0.1 * counts.sum().item()
    assert model.loss_normalizer.average.item() == pytest.approx(expected)


class Fixed(Preprocessor):
    """Every batch has one size, whatever the images' are."""

    def forward(self, images, canvas=None):
        return ImageList.from_tensors([image / 255 for image in images], canvas=(64, 96))

    def padded_size(self, canvas):
        return 64, 96


def test_a_preprocessor_of_one_size_says_it():
    model, batch = build(), draw_batch()
    model.preprocessor = Fixed()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model(batch)
    model.load_state_dict(start)
    found = run_in_parts(model, [batch[:3], batch[3:]])
    assert found["loss_cls"].item() == pytest.approx(expected["loss_cls"].item(), rel=1e-5)


class Alone(Preprocessor):
    """Of an author who knows of no canvas."""

    def forward(self, images):
        return ImageList.from_tensors([image / 255 for image in images])


def test_a_preprocessor_without_a_canvas_serves_until_it_is_needed():
    model, batch = build(), draw_batch()
    model.preprocessor = Alone()
    weights = torch.ones(1)
    assert model(batch[:1], BatchShare((61, 58), weights))["loss_cls"].isfinite()
    message = (
        r"preprocessor Alone takes no `canvas`.*\(40, 52\).*padded to \(61, 58\)"
        r".*interfaces.Preprocessor.*train.accumulate=1"
    )
    with pytest.raises(UserError, match=message):
        model(batch[1:2], BatchShare((61, 58), weights))


class Unfaithful(ImageNormalizer):
    """Takes the canvas and pads to something else."""

    def forward(self, images, canvas=None):
        return super().forward(images)


def test_a_preprocessor_that_pads_to_another_size_is_refused():
    model, batch = build(), draw_batch()
    model.preprocessor = Unfaithful()
    message = r"Unfaithful padded a batch to \(height, width\) \(32, 32\).*\(64, 64\).*\(61, 58\)"
    with pytest.raises(UserError, match=message):
        model(batch[2:3], BatchShare(CANVAS, torch.ones(1)))


class Flooring(Neck):
    """Of an author whose last level drops a border."""

    def output_shape(self):
        return {"p3": ShapeSpec(128, 8), "p4": ShapeSpec(128, 16)}

    def forward(self, features):
        return {"p3": features["res3"], "p4": F.max_pool2d(features["res3"], 2)}


def test_a_level_that_rounds_down_is_named_where_a_batch_is_in_parts():
    model, batch = build(), draw_batch()
    model.neck = Flooring()
    model.head = RetinaNetHead(input_shape=model.neck.output_shape(), num_anchors=9, num_classes=2)
    model.preprocessor = ImageNormalizer(size_divisor=8)
    # As a whole it trains.
    assert model(batch[2:3])["loss_cls"].isfinite()
    message = (
        r"level p4 has \(height, width\) \(2, 2\) for images of \(40, 40\).*Flooring.grid_sizes "
        r"says \(3, 3\).*interfaces.Neck"
    )
    with pytest.raises(UserError, match=message):
        model(batch[2:3], BatchShare((40, 35), torch.ones(1)))


@pytest.mark.parametrize("size", [(61, 58), (32, 64), (33, 1), (127, 129)])
@pytest.mark.parametrize(
    "backbone",
    [
        {"depth": 18},
        {"depth": 18, "stem": "deep", "avg_down": True},
        {"depth": 50, "stride_in_1x1": True, "out_features": ("res2", "res3", "res4", "res5")},
    ],
)
def test_levels_have_the_sizes_that_were_counted_with(backbone, size):
    model = build(
        backbone=Block(name="ResNet", **backbone),
        neck=Block(name="FPN", out_channels=8, extra_levels=Block(name="P6P7")),
    ).eval()
    with torch.inference_mode():
        levels = model.predict(torch.zeros(1, 3, *size)).grid_sizes
    assert levels == list(model.neck.grid_sizes(size).values())
    strides = [spec.stride for spec in model.neck.output_shape().values()]
    assert levels == [tuple(math.ceil(side / stride) for side in size) for stride in strides]


def test_a_matcher_of_another_kind_is_counted_as_it_matches():
    model, batch = build(matcher=Block(name="MaxIoUMatcher", allow_low_quality=False)), draw_batch()
    fewer = model.count_targets(batch, CANVAS)
    model.matcher = MaxIoUMatcher()
    assert (model.count_targets(batch, CANVAS) >= fewer).all()
    assert model.count_targets(batch, CANVAS).sum() > fewer.sum()
