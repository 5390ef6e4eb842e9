"""Residual networks (He et al. 2015, https://arxiv.org/abs/1512.03385), ResNeXt and wide ones."""

from typing import Annotated, Literal

from msgspec import Meta
from torch import Tensor, nn

from ...ranges import NonNegativeFloat, PositiveInt
from ...structures import ShapeSpec
from ..interfaces import Backbone
from ..layers import FrozenBatchNorm2d
from ..registries import BACKBONE_REGISTRY
from ._residual_blocks import BasicBlock, BlockStyle, BottleneckBlock
from ._stems import DeepStem, Stem

STAGES = ("res2", "res3", "res4", "res5")
# Blocks in each stage, table 1 of the paper.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


@BACKBONE_REGISTRY.register
class ResNet(Backbone):
    """ResNet, ResNeXt (``groups: 32, width_per_group: 4``), wide ResNet (``width_per_group: 128``).

    ``stem: deep, avg_down: true`` is ResNet-D (He et al. 2018, https://arxiv.org/abs/1812.01187):
    the ``d`` variants of timm, mmdetection's ``ResNetV1d``.

    Args:
        depth: Number of layers.
        norm: Normalization; "FrozenBN" keeps the statistics of pretrained weights, "BN" trains.
        freeze_at: Stages that are not trained: 0 none, 1 the stem, 2 stem and res2, up to 5.
        stride_in_1x1: Stride in the first 1x1 of a bottleneck (Caffe's weights) or in its 3x3
            (torchvision's weights).
        groups: Groups of the 3x3 in a bottleneck.
        width_per_group: Channels of a group in res2.
        out_features: Stages whose output is returned.
        zero_init_residual: Begin with blocks that pass their input through, the last norm's scale
            at 0 (Goyal et al. 2017, section 5.1); helps training from scratch.
        norm_eps: Added to the variance in every norm. Torchvision runs its published detectors
            of the first version with 0.
        batch_statistics: Which batch normalizations use, and collect, the statistics of the batch
            in training: those of the "trained" stages; "all", also where scale and shift are
            frozen (torchvision's RetinaNet v2); "none" (mmdetection's ``norm_eval``).
        stem: The first layers: a "7x7" convolution, or "deep", three of 3x3.
        avg_down: Shortcuts of stride 2 take the mean of 2x2 pixels, then a 1x1 of stride 1.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        norm: Literal["BN", "FrozenBN", "SyncBN", "GN"] = "FrozenBN",
        freeze_at: Literal[0, 1, 2, 3, 4, 5] = 2,
        stride_in_1x1: bool = False,
        groups: PositiveInt = 1,
        width_per_group: PositiveInt = 64,
        out_features: Annotated[
            tuple[Literal["res2", "res3", "res4", "res5"], ...], Meta(min_length=1)
        ] = ("res3", "res4", "res5"),
        zero_init_residual: bool = False,
        norm_eps: NonNegativeFloat = 1e-5,
        batch_statistics: Literal["trained", "all", "none"] = "trained",
        stem: Literal["7x7", "deep"] = "7x7",
        avg_down: bool = False,
    ) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else BottleneckBlock
        if zero_init_residual and (norm == "FrozenBN" or freeze_at > 1):
            raise ValueError(
                "zero_init_residual needs norms that are trained, got norm FrozenBN or freeze_at "
                f"above 1 (norm {norm}, freeze_at {freeze_at}); a frozen scale would stay 0"
            )
        if block is BasicBlock and (groups, width_per_group) != (1, 64):
            raise ValueError(
                f"groups and width_per_group need depth 50 or more, got depth {depth}, "
                f"groups {groups}, width_per_group {width_per_group}"
            )
        if batch_statistics != "trained" and norm not in ("BN", "SyncBN"):
            raise ValueError(
                f"batch_statistics '{batch_statistics}' needs norm BN or SyncBN, got {norm}: "
                "FrozenBN never moves its statistics, GN has none"
            )
        self.out_features: list[str] = sorted(out_features)
        self.batch_statistics = batch_statistics
        self.stem = (DeepStem if stem == "deep" else Stem)(64, norm, norm_eps)
        style = BlockStyle(norm, norm_eps, stride_in_1x1, avg_down, groups, width_per_group)
        channels = 64
        self._shapes: dict[str, ShapeSpec] = {}
        for i, (stage, num_blocks) in enumerate(zip(STAGES, BLOCKS[depth], strict=True)):
            blocks = []
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(block(channels, 64 * 2**i, stride, style))
                channels = 64 * 2**i * block.expansion
            setattr(self, stage, nn.Sequential(*blocks))
            self._shapes[stage] = ShapeSpec(channels, 4 * 2**i)
            if stage == self.out_features[-1]:
                break
        self._init_weights(zero_init_residual)
        self._freeze(freeze_at)
        self.train()

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each returned stage."""
        return {stage: self._shapes[stage] for stage in self.out_features}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, H, W) to the stages asked for."""
        x = self.stem(images)
        features = {}
        for stage in self._shapes:
            x = getattr(self, stage)(x)
            if stage in self.out_features:
                features[stage] = x
        return features

    def layers(self) -> list[str]:
        """The stem and each residual block."""
        blocks = [
            f"{stage}.{i}" for stage in self._shapes for i in range(len(getattr(self, stage)))
        ]
        return ["stem", *blocks]

    def train(self, mode: bool = True) -> "ResNet":
        """As ``nn.Module.train``; ``batch_statistics: none`` leaves the norms in evaluation."""
        super().train(mode)
        if self.batch_statistics == "none":
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _init_weights(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if zero_init_residual and isinstance(module, BasicBlock | BottleneckBlock):
                last = module.conv2 if isinstance(module, BasicBlock) else module.conv3
                assert last.norm is not None
                nn.init.zeros_(last.norm.weight)  # type: ignore[arg-type]

    def _freeze(self, freeze_at: int) -> None:
        for name in ("stem", *STAGES)[:freeze_at]:
            stage = getattr(self, name, None)
            if stage is not None:
                if self.batch_statistics != "all":
                    FrozenBatchNorm2d.convert(stage)
                stage.requires_grad_(False)
