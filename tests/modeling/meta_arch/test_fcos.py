"""With the same weights our FCOS detects and learns what torchvision's does."""

import pytest
import torch
from torchvision.models.detection import fcos_resnet50_fpn

from detlite.errors import UserError
from detlite.modeling import FCOSMatcher, build_meta_arch
from detlite.registry import Block

from .test_torchvision_equality import both_losses, draw_images
from .test_torchvision_equality import our_name as our_retinanet_name

NUM_CLASSES = 11


def fcos_block(**changes):
    return Block(
        name="FCOS",
        backbone=Block(name="ResNet", depth=50, norm="BN", freeze_at=0),
        neck=Block(name="FPN", extra_levels=Block(name="P6P7", source="p5")),
        anchor_generator=Block(
            name="GridAnchorGenerator",
            base_size=1,
            scales_per_octave=1,
            aspect_ratios=[1.0],
            rounding="torchvision",
            cell_spacing="image",
        ),
        head=Block(name="FCOSHead"),
        independent_images=False,
        **changes,
    )


def our_name(name):
    name = our_retinanet_name(name.replace("conv.", "tower."))
    for tower, subnet in (("classification", "cls"), ("regression", "box")):
        for i in range(4):
            theirs = f"head.{tower}_head.tower.{3 * i}"
            name = name.replace(f"{theirs}.", f"head.{subnet}_subnet.{i}.")
            theirs = f"head.{tower}_head.tower.{3 * i + 1}"
            name = name.replace(f"{theirs}.", f"head.{subnet}_subnet.{i}.norm.")
    return name.replace("regression_head.bbox_ctrness", "centerness")


@pytest.fixture(scope="module")
def twins(randomize_norms):
    """Torchvision's model and ours with the same weights, which find many objects."""
    torch.manual_seed(0)
    peer = fcos_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=NUM_CLASSES,
        min_size=256,
        max_size=2000,
    )
    randomize_norms(peer.backbone)
    randomize_norms(peer.head, 1)
    head = peer.head
    with torch.no_grad():
        for conv in (head.classification_head.cls_logits, head.regression_head.bbox_ctrness):
            torch.nn.init.normal_(conv.weight, std=0.03)
        head.classification_head.cls_logits.bias.fill_(-2.0)
        torch.nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.02)
        head.regression_head.bbox_reg.bias.fill_(2.0)
    model = build_meta_arch(fcos_block(), [f"class {k}" for k in range(NUM_CLASSES)])
    model.load_state_dict({our_name(name): value for name, value in peer.state_dict().items()})
    return peer, model


def test_detections_equal_torchvision(twins):
    peer, model = twins
    images = draw_images()
    with torch.inference_mode():
        expected = peer.eval()([image / 255 for image in images])
        results = model.eval()([{"image": image} for image in images])
    for result, other in zip(results, expected, strict=True):
        found = result["instances"]
        assert len(found) == len(other["scores"]) == 100
        assert found.scores[0] > found.scores[-1] + 0.02
        assert len(found.pred_classes.unique()) > 3
        torch.testing.assert_close(found.scores, other["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.pred_boxes, other["boxes"], rtol=0, atol=1e-3)
        assert torch.equal(found.pred_classes, other["labels"])


@pytest.mark.parametrize("with_empty_image", [False, True])
def test_losses_equal_torchvision(twins, with_empty_image):
    expected, losses = both_losses(*twins, NUM_CLASSES, with_empty_image)
    names = {
        "loss_cls": "classification",
        "loss_box": "bbox_regression",
        "loss_centerness": "bbox_ctrness",
    }
    for ours, theirs in names.items():
        assert losses[ours] > 0.01
        torch.testing.assert_close(losses[ours], expected[theirs], rtol=1e-5, atol=0)
    assert losses["num_positives"] > 20


def test_a_point_learns_the_smallest_object_of_its_levels_size():
    anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 0, 16, 16]])  # strides 8, 8 and 16
    small, large = [-4.0, -4, 12, 12], [-60.0, -60, 76, 76]
    indices, labels = FCOSMatcher()([torch.tensor([large, small])], anchors, [2, 1])
    # Both hold the first point; (12, 4) is on the small one's border, and so learns the large one,
    # whose side is 72 px away: too far for the first level.
    assert labels.tolist() == [[1, 0, 1]]
    assert indices.tolist() == [[1, 0, 0]]


def test_what_does_not_fit_together_is_told():
    block = fcos_block(distribution_loss=Block(name="GIoULoss"))
    with pytest.raises(UserError, match="compare deltas, got GIoULoss"):
        build_meta_arch(block, ["cell"])
    block = fcos_block(box_coder=Block(name="DistributionBoxCoder"))
    model = build_meta_arch(block, ["cell"]).eval()
    with pytest.raises(UserError, match=r"FCOSHead predicts 4 .* DistributionBoxCoder needs 68"):
        model([{"image": torch.zeros(3, 32, 32, dtype=torch.uint8)}])
