import math

import pytest
import torch

from detlite.errors import UserError
from detlite.modeling import build_meta_arch
from detlite.registry import Block
from detlite.structures import Instances

CLASS_NAMES = ("cat", "dog", "owl")
LOSSES = {"loss_cls", "loss_box", "num_positives"}


def model_block(**changes):
    """A small model: 32 channels, two convolutions in the head."""
    block = Block(
        name="RetinaNet",
        weights="",
        backbone=Block(name="ResNet", depth=18, norm="FrozenBN", freeze_at=2),
        neck=Block(name="FPN", out_channels=32, extra_levels=Block(name="P6P7")),
        anchor_generator=Block(name="GridAnchorGenerator"),
        head=Block(name="RetinaNetHead", num_convs=2),
    )
    return Block({**block, **changes})


def build(seed=0, **changes):
    torch.manual_seed(seed)
    return build_meta_arch(model_block(**changes), CLASS_NAMES)


@torch.no_grad()
def make_detecting(model):
    """Weights that give logits and deltas of all sizes instead of the prior."""
    for conv in (*model.head.cls_subnet, *model.head.box_subnet):
        torch.nn.init.kaiming_normal_(conv.weight)
    model.eval()
    logits, deltas, *_ = model.predict(model.preprocessor([draw_sample(64, 96)["image"]]).tensor)
    model.head.cls_score.weight.mul_(3 / logits.std())
    model.head.box_pred.weight.mul_(0.3 / deltas.std())
    return model


def draw_sample(height, width, num_boxes=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    if num_boxes is None:
        return {"image": image}
    corner = torch.rand(num_boxes, 2, generator=generator) * torch.tensor([width, height]) * 0.5
    size = 16 + torch.rand(num_boxes, 2, generator=generator) * 32
    classes = torch.randint(len(CLASS_NAMES), (num_boxes,), generator=generator)
    boxes = torch.cat((corner, corner + size), dim=1)
    return {
        "image": image,
        "instances": Instances((height, width), gt_boxes=boxes, gt_classes=classes),
    }


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith("loss"))


@pytest.mark.parametrize("num_boxes", [(3, 5), (3, 0), (0, 0)])
@pytest.mark.parametrize("box_loss", ["L1Loss", "GIoULoss", "CIoULoss"])
@pytest.mark.parametrize(
    "normalizer", ["MovingAverageNormalizer", "BatchNormalizer", "PerImageNormalizer"]
)
def test_images_with_and_without_objects_train(num_boxes, box_loss, normalizer):
    model = build(box_loss=Block(name=box_loss), loss_normalizer=Block(name=normalizer)).train()
    batch = [draw_sample(96, 128, num, seed) for seed, num in enumerate(num_boxes)]
    losses = model(batch)
    assert set(losses) == LOSSES
    assert all(value.shape == () and value.isfinite() for value in losses.values())
    assert (losses["loss_box"] > 0) == (sum(num_boxes) > 0)
    # Every object has an anchor at least, its best.
    assert losses["num_positives"] >= sum(num_boxes)
    total(losses).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_gradients_reach_everything_that_is_trained():
    model = build(
        neck=Block(name="FPN", out_channels=32, norm="GN", extra_levels=Block(name="P6P7")),
        head=Block(name="RetinaNetHead", norm="GN"),
    ).train()
    torch.nn.init.normal_(model.head.cls_score.weight)
    torch.nn.init.normal_(model.head.box_pred.weight)
    # An object of every size, so that every level has foreground.
    boxes = torch.tensor([[8.0 - side / 2, 8, 8 + side / 2, 8 + side] for side in (32, 64, 128)])
    sample = draw_sample(256, 256)
    sample["instances"] = Instances((256, 256), gt_boxes=boxes, gt_classes=torch.tensor([0, 1, 2]))
    total(model([sample])).backward()
    unused = {name for name, p in model.named_parameters() if p.requires_grad and not p.grad.any()}
    assert unused == set()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("backbone.stem", "backbone.res2")) for name in trained)


def test_a_few_steps_learn_an_object():
    model = build(
        head=Block(name="RetinaNetHead", num_convs=2, norm="GN"),
        loss_normalizer=Block(name="BatchNormalizer"),
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = [draw_sample(64, 64, 1), draw_sample(64, 64, 0, seed=1)]
    values = []
    for _ in range(15):
        losses = model(batch)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        values.append(total(losses).item())
    assert values[-1] < 0.3 * values[0]


def test_the_moving_average_travels_with_the_weights():
    model = build().train()
    batch = [draw_sample(64, 64, 4)]
    losses = model(batch)
    expected = 0.9 * 100 + 0.1 * losses["num_positives"].item()
    resumed = build(seed=1).train()
    assert resumed.load_state_dict(model.state_dict()).missing_keys == []
    assert resumed.state_dict()["loss_normalizer.average"].item() == pytest.approx(expected)
    again, other = model(batch), resumed(batch)
    assert all(torch.equal(again[name], other[name]) for name in LOSSES)
    # Neither anchors nor the images' mean and deviation are weights.
    assert not [name for name in model.state_dict() if "anchor" in name or "processor" in name]


@pytest.mark.parametrize("sizes", [[(97, 131)], [(64, 33), (31, 150)], [(16, 16)]])
def test_images_of_any_size_are_detected_within_their_borders(sizes):
    model = make_detecting(build())
    with torch.inference_mode():
        results = model([draw_sample(*size, seed=i) for i, size in enumerate(sizes)])
    for (height, width), result in zip(sizes, results, strict=True):
        assert list(result) == ["instances"]
        found = result["instances"]
        assert found.image_size == (height, width)
        assert 0 < len(found) <= 100
        limits = torch.tensor([width, height, width, height])
        assert (found.pred_boxes >= 0).all()
        assert (found.pred_boxes <= limits).all()
        assert (found.scores > 0.05).all()
        assert (found.scores.diff() <= 0).all()
        assert set(found.pred_classes.tolist()) <= {0, 1, 2}
        assert found.pred_classes.dtype == torch.int64


def test_detections_are_scaled_to_the_size_that_is_asked_for():
    model = make_detecting(build())
    sample = draw_sample(60, 90)
    with torch.inference_mode():
        (plain,) = model([sample])
        (scaled,) = model([{**sample, "height": 180, "width": 45}])
    assert scaled["instances"].image_size == (180, 45)
    expected = plain["instances"].pred_boxes * torch.tensor([0.5, 3, 0.5, 3])
    torch.testing.assert_close(scaled["instances"].pred_boxes, expected)
    assert torch.equal(scaled["instances"].scores, plain["instances"].scores)
    assert len(plain["instances"]) > 0


def test_evaluation_repeats_itself_and_changes_nothing():
    model = make_detecting(build(loss_normalizer=Block(name="MovingAverageNormalizer")))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        first, second = (model([draw_sample(64, 96)])[0]["instances"] for _ in range(2))
    assert len(first) > 0
    for name, value in first.get_fields().items():
        assert torch.equal(value, second.get_fields()[name])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_image_is_predicted_alike_alone_and_in_a_batch_of_its_size():
    model = make_detecting(build())
    images = model.preprocessor([draw_sample(64, 96, seed=seed)["image"] for seed in range(2)])
    with torch.inference_mode():
        together = model.predict(images.tensor)
        for i in range(2):
            alone = model.predict(images.tensor[i : i + 1])
            for ours, theirs in zip(alone[:2], together[:2], strict=True):
                torch.testing.assert_close(ours[0], theirs[i], rtol=1e-4, atol=1e-4)


def test_channels_last_computes_the_same():
    model = make_detecting(build())
    images = model.preprocessor([draw_sample(64, 96)["image"]]).tensor
    with torch.inference_mode():
        expected = model.predict(images)
        model = model.to(memory_format=torch.channels_last)
        found = model.predict(images.contiguous(memory_format=torch.channels_last))
    assert expected[2] == found[2] == [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_bfloat16_autocast_trains_and_detects():
    model = build().train()
    batch = [draw_sample(64, 96, 3)]
    plain = model(batch)
    model.load_state_dict(build().state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch)
    for name in LOSSES:
        assert losses[name].dtype == plain[name].dtype
        torch.testing.assert_close(losses[name], plain[name], rtol=0.05, atol=0)
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    make_detecting(model)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = model(batch)[0]["instances"]
    assert len(found) > 0
    assert (found.pred_boxes.dtype, found.scores.dtype) == (torch.float32, torch.float32)


def test_an_untrained_model_believes_in_background():
    model = build().train()
    losses = model([draw_sample(64, 96, 0)])
    num_anchors = 9 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1 * 1)
    entry = 0.75 * 0.01**2 * -math.log(0.99)
    # Without objects the average of positives falls from 100 to 90.1.
    expected = num_anchors * len(CLASS_NAMES) * entry / 90.1
    assert losses["loss_cls"].item() == pytest.approx(expected, rel=0.1)


def test_a_model_knows_its_classes():
    model = build()
    assert model.class_names == CLASS_NAMES
    assert model.num_classes == 3


def test_detectron2s_model_has_37_9_million_parameters():
    block = model_block(
        backbone=Block(name="ResNet", depth=50),
        neck=Block(name="FPN", extra_levels=Block(name="P6P7", source="res5")),
        head=Block(name="RetinaNetHead"),
    )
    model = build_meta_arch(block, [f"class {k}" for k in range(80)])
    assert sum(p.numel() for p in model.parameters()) == 37_915_572
    frozen = {name: p.numel() for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.split(".")[1] for name in frozen} == {"stem", "res2"}
    assert sum(frozen.values()) == 222_400


def test_a_component_that_refuses_its_values_is_named():
    block = model_block(backbone=Block(name="ResNet", depth=18, groups=32))
    with pytest.raises(UserError, match=r"backbone 'ResNet': groups .* got depth 18"):
        build_meta_arch(block, CLASS_NAMES)
