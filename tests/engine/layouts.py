"""One batch on several layouts of processes and parts: models, cases, and what comes of them."""

import hashlib
import warnings
from dataclasses import dataclass

import torch
from torch import nn

from detlite import BACKBONE_REGISTRY, Backbone, ShapeSpec
from detlite.engine.parallel import (
    backward_context,
    batch_shares,
    parallel_model,
    split_batch,
)
from detlite.modeling import build_meta_arch
from detlite.modeling.layers import ConvNorm
from detlite.registry import Block
from detlite.structures import Instances
from detlite.utils.distributed import rank, sum_over_ranks, world_size

# The ways to 8 images: processes and parts of each.
LAYOUTS = {
    "quick": [(1, 1), (1, 8), (2, 1), (2, 2), (3, 1), (4, 1)],
    "slow": [(1, 1), (1, 8), (2, 2), (3, 2), (4, 1)],
}
SIZES = [(61, 58), (40, 52), (33, 57), (30, 31), (48, 48), (56, 41), (24, 58), (32, 20)]
# Rank 1 of 2, rank 2 of 3, ranks 1 and 3 of 4 have no object at all, as most parts of 8.
NUM_OBJECTS = [5, 0, 0, 0, 3, 0, 2, 0]
CPU = torch.device("cpu")


@BACKBONE_REGISTRY.register
class Narrow(Backbone):
    """Five strided convolutions of a few channels."""

    def __init__(self, *, norm: str = "GN") -> None:
        super().__init__()
        channels = [3, 8, 8, 16, 16, 24]
        self.convs = nn.ModuleList(
            ConvNorm(channels[i], channels[i + 1], 3, stride=2, norm=norm, relu=True)
            for i in range(5)
        )
        self._shapes = {f"res{i}": ShapeSpec(channels[i], 2**i) for i in (3, 4, 5)}

    def output_shape(self):
        return dict(self._shapes)

    def forward(self, images):
        features = {}
        for i, conv in enumerate(self.convs, start=1):
            images = conv(images)
            if f"res{i}" in self._shapes:
                features[f"res{i}"] = images
        return features


def build(backbone=None, norm="GN", extra_levels="P6P7", **keys):
    """A small RetinaNet, the same in every process."""
    torch.manual_seed(0)
    # The coarsest level has one cell, of which GN makes nothing.
    head_norm = norm if norm == "SyncBN" else ""
    extra = Block(name=extra_levels) if extra_levels else None
    block = Block(
        name="RetinaNet",
        backbone=Block(backbone or {"name": "Narrow", "norm": norm}),
        neck=Block(name="FPN", out_channels=16, norm=head_norm, extra_levels=extra),
        anchor_generator=Block(name="GridAnchorGenerator"),
        head=Block(name="RetinaNetHead", num_convs=1, norm=head_norm),
        **{
            name: Block(block) if isinstance(block, dict) else block for name, block in keys.items()
        },
    )
    model = build_meta_arch(block, ("cat", "dog", "owl")).train()
    # Larger than the first weights of a head, so that gradients reach the backbone.
    for conv in (model.head.cls_score, model.head.box_pred):
        nn.init.normal_(conv.weight, std=0.1)
    return model


def draw_batch(seed=0):
    """The 8 samples of a batch."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for size, num in zip(SIZES, NUM_OBJECTS, strict=True):
        limits = torch.tensor([size[1], size[0]])
        corner = torch.rand(num, 2, generator=generator) * limits * 0.6
        boxes = torch.cat((corner, corner + 8 + 24 * torch.rand(num, 2, generator=generator)), 1)
        classes = torch.randint(3, (num,), generator=generator)
        image = torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)
        instances = Instances(size, gt_boxes=boxes, gt_classes=classes)
        batch.append({"image": image, "instances": instances})
    return batch


def step(model, batch, num_parts):
    """The metrics of a step over all processes; its gradients stay in the model."""
    bare = getattr(model, "module", model)
    parts = split_batch(batch[rank() :: world_size()], num_parts)
    shares = batch_shares(bare, parts, CPU)
    model.zero_grad(set_to_none=True)
    total = {}
    for i, (part, share) in enumerate(zip(parts, shares, strict=True)):
        with backward_context(model, i == num_parts - 1):
            losses = model(part) if share is None else model(part, share)
            (losses["loss_cls"] + losses["loss_box"]).backward()
        for name, value in losses.items():
            total[name] = total.get(name, 0) + value.detach()
    return {name: sum_over_ranks(value).item() for name, value in total.items()}


def gradients_of(model):
    """The gradients of a model, by name."""
    bare = getattr(model, "module", model)
    return {name: p.grad.clone() for name, p in bare.named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class Case:
    """A model, and how it is computed.

    Attributes:
        keys: Of ``build``.
        dtype: Of weights and images.
        onednn: Use oneDNN's convolutions, which round otherwise for another number of images;
            PyTorch's own round each image alike.
        parts: Whether the model is the same in parts: not with statistics of a batch.
        steps: The last one's gradients are kept.
    """

    keys: dict
    dtype: torch.dtype = torch.float32
    onednn: bool = False
    parts: bool = True
    steps: int = 1


UNROUNDED = {"name": "ImageNormalizer", "size_divisor": 1}
NORMALIZERS = {
    "MovingAverage": {"name": "MovingAverageNormalizer"},
    "Batch": {"name": "BatchNormalizer"},
    "BatchByImage": {"name": "BatchNormalizer", "at_least_one_per": "image"},
    "PerImage": {"name": "PerImageNormalizer"},
}
RESNET = {"name": "ResNet", "depth": 18}
CASES = {
    "quick": {
        "float32": Case({}, steps=3),
        "float64": Case(
            {"loss_normalizer": NORMALIZERS["PerImage"], "ignore_padding": True}, torch.float64
        ),
        "SyncBN": Case({"norm": "SyncBN", "extra_levels": None}, torch.float64, parts=False),
    },
    "slow": {
        f"{name} {'ignoring' if ignore else 'using'} padding": Case(
            {"loss_normalizer": block, "ignore_padding": ignore},
            torch.float64,
            steps=3 if name == "MovingAverage" else 1,
        )
        for name, block in NORMALIZERS.items()
        for ignore in (False, True)
    }
    | {
        "sizes that are no multiples": Case({"preprocessor": UNROUNDED, "ignore_padding": True}),
        "ResNet-18": Case({"backbone": RESNET}),
        "ResNet-18 by oneDNN": Case({"backbone": RESNET}, onednn=True),
    },
}


def run_cases(which):
    """What this layout's processes make of every case."""
    results = {}
    for num_parts in [parts for world, parts in LAYOUTS[which] if world == world_size()]:
        for name, case in CASES[which].items():
            if num_parts > 1 and not case.parts:
                continue
            bare = build(**case.keys).to(case.dtype)
            model = parallel_model(bare, CPU)
            with warnings.catch_warnings():
                # On a CPU the switch warns of its settings for GPUs.
                warnings.filterwarnings("ignore", message="TF32 acceleration")
                torch.backends.mkldnn.set_flags(case.onednn)
            metrics = [step(model, draw_batch(seed), num_parts) for seed in range(case.steps)]
            gradients = gradients_of(model)
            every = b"".join(value.numpy().tobytes() for value in gradients.values())
            results[name, num_parts] = {
                # One rank's are enough: the test compares the hashes of all.
                "gradients": gradients if rank() == 0 else {},
                "sha256": hashlib.sha256(every).hexdigest(),
                "metrics": metrics,
                "buffers": {name: value.clone() for name, value in bare.named_buffers()},
            }
    return results
