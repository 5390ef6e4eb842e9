"""Backbone and neck: detectron2's ResNet with FPN, P6 and P7 in our blocks."""

from dataclasses import dataclass
from typing import Any

from .settings import Settings

STAGES = ["res2", "res3", "res4", "res5"]


@dataclass(frozen=True)
class Pyramid:
    """Which stages of the backbone the levels are made from.

    Attributes:
        stages: The backbone's outputs, from fine to coarse.
        extra: Whether P6 and P7 follow.
    """

    stages: list[str]
    extra: bool

    @property
    def strides(self) -> list[int]:
        """The stride of each level, from fine to coarse."""
        first = int(self.stages[0][3:])
        return [2 ** (first + i) for i in range(len(self.stages) + 2 * self.extra)]


def pyramid_of(s: Settings) -> Pyramid:
    """Which stages and levels the model has."""
    as_usual = Pyramid(["res3", "res4", "res5"], extra=True)
    key, outputs = "MODEL.FPN.IN_FEATURES", "MODEL.RESNETS.OUT_FEATURES"
    if s.get("MODEL.BACKBONE.NAME") != "build_retinanet_resnet_fpn_backbone":
        s.lost(
            "MODEL.BACKBONE.NAME",
            "only build_retinanet_resnet_fpn_backbone is translated, and a ResNet with FPN stands "
            "here instead. Write the backbone as a project (projects/README.md) and put its block "
            "in model.backbone; without P6 and P7 set model.neck.extra_levels to null",
            also=(key, outputs, "MODEL.RETINANET.IN_FEATURES"),
        )
        return as_usual
    stages = s.get(key)
    if not stages or stages != STAGES[-len(stages) :]:
        s.problem(
            key, f"must be the last stages up to res5, e.g. {', '.join(as_usual.stages)}, in order"
        )
        return as_usual
    missing = [stage for stage in stages if stage not in s.get(outputs)]
    if missing:
        s.problem(outputs, f"lacks {', '.join(missing)}, which {key} needs")
    return _head_levels(s, stages)


def _head_levels(s: Settings, stages: list[str]) -> Pyramid:
    """Leave out the finest levels, and P6 with P7, if the head does not look at them."""
    key = "MODEL.RETINANET.IN_FEATURES"
    for i in range(len(stages)):
        levels = [f"p{stage[3:]}" for stage in stages[i:]]
        for extra in (["p6", "p7"], []):
            if s.get(key) == levels + extra:
                return Pyramid(stages[i:], extra=bool(extra))
    s.lost(
        key, "the head looks at every level of the neck, from fine to coarse; choose levels with "
        "model.backbone.out_features and model.neck.extra_levels",
    )  # fmt: skip
    return Pyramid(stages, extra=True)


def backbone_block(s: Settings, pyramid: Pyramid) -> dict[str, Any]:
    """The ResNet."""
    depth = s.get("MODEL.RESNETS.DEPTH")
    block = {
        "name": "ResNet",
        "depth": depth,
        "norm": norm_name(s, "MODEL.RESNETS.NORM") or "FrozenBN",
        # Beyond its stages detectron2's freezing knows no limits.
        "freeze_at": min(max(s.get("MODEL.BACKBONE.FREEZE_AT"), 0), 5),
    }
    if not s.get("MODEL.RESNETS.NORM"):
        s.lost(
            "MODEL.RESNETS.NORM",
            "a ResNet has a normalization here; FrozenBN changes 5e-6 as long as its weights are "
            "not loaded",
        )
    bottleneck = ("STRIDE_IN_1X1", "NUM_GROUPS", "WIDTH_PER_GROUP")
    if depth in (18, 34):
        keys = [f"MODEL.RESNETS.{name}" for name in bottleneck]
        s.no_loss(*keys, because=f"only for bottlenecks, which a ResNet-{depth} has none of")
    else:
        stride_in_1x1, groups, width = (s.get(f"MODEL.RESNETS.{name}") for name in bottleneck)
        block["stride_in_1x1"] = stride_in_1x1
        block |= {"groups": groups, "width_per_group": width} if (groups, width) != (1, 64) else {}
    _check_stages(s, 64 if depth in (18, 34) else 256)
    return {**block, "out_features": pyramid.stages}


def _check_stages(s: Settings, res2_channels: int) -> None:
    """Account for the keys of stages that our ResNet builds in one way only."""
    for name, value in {
        "STEM_OUT_CHANNELS": 64,
        "RES2_OUT_CHANNELS": res2_channels,
        "RES5_DILATION": 1,
    }.items():
        key = f"MODEL.RESNETS.{name}"
        if s.get(key) != value:
            s.lost(key, f"a ResNet of this depth has {value} here; a wider one is a project's")
    deformable = "MODEL.RESNETS.DEFORM_ON_PER_STAGE"
    others = ("MODEL.RESNETS.DEFORM_MODULATED", "MODEL.RESNETS.DEFORM_NUM_GROUPS")
    if any(s.get(deformable)):
        s.lost(deformable, "there are no deformable convolutions here; a project's", also=others)
    else:
        s.no_loss(*others, because="only for deformable convolutions, which are off")


def norm_name(s: Settings, key: str) -> str:
    """A normalization by our name; "" for none."""
    name = s.get(key) or ""
    if name in ("", "BN", "FrozenBN", "SyncBN", "GN"):
        return str(name)
    if name == "nnSyncBN":
        return "SyncBN"
    if name in ("naiveSyncBN", "naiveSyncBN_N"):
        s.lost(key, "SyncBN stands for it, the same if each process has equally large images")
        return "SyncBN"
    if name == "LN":
        s.lost(key, "there is no LN here; GN is the nearest")
        return "GN"
    s.problem(key, "must be one of '', BN, FrozenBN, GN, SyncBN")
    return ""


def neck_block(s: Settings, pyramid: Pyramid) -> dict[str, Any]:
    """The FPN."""
    if s.get("MODEL.FPN.FUSE_TYPE") != "sum":
        s.lost("MODEL.FPN.FUSE_TYPE", "levels are added here; another neck is a project's")
    norm = norm_name(s, "MODEL.FPN.NORM")
    return {
        "name": "FPN",
        "out_channels": s.get("MODEL.FPN.OUT_CHANNELS"),
        **({"norm": norm} if norm else {}),
        "extra_levels": {"name": "P6P7", "source": "res5"} if pyramid.extra else None,
    }
