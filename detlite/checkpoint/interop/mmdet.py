"""mmdetection's RetinaNet: names, and what its weights mean."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .peer_weights import (
    RGB_MEAN,
    RGB_STD,
    PeerWeights,
    levels_of,
    starts_with,
    translate,
)
from .resnet import rename_body, to_torchvision_name

_LAST = {"retina_cls": "cls_score", "retina_reg": "box_pred"}
_SUBNETS = {"cls_convs": "cls_subnet", "reg_convs": "box_subnet"}


def read_mmdet(state: Mapping[str, Tensor]) -> PeerWeights | None:
    """The weights of a RetinaNet of mmdetection; None if it is none."""
    if "bbox_head.retina_cls.weight" not in state:
        return None
    backbone = rename_body(state, "backbone.")
    levels = levels_of(state, r"neck\.lateral_convs\.(\d+)\.conv\.weight", backbone)
    return translate(
        state,
        lambda name: backbone[name] if name in backbone else _ours(name, levels),
        kind="RetinaNet of mmdetection",
        not_needed={
            "moving averages": starts_with("ema_"),
        },
        settings={
            "backbone.stride_in_1x1": False,
            "preprocessor.channel_order": "RGB",
            "preprocessor.mean": RGB_MEAN,
            "preprocessor.std": RGB_STD,
            "neck.extra_levels.source": "res5",
            "neck.extra_levels.relu_before_p7": False,
            "anchor_generator.order": "ratio_major",
            "anchor_generator.rounding": "none",
            "anchor_generator.offset": 0.0,
            "anchor_generator.cell_spacing": "stride",
            "box_coder.clamp_shrinking": True,
            "postprocessor.clip_before_nms": True,
        },
    )


def write_mmdet(weights: Mapping[str, Tensor], *, class_names: Sequence[str]) -> dict[str, Any]:
    """The content of a checkpoint of mmdetection."""
    laterals = sorted({name.split(".")[2] for name in weights if name.startswith("neck.laterals.")})
    state = {_theirs(name, laterals): value for name, value in weights.items()}
    names = tuple(class_names)
    # The first is read by mmdetection 3, the second by mmdetection 2.
    return {"meta": {"dataset_meta": {"classes": names}, "CLASSES": names}, "state_dict": state}


def _ours(name: str, levels: Mapping[int, str]) -> str | None:
    if match := re.fullmatch(r"neck\.lateral_convs\.(\d+)\.conv\.(\w+)", name):
        return f"neck.laterals.{levels.get(int(match[1]))}.{match[2]}"
    if match := re.fullmatch(r"neck\.fpn_convs\.(\d+)\.conv\.(\w+)", name):
        index = int(match[1])
        if index in levels:
            return f"neck.outputs.{levels[index]}.{match[2]}"
        return f"neck.extra_levels.p{6 + index - len(levels)}.{match[2]}"
    if match := re.fullmatch(r"bbox_head\.(cls|reg)_convs\.(\d+)\.(conv|gn|bn)\.(\w+)", name):
        norm = "" if match[3] == "conv" else "norm."
        return f"head.{_SUBNETS[match[1] + '_convs']}.{match[2]}.{norm}{match[4]}"
    if match := re.fullmatch(r"bbox_head\.(retina_cls|retina_reg)\.(\w+)", name):
        return f"head.{_LAST[match[1]]}.{match[2]}"
    return None


def _theirs(name: str, laterals: list[str]) -> str:
    if name.startswith("backbone."):
        inner = name.removeprefix("backbone.")
        return "backbone." + to_torchvision_name(inner, deep_stem=False, pooled=False)
    if match := re.fullmatch(r"neck\.(laterals|outputs)\.(p\d)\.(\w+)", name):
        group = "lateral_convs" if match[1] == "laterals" else "fpn_convs"
        return f"neck.{group}.{laterals.index(match[2])}.conv.{match[3]}"
    if match := re.fullmatch(r"neck\.extra_levels\.p(\d)\.(\w+)", name):
        return f"neck.fpn_convs.{len(laterals) + int(match[1]) - 6}.conv.{match[2]}"
    if match := re.fullmatch(r"head\.(cls|box)_subnet\.(\d+)\.(norm\.)?(\w+)", name):
        convs = "cls_convs" if match[1] == "cls" else "reg_convs"
        return f"bbox_head.{convs}.{match[2]}.{'gn' if match[3] else 'conv'}.{match[4]}"
    for theirs, ours in _LAST.items():
        name = name.replace(f"head.{ours}.", f"bbox_head.{theirs}.")
    return name
