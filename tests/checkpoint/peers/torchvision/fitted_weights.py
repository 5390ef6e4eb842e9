"""torchvision's RetinaNets with weights that find objects, without a download or a training.

Backbone, pyramid and subnets are random; the last layers are then fitted to annotated images in
closed form, so that each ground truth's own anchors fire for its class, among a few hundred false
detections of all classes. Published weights have a row for each of COCO's category numbers, 0 to
90, of which ten never fire; here they are given a bias that makes sure of it.
"""

import re
from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn_v2
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights as V1Weights
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

CATEGORIES = V1Weights.COCO_V1.meta["categories"]
CLASSES = [i for i, name in enumerate(CATEGORIES) if name not in ("__background__", "N/A")]
NUM_SLOTS, NUM_ANCHORS = len(CATEGORIES), 9

# Found by trial: on the images of the test logits may move by 1e-5 and no detection comes or goes.
SEED = 0
# Logits of anchors that have nothing to find, of those that have, and of unused slots.
BACKGROUND, SPREAD, FOREGROUND, UNUSED = -6.0, 0.8, -0.5, -40.0
# Share of the features' mean variance that is added to each direction of the fit.
REGULARIZATION = 0.1
DELTA_SPREAD = 0.05


def build(version: str, **arguments: int) -> RetinaNet:
    """Build "v1" or "v2", whose weights begin the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return {"v1": _v1, "v2": _v2}[version](**arguments)


def _v1(**arguments: int) -> RetinaNet:
    """As its published weights are run: frozen norms, with nothing added to their variances.

    torchvision itself builds this only along with the weights, which it downloads.
    """
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=torchvision.ops.FrozenBatchNorm2d,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = RetinaNet(backbone, NUM_SLOTS, **arguments)
    overwrite_eps(model, 0.0)
    return model


def _v2(**arguments: int) -> RetinaNet:
    return retinanet_resnet50_fpn_v2(
        weights=None, weights_backbone=None, num_classes=NUM_SLOTS, **arguments
    )


@torch.no_grad()
def fit(
    model: RetinaNet, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]
) -> RetinaNet:
    """Give a model weights that find some of the objects in images, and much else.

    Args:
        model: What ``build`` gave.
        images: (3, h, w) from 0 to 1.
        targets: Boxes (G, 4) and labels (G,), the category numbers, of each image.
    """
    generator = torch.Generator().manual_seed(SEED)
    _randomize(model, generator)
    model.eval()
    batch, targets = model.transform(list(images), [dict(target) for target in targets])
    features = list(model.backbone(batch.tensors).values())
    _spread(model.head.regression_head.bbox_reg, _deltas(model, features), 0.0, DELTA_SPREAD)
    head = model.head.classification_head
    cells = [head.conv(feature) for feature in features]
    _spread(head.cls_logits, [head.cls_logits(level) for level in cells], BACKGROUND, SPREAD)
    # One row a cell of any image and level.
    rows = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in cells], dim=1)
    positives = _positives(model, targets, model.anchor_generator(batch, features))
    _add_discriminants(head.cls_logits, rows, positives)
    unused = torch.ones(NUM_SLOTS, dtype=torch.bool)
    unused[CLASSES] = False
    head.cls_logits.bias.view(NUM_ANCHORS, NUM_SLOTS)[:, unused] = UNUSED
    return model


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the first version as torchvision below 0.13 wrote it."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.0\.", r"\1.\2.", name)
        name = re.sub(r"_head\.conv\.(\d)\.0\.", lambda m: f"_head.conv.{2 * int(m[1])}.", name)
        renamed[name] = value
    return renamed


def _randomize(model: nn.Module, generator: torch.Generator) -> None:
    """Norms that differ in every channel, subnets whose features keep their size."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            if "_head.conv." in name:
                nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                module.bias.normal_(std=0.1, generator=generator)
            continue
        for key, low in (("weight", 0.5), ("running_var", 0.5), ("bias", -0.1)):
            value = getattr(module, key, None)
            if value is not None:
                value.uniform_(low, low + (0.2 if key == "bias" else 1.0), generator=generator)
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
        if name.endswith("bn3"):  # Blocks add little, so that features stay small and biases count.
            module.weight.mul_(0.2)


def _deltas(model: RetinaNet, features: Sequence[Tensor]) -> list[Tensor]:
    head = model.head.regression_head
    return [head.bbox_reg(head.conv(feature)) for feature in features]


def _spread(conv: nn.Conv2d, outputs: Sequence[Tensor], mean: float, std: float) -> None:
    """Rescale a layer so that each of its channels (N, C, H, W) has a mean and a deviation."""
    values = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in outputs])
    scale = std / values.std(dim=0)
    conv.weight.mul_(scale[:, None, None, None])
    conv.bias.sub_(values.mean(dim=0)).mul_(scale).add_(mean)


def _positives(
    model: RetinaNet, targets: Sequence[dict[str, Tensor]], anchors: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Of each image the cells of foreground anchors, and the channels that shall fire there."""
    found = []
    for target, image_anchors in zip(targets, anchors, strict=True):
        overlaps = torchvision.ops.box_iou(target["boxes"], image_anchors)
        matched = model.proposal_matcher(overlaps)
        foreground = torch.nonzero(matched >= 0).flatten()
        labels = target["labels"][matched[foreground]]
        found.append((foreground // NUM_ANCHORS, foreground % NUM_ANCHORS * NUM_SLOTS + labels))
    return found


def _add_discriminants(
    conv: nn.Conv2d, rows: Tensor, positives: Sequence[tuple[Tensor, Tensor]]
) -> None:
    """Add Fisher's discriminant of each channel's positives (N, cells, C) to the middle taps."""
    mean = rows.mean(dim=(0, 1))
    covariance = (rows - mean).flatten(0, 1).T.cov()
    covariance += REGULARIZATION * covariance.diagonal().mean() * torch.eye(len(mean))
    sums = torch.zeros(conv.out_channels, len(mean))
    counts = torch.zeros(conv.out_channels)
    for image, (cells, channels) in zip(rows, positives, strict=True):
        sums.index_add_(0, channels, image[cells] - mean)
        counts.index_add_(0, channels, torch.ones(len(channels)))
    offsets = sums / counts.clamp(min=1)[:, None]
    directions = torch.linalg.solve(covariance, offsets.T).T
    lengths = (directions * offsets).sum(dim=1).clamp(min=1e-6)
    directions *= ((FOREGROUND - BACKGROUND) / lengths)[:, None]
    conv.weight[:, :, 1, 1] += directions
    conv.bias.sub_(directions @ mean)
