"""Components and hooks that make numbers which are not finite, on purpose."""

import torch
from torch import nn
from torchvision.transforms import v2

from detlite import (
    BACKBONE_REGISTRY,
    HEAD_REGISTRY,
    LOSS_REGISTRY,
    TRANSFORM_REGISTRY,
    Backbone,
    HookBase,
    ShapeSpec,
    build_trainer,
)
from detlite.engine.hooks import NonFiniteLossCheck
from detlite.modeling.heads import RetinaNetHead
from detlite.modeling.interfaces import BoxLoss
from detlite.modeling.layers import ConvNorm
from detlite.modeling.losses import SigmoidFocalLoss
from detlite.utils import distributed


@TRANSFORM_REGISTRY.register
class PoisonPixel(v2.Transform):
    """Make images float32, and a pixel of some of them NaN: channel 1, row 60, column 2.

    Args:
        samples: Which, counted from the first that this process reads.
        rank: The process that does it.
    """

    def __init__(self, *, samples: list[int], rank: int = 0) -> None:
        super().__init__()
        self.samples = samples if rank == distributed.rank() else []
        self.seen = 0

    def forward(self, *inputs):
        sample = dict(inputs[0])
        sample["image"] = sample["image"].to(torch.float32)
        if self.seen in self.samples:
            sample["image"][1, 60, 2] = float("nan")
        self.seen += 1
        return sample


@LOSS_REGISTRY.register
class LossOfRareClass(SigmoidFocalLoss):
    """Focal loss that overflows for one class.

    Args:
        rare: The class.
    """

    def __init__(self, *, rare: int = 0) -> None:
        super().__init__()
        self.rare = rare

    def forward(self, logits, classes):
        loss = super().forward(logits, classes)
        return loss + ((classes == self.rare).sum() * 1000.0).exp() - 1


@LOSS_REGISTRY.register
class RootLoss(BoxLoss):
    """Root of the distance: finite everywhere, with no derivative at 0."""

    compares = "deltas"

    def forward(self, predicted, target):
        # Background anchors have no distance after this, and infinity times 0 is NaN.
        distance = (predicted - target).abs().sum(dim=1) * (target.abs().sum(dim=1) > 0)
        return distance.sqrt()


@BACKBONE_REGISTRY.register
class Slim(Backbone):
    """Four convolutions of a few channels, with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        channels = [3, 8, 8, 16, 16]
        self.convs = nn.ModuleList(
            ConvNorm(channels[i], channels[i + 1], 3, stride=2, norm="BN", relu=True)
            for i in range(4)
        )

    def output_shape(self):
        return {"res3": ShapeSpec(16, 8), "res4": ShapeSpec(16, 16)}

    def forward(self, images):
        maps = [images]
        for conv in self.convs:
            maps.append(conv(maps[-1]))
        return dict(zip(("res3", "res4"), maps[-2:], strict=True))


@HEAD_REGISTRY.register
class DroppingHead(RetinaNetHead):
    """A head that drops channels at random, as nothing else in the network does."""

    def forward(self, features):
        return super().forward([nn.functional.dropout(f, 0.2, self.training) for f in features])


class BeforeStep(HookBase):
    """Calls a function with the trainer before some iterations."""

    def __init__(self, function, *iterations):
        self.function = function
        self.iterations = iterations

    def before_step(self, trainer):
        if trainer.iter in self.iterations:
            self.function(trainer)


class KeepState(HookBase):
    """Remembers the state of the model before the last step."""

    def before_step(self, trainer):
        self.state = {name: value.clone() for name, value in trainer.model.state_dict().items()}


def poison_weight(name, value=float("nan"), at=3):
    """A function that sets one entry of a weight."""

    def poison(trainer):
        with torch.no_grad():
            weight = trainer.model.get_parameter(name)
            weight[torch.unravel_index(torch.tensor(at), weight.shape)] = value

    return poison


# What a run of these tests is: small, without evaluation and pictures.
PLAIN = [
    "data.test=[]",
    "solver.max_iter=5",
    "train.checkpoint_period=100",
    "model.backbone={name: Slim}",
]
POISONED = "data.train_transforms=[{name: PoisonPixel, samples: %s}]"


def build(tiny_config, *overrides, hooks=(), check="", output="run"):
    """A trainer whose check has further keys, with hooks that sabotage it before the check."""
    config = tiny_config(
        *PLAIN, f"train.hooks=[{{name: NonFiniteLossCheck{check}}}]", *overrides, output=output
    )
    trainer = build_trainer(config)
    trainer.hooks[:0] = [KeepState(), *hooks]
    return trainer


def check_of(trainer):
    """Its check."""
    return next(hook for hook in trainer.hooks if isinstance(hook, NonFiniteLossCheck))


def bundles(trainer):
    """The folders that it has written."""
    return sorted(check_of(trainer).folder.glob("iter_*"))


def same_state(one, other):
    """Equal bit for bit, NaN included."""
    return one.keys() == other.keys() and all(
        one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one
    )
