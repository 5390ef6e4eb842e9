"""With the same weights our RetinaNet detects and learns what torchvision's does."""

import re

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detlite.modeling import ImageNormalizer, build_meta_arch
from detlite.registry import Block
from detlite.structures import Instances

# (height, width); torchvision resizes to the shorter side, which is the same for both.
SIZES = [(256, 320), (288, 256)]


def frozen_v1(num_classes, **arguments):
    """The first version as its published weights are run: with frozen normalizations."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=torchvision.ops.FrozenBatchNorm2d,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return TorchvisionRetinaNet(backbone, num_classes, **arguments)


def v1(num_classes, **arguments):
    return retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=num_classes, **arguments
    )


def v2(num_classes, **arguments):
    return retinanet_resnet50_fpn_v2(
        weights=None, weights_backbone=None, num_classes=num_classes, **arguments
    )


# Torchvision's model, then ours: norm and freeze_at of the backbone, source of P6, norm of the
# head, box loss.
VERSIONS = [
    pytest.param((frozen_v1, 91, ("FrozenBN", 2, "p5", "", "L1Loss")), id="v1-frozen"),
    pytest.param((v1, 21, ("BN", 0, "p5", "", "L1Loss")), id="v1"),
    pytest.param((v2, 21, ("BN", 0, "res5", "GN", "GIoULoss")), id="v2"),
]


def model_block(norm, freeze_at, p6_source, head_norm, box_loss):
    return Block(
        name="RetinaNet",
        backbone=Block(name="ResNet", depth=50, norm=norm, freeze_at=freeze_at),
        neck=Block(name="FPN", extra_levels=Block(name="P6P7", source=p6_source)),
        anchor_generator=Block(
            name="GridAnchorGenerator",
            order="ratio_major",
            rounding="torchvision",
            cell_spacing="image",
        ),
        head=Block(name="RetinaNetHead", norm=head_norm),
        box_loss=Block(name=box_loss),
        loss_normalizer=Block(name="PerImageNormalizer"),
        independent_images=False,
        postprocessor=Block(name="NMSPostprocessor", max_detections=300),
    )


def our_name(name):
    """Our name of one of torchvision's weights."""
    if name.startswith("backbone.body."):
        name = re.sub(r"layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
        name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        return name.replace("body.conv1", "stem.conv1").replace("body.", "")
    for theirs, ours in (("inner_blocks", "laterals"), ("layer_blocks", "outputs")):
        level = re.match(rf"backbone\.fpn\.{theirs}\.(\d)\.0\.(\w+)", name)
        if level:
            return f"neck.{ours}.p{int(level[1]) + 3}.{level[2]}"
    name = name.replace("backbone.fpn.extra_blocks", "neck.extra_levels")
    name = name.replace("classification_head.cls_logits", "cls_score")
    name = name.replace("regression_head.bbox_reg", "box_pred")
    name = name.replace("classification_head.conv", "cls_subnet")
    name = name.replace("regression_head.conv", "box_subnet")
    return re.sub(r"(subnet\.\d)\.(\d)", lambda m: m[1] + (".norm" if m[2] == "1" else ""), name)


def draw_images():
    """Images (3, h, w) uint8 with structure at several scales."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for size in SIZES:
        image = torch.zeros(1, 3, *size)
        for cells in (4, 16, 64):
            noise = torch.rand(1, 3, cells, cells, generator=generator)
            image += nn.functional.interpolate(noise, size=size, mode="bilinear")
        images.append(snap((image[0] * 85).to(torch.uint8)))
    return images


def snap(image):
    """Move each pixel to a value that both normalizations round to the same number.

    We subtract and divide on the scale 0 to 255, torchvision on 0 to 1; the results differ in the
    last bit, by which thousands of candidates would change places here and there.
    """
    values = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    ours = ImageNormalizer(size_divisor=1)([values]).tensor[0]
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    theirs = (values / 255 - mean) / std
    for channel, agree in zip(image, (ours == theirs)[:, 0], strict=True):
        good = values[0, 0][agree]
        assert len(good) > 32
        channel.copy_(good[torch.searchsorted(good, channel.contiguous()).clamp(max=len(good) - 1)])
    return image


@torch.no_grad()
def randomize(model, images):
    """Give a model of torchvision's weights that find many objects of every class.

    The logits of every class spread around -4, the deltas around 0.
    """
    last = (model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg)
    for module in model.head.modules():
        if isinstance(module, nn.Conv2d) and module not in last:
            nn.init.kaiming_normal_(module.weight)
    model.eval()
    batch, _ = model.transform(images)
    outputs = model.head(list(model.backbone(batch.tensors).values()))
    for conv, values, mean, std in (
        (last[0], outputs["cls_logits"], -4, 1.5),
        (last[1], outputs["bbox_regression"], 0, 0.3),
    ):
        # One row a cell, one column a channel of the convolution.
        channels = values.reshape(-1, conv.out_channels)
        scale = std / channels.std(dim=0)
        conv.weight.mul_(scale[:, None, None, None])
        conv.bias.sub_(channels.mean(dim=0)).mul_(scale).add_(mean)


@pytest.fixture(scope="module", params=VERSIONS)
def twins(request, randomize_norms):
    """Torchvision's model and ours with the same weights, and the number of classes."""
    make, num_classes, keys = request.param
    torch.manual_seed(0)
    peer = make(num_classes, min_size=256, max_size=2000)
    randomize_norms(peer.backbone)
    randomize_norms(peer.head, 1)
    randomize(peer, [image / 255 for image in draw_images()])
    model = build_meta_arch(model_block(*keys), [f"class {k}" for k in range(num_classes)])
    model.load_state_dict({our_name(name): value for name, value in peer.state_dict().items()})
    return peer, model, num_classes


def test_the_same_weights_are_trained_as_in_torchvision(twins):
    peer, model, _ = twins
    expected = {our_name(name) for name, p in peer.named_parameters() if p.requires_grad}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected


def test_logits_and_deltas_of_every_anchor_equal_torchvision(twins):
    peer, model, _ = twins
    images = draw_images()
    with torch.inference_mode():
        batch, _ = peer.eval().transform([image / 255 for image in images])
        expected = peer.head(list(peer.backbone(batch.tensors).values()))
        logits, deltas, *_ = model.eval().predict(model.preprocessor(images).tensor)
    torch.testing.assert_close(logits, expected["cls_logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(deltas, expected["bbox_regression"], rtol=0, atol=1e-4)


def test_detections_equal_torchvision(twins):
    peer, model, num_classes = twins
    images = draw_images()
    with torch.inference_mode():
        expected = peer.eval()([image / 255 for image in images])
        results = model.eval()([{"image": image} for image in images])
    for result, other, size in zip(results, expected, SIZES, strict=True):
        found = result["instances"]
        assert found.image_size == size
        assert len(found) == len(other["scores"]) == 300
        assert len(found.pred_classes.unique()) > num_classes / 4
        assert found.scores[0] > found.scores[-1] + 0.02
        torch.testing.assert_close(found.scores, other["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.pred_boxes, other["boxes"], rtol=0, atol=1e-3)
        assert torch.equal(found.pred_classes, other["labels"])


def both_losses(peer, model, num_classes, with_empty_image):
    """Torchvision's losses and ours of the same objects."""
    images = draw_images()
    generator = torch.Generator().manual_seed(1)
    targets = []
    for height, width in SIZES:
        corner = torch.rand(12, 2, generator=generator) * torch.tensor([width, height]) * 0.7
        size = 8 + torch.rand(12, 2, generator=generator) * torch.tensor([width, height]) * 0.25
        classes = torch.randint(num_classes, (12,), generator=generator)
        targets.append({"boxes": torch.cat((corner, corner + size), dim=1), "labels": classes})
    if with_empty_image:
        targets[1] = {key: value[:0] for key, value in targets[1].items()}
    batch = [
        {
            "image": image,
            "instances": Instances(size, gt_boxes=target["boxes"], gt_classes=target["labels"]),
        }
        for image, size, target in zip(images, SIZES, targets, strict=True)
    ]
    with torch.no_grad():
        return peer.train()([image / 255 for image in images], targets), model.train()(batch)


@pytest.mark.parametrize("with_empty_image", [False, True])
def test_losses_equal_torchvision(twins, with_empty_image):
    expected, losses = both_losses(*twins, with_empty_image)
    for ours, theirs in (("loss_cls", "classification"), ("loss_box", "bbox_regression")):
        assert losses[ours] > 0.01
        torch.testing.assert_close(losses[ours], expected[theirs], rtol=1e-5, atol=0)
    assert losses["num_positives"] > 12
