"""Components with one mistake each, for the conformance checks to find."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from detlite import (
    BACKBONE_REGISTRY,
    BOX_CODER_REGISTRY,
    HEAD_REGISTRY,
    HOOK_REGISTRY,
    LOSS_REGISTRY,
    MATCHER_REGISTRY,
    NECK_REGISTRY,
    OPTIMIZER_REGISTRY,
    SAMPLER_REGISTRY,
    TRANSFORM_REGISTRY,
    Backbone,
    BoxLoss,
    ClassificationLoss,
    Head,
    HookBase,
    Neck,
    ShapeSpec,
)
from detlite.checkpoint import Checkpointer
from detlite.data import TrainingSampler
from detlite.modeling import DeltaBoxCoder, MaxIoUMatcher


class Small(Backbone):
    """Two maps by pooling and 1x1 convolutions; itself without a mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({"res3": nn.Conv2d(3, 8, 1), "res4": nn.Conv2d(3, 12, 1)})
        self.shapes = {"res3": ShapeSpec(8, 8), "res4": ShapeSpec(12, 16)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self.shapes)

    def pool(self, images: Tensor, stride: int) -> Tensor:
        return F.avg_pool2d(images, stride, ceil_mode=True)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {
            name: conv(self.pool(images, self.shapes[name].stride))
            for name, conv in self.convs.items()
        }


@BACKBONE_REGISTRY.register
class Faultless(Small):
    """No mistake."""


@BACKBONE_REGISTRY.register
class WrongChannels(Small):
    """Says 16 channels of a map that has 12."""

    def output_shape(self):
        return {**self.shapes, "res4": ShapeSpec(16, 16)}


@BACKBONE_REGISTRY.register
class FloorSizes(Small):
    """Rounds sizes down."""

    def pool(self, images, stride):
        return F.avg_pool2d(images, stride)


@BACKBONE_REGISTRY.register
class UnusedParameter(Small):
    """Has a convolution that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Conv2d(3, 3, 1)


@BACKBONE_REGISTRY.register
class ChangesImages(Small):
    """Normalizes the images where they lie."""

    def forward(self, images):
        return super().forward(images.mul_(0.5))


@BACKBONE_REGISTRY.register
class PlainTensor(Small):
    """Keeps a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.rand(1)

    def forward(self, images):
        return super().forward(images * self.scale)


@BACKBONE_REGISTRY.register
class HardDtype(Small):
    """Mixes a map with a tensor of float32, whatever type the map has."""

    def forward(self, images):
        maps = super().forward(images)
        zeros = torch.zeros(maps["res3"].shape, device=images.device, dtype=torch.float32)
        return {**maps, "res3": torch.lerp(maps["res3"], zeros, 0.1)}


@BACKBONE_REGISTRY.register
class BatchStatistics(Small):
    """Normalizes with the batch, in evaluation too."""

    def forward(self, images):
        return super().forward(images - images.mean(dim=0))


@BACKBONE_REGISTRY.register
class OneDevice(Small):
    """Makes a tensor on the CPU."""

    def forward(self, images):
        return super().forward(images + torch.zeros(images.shape[-1], device="cpu"))


@BACKBONE_REGISTRY.register
class Undocumented(Small):
    """Has a key that nothing says anything about."""

    def __init__(self, *, width: int = 3) -> None:
        super().__init__()


@BACKBONE_REGISTRY.register
class Untyped(Small):
    """Has a key without a type.

    Args:
        width: Nothing.
    """

    def __init__(self, *, width=3) -> None:
        super().__init__()


@BACKBONE_REGISTRY.register
class Draws(Small):
    """Adds noise in evaluation."""

    def forward(self, images):
        return super().forward(images + torch.rand_like(images))


@NECK_REGISTRY.register
class CoarseFirst(Neck):
    """Gives the levels from coarse to fine."""

    def __init__(self, *, input_shape: dict) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({n: nn.Conv2d(s.channels, 8, 1) for n, s in input_shape.items()})
        self.shapes = {n: ShapeSpec(8, s.stride) for n, s in reversed(input_shape.items())}

    def output_shape(self):
        return dict(self.shapes)

    def forward(self, features):
        return {name: self.convs[name](features[name]) for name in self.shapes}


@HEAD_REGISTRY.register
class ChannelMajor(Head):
    """Lets an anchor's cells come together, not a cell's anchors."""

    def __init__(
        self, *, input_shape: dict, num_anchors: int, num_classes: int, code_size: int
    ) -> None:
        super().__init__()
        width = next(iter(input_shape.values())).channels
        self.numbers = num_classes, code_size
        self.convs = nn.ModuleList(nn.Conv2d(width, num_anchors * n, 1) for n in self.numbers)

    def forward(self, features):
        return tuple(
            torch.cat([self.order(conv(x), n) for x in features], dim=1)
            for conv, n in zip(self.convs, self.numbers, strict=True)
        )

    def order(self, x: Tensor, numbers: int) -> Tensor:
        return x.unflatten(1, (-1, numbers)).permute(0, 1, 3, 4, 2).flatten(1, 3)


class CrossEntropy(ClassificationLoss):
    """Binary cross-entropy; itself without a mistake."""

    def forward(self, logits, classes):
        targets = F.one_hot(classes.clamp(min=0), logits.shape[1] + 1)[:, :-1].to(logits)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return losses[classes >= 0].sum()


@LOSS_REGISTRY.register
class MeanLoss(CrossEntropy):
    """Takes the mean over the anchors."""

    def forward(self, logits, classes):
        return super().forward(logits, classes) / max(len(classes), 1)


@LOSS_REGISTRY.register
class CountsIgnored(CrossEntropy):
    """Takes ignored anchors for background."""

    def forward(self, logits, classes):
        return super().forward(logits, classes.masked_fill(classes == -1, logits.shape[1]))


@LOSS_REGISTRY.register
class Overflows(CrossEntropy):
    """Computes the logarithm of a sigmoid."""

    def forward(self, logits, classes):
        targets = F.one_hot(classes.clamp(min=0), logits.shape[1] + 1)[:, :-1].to(logits)
        p = logits.sigmoid()
        losses = -(targets * p.log() + (1 - targets) * (1 - p).log())
        return losses[classes >= 0].sum()


@LOSS_REGISTRY.register
class DividesByArea(BoxLoss):
    """Is not a number for boxes without area."""

    compares = "boxes"

    def forward(self, predicted, target):
        area = (predicted[:, 2:] - predicted[:, :2]).prod(dim=1)
        return (predicted - target).abs().sum(dim=1) * area / area


@MATCHER_REGISTRY.register
class OutOfRange(MaxIoUMatcher):
    """Gives unmatched anchors the index -1."""

    def __call__(self, gt_boxes, anchors, level_sizes=()):
        indices, labels = super().__call__(gt_boxes, anchors, level_sizes)
        return indices.masked_fill(labels != 1, -1), labels


@BOX_CODER_REGISTRY.register
class NoClamp(DeltaBoxCoder):
    """Lets exp() overflow."""

    def __init__(self) -> None:
        super().__init__()
        self.scale_clamp = math.inf


@TRANSFORM_REGISTRY.register
class ForgetsBoxes(v2.Transform):
    """Flips the image, and not its boxes."""

    def forward(self, *inputs):
        sample = dict(inputs[0])
        return {**sample, "image": v2.functional.horizontal_flip(sample["image"])}


@TRANSFORM_REGISTRY.register
class OwnGenerator(v2.Transform):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def transform(self, inpt, params):
        if torch.is_floating_point(inpt):
            return inpt
        return inpt + torch.randint(5, (1,), generator=self.generator).to(inpt)


@SAMPLER_REGISTRY.register
class Remembers(TrainingSampler):
    """Goes on with its generator from epoch to epoch."""

    def epoch(self, epoch):
        if not hasattr(self, "drawn"):
            self.drawn = self.generator(0)
        return self.drawn.permutation(self.images)


@HOOK_REGISTRY.register
class ForgetsState(HookBase):
    """Saves what it does not take back, at a point that nothing calls."""

    def __init__(self) -> None:
        self.count = 0

    def after_step(self, trainer):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def after_epoch(self, trainer):
        """No such point."""


@HOOK_REGISTRY.register
class SavesAPath(HookBase):
    """Is given the checkpointer of a run, and saves what no checkpoint can hold."""

    def __init__(self, *, checkpointer: Checkpointer) -> None:
        self.checkpointer = checkpointer
        self.saved = None

    def after_step(self, trainer):
        self.saved = self.checkpointer.save("model_mine", {"model": trainer.model.state_dict()})

    def state_dict(self):
        return {"saved": self.saved}

    def load_state_dict(self, state):
        self.saved = state["saved"]


@OPTIMIZER_REGISTRY.register
class ForgetsMomentum(torch.optim.Optimizer):
    """Keeps its momentum where no checkpoint looks.

    Args:
        params: Parameters.
        lr: Of all of them.
    """

    def __init__(self, *, params: list[nn.Parameter], lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})
        self.momentum = {}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.momentum.get(parameter, 0.0)
                self.momentum[parameter] = 0.9 * kept + parameter.grad
                parameter -= group["lr"] * self.momentum[parameter]
