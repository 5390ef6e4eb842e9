"""SimSiam (Chen and He 2020, https://arxiv.org/abs/2011.10566): features without labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from detlite import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    TRANSFORM_REGISTRY,
    Backbone,
    BatchShare,
    DataError,
    MetaArch,
)
from detlite.data import build_transforms
from detlite.modeling import ImageNormalizer
from detlite.ranges import PositiveInt
from detlite.registry import Block


@TRANSFORM_REGISTRY.register
class TwoViews(v2.Transform):
    """An image twice, each time transformed anew: one view above the other in one image.

    So a pair of views goes through a loader as any image does.

    Args:
        transforms: Blocks; their last image has one size, whatever is drawn.
    """

    def __init__(self, *, transforms: list[v2.Transform]) -> None:
        super().__init__()
        self.transforms = transforms

    @classmethod
    def from_config(cls, block: Block) -> "TwoViews":
        """Build the transforms, then the pair of them."""
        return cls(transforms=build_transforms(block.transforms))

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """A sample with "image" (3, h, w) to one with "image" (3, 2 * h', w')."""
        views = []
        for _ in range(2):
            view = {"image": sample["image"]}
            for transform in self.transforms:
                view = transform(view)
            views.append(view["image"])
        if views[0].shape != views[1].shape:
            raise ValueError(
                f"TwoViews needs views of one size, got {tuple(views[0].shape)} and "
                f"{tuple(views[1].shape)}; end its transforms with RandomResizedCrop or Resize"
            )
        return {**sample, "image": torch.cat(views, dim=1)}


@META_ARCH_REGISTRY.register
class SimSiam(MetaArch):
    """What one view's features say of the other's is made alike, with the gradient cut on one side.

    The coarsest map of the backbone is pooled as in ``ImageClassifier``. Training wants images of
    ``TwoViews``. It gives ``loss_similarity``, from -1 to 0 as in the paper, and ``spread``, the
    deviation of the normalized projections over the images, times the root of their number of
    channels: near 1 in a healthy run, near 0 if all images have come to the same features. Norms
    and spread see the images that are computed together, a part of the batch where it has parts.

    Args:
        backbone: What is wanted of it all.
        projection: Channels of the three layers of the projector (section 3 of the paper).
        bottleneck: Channels between the two layers of the predictor.
    """

    task = "classification"  # reads whole images, whose classes it does not look at

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        projection: PositiveInt = 2048,
        bottleneck: PositiveInt = 512,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature, shape = list(backbone.output_shape().items())[-1]
        self.projector = nn.Sequential(
            *_layer(shape.channels, projection),
            *_layer(projection, projection),
            nn.Linear(projection, projection, bias=False),
            nn.BatchNorm1d(projection, affine=False),
        )
        self.predictor = nn.Sequential(
            *_layer(projection, bottleneck), nn.Linear(bottleneck, projection)
        )
        self.preprocessor = ImageNormalizer(size_divisor=1)

    @classmethod
    def from_config(cls, block: Block, num_classes: int) -> "SimSiam":
        """Build the backbone, then the rest around it."""
        keys = {k: block[k] for k in ("projection", "bottleneck") if block.get(k) is not None}
        backbone = BACKBONE_REGISTRY.build(block.backbone)
        return cls(backbone=backbone, num_classes=num_classes, **keys)

    def forward(self, batch: Sequence[Mapping[str, Any]], share: BatchShare | None = None) -> Any:
        """The loss of pairs in training; in evaluation each image's "features" (C,)."""
        images = self.preprocessor([sample["image"] for sample in batch]).tensor
        if not self.training:
            return [{"features": features.float()} for features in self.pool(images)]
        height = images.shape[-2]
        sizes = {tuple(sample["image"].shape[-2:]) for sample in batch}
        if len(sizes) > 1 or height % 2:
            raise DataError(
                "SimSiam is trained on images of TwoViews, all of one size, one view above the "
                f"other; got (height, width) {' and '.join(map(str, sorted(sizes)[:2]))}"
            )
        # One after the other, as in the paper: each view's norms see that view alone.
        views = [self.pool(view.contiguous()) for view in images.split(height // 2, dim=2)]
        targets = [self.projector(features) for features in views]
        answers = [self.predictor(target) for target in targets]
        similarity = (_cosine(answers[0], targets[1]) + _cosine(answers[1], targets[0])) / 2
        if share is None:
            weights = self.loss_weights(torch.ones(len(batch), device=images.device))
        else:
            weights = share.weights
        return {
            "loss_similarity": -(similarity * weights).sum(),
            "spread": _spread(targets[0]) * weights.sum(),
        }

    def pool(self, images: Tensor) -> Tensor:
        """Normalized images (N, 3, H, W) to features (N, C)."""
        features: Tensor = self.backbone(images)[self.feature].mean(dim=(2, 3))
        return features


def _layer(channels: int, out_channels: int) -> list[nn.Module]:
    linear = nn.Linear(channels, out_channels, bias=False)
    return [linear, nn.BatchNorm1d(out_channels), nn.ReLU(inplace=True)]


def _cosine(answers: Tensor, targets: Tensor) -> Tensor:
    """Similarities (N,) of what is learnt (N, C) with what is only looked at (N, C)."""
    return F.cosine_similarity(answers.float(), targets.detach().float(), dim=1)


@torch.no_grad()
def _spread(projections: Tensor) -> Tensor:
    normalized = F.normalize(projections.float(), dim=1)
    return normalized.std(dim=0, correction=0).mean() * normalized.shape[1] ** 0.5
