"""torchvision's RetinaNet, both versions: names, and what its weights mean."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .peer_weights import RGB_MEAN, RGB_STD, PeerWeights, levels_of, translate
from .resnet import rename_body, to_torchvision_name

KIND = "RetinaNet of torchvision"
_BODY = "backbone.body."
_LAST = {
    "classification_head.cls_logits": "cls_score",
    "regression_head.bbox_reg": "box_pred",
}


def read_torchvision(state: Mapping[str, Tensor]) -> PeerWeights | None:
    """The weights of a RetinaNet of torchvision; None if it is none."""
    if "head.classification_head.cls_logits.weight" not in state:
        return None
    backbone = rename_body(state, _BODY)
    levels = levels_of(state, r"backbone\.fpn\.inner_blocks\.(\d+)\.(?:0\.)?weight", backbone)
    step = _subnet_step(state)

    p6 = state.get("backbone.fpn.extra_blocks.p6.weight")
    p7 = state.get("backbone.fpn.extra_blocks.p7.weight")
    # Made of p5, P6 has the pyramid's channels, as P7 always has.
    from_p5 = p6 is not None and p7 is not None and p6.shape == p7.shape
    return translate(
        state,
        lambda name: backbone[name] if name in backbone else _ours(name, levels, step),
        kind=KIND,
        not_needed={},
        settings={
            "backbone.stride_in_1x1": False,
            "preprocessor.channel_order": "RGB",
            "preprocessor.mean": RGB_MEAN,
            "preprocessor.std": RGB_STD,
            "neck.extra_levels.source": "p5" if from_p5 else "res5",
            "neck.extra_levels.relu_before_p7": True,
            "anchor_generator.order": "ratio_major",
            "anchor_generator.rounding": "torchvision",
            "anchor_generator.offset": 0.0,
            "anchor_generator.cell_spacing": "image",
            "postprocessor.clip_before_nms": True,
        },
    )


def write_torchvision(weights: Mapping[str, Tensor], **_: Any) -> dict[str, Tensor]:
    """The state dict of torchvision's RetinaNet, which cannot name its classes."""
    laterals = sorted({name.split(".")[2] for name in weights if name.startswith("neck.laterals.")})
    return {_theirs(name, laterals): value for name, value in weights.items()}


def _subnet_step(state: Mapping[str, Tensor]) -> int:
    """0 where each convolution has a number of its own, else the distance of their numbers.

    Files from before torchvision 0.13 count the ReLUs between: ``conv.0``, ``conv.2``.
    """
    old = re.compile(r"head\.classification_head\.conv\.(\d+)\.weight")
    indices = sorted(int(match[1]) for name in state if (match := old.fullmatch(name)))
    return 0 if not indices else 2 if len(indices) < 2 else indices[1] - indices[0]


def _ours(name: str, levels: Mapping[int, str], step: int) -> str | None:
    if match := re.fullmatch(r"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.(?:0\.)?(\w+)", name):
        group = "laterals" if match[1] == "inner" else "outputs"
        return f"neck.{group}.{levels.get(int(match[2]))}.{match[3]}"
    if match := re.fullmatch(r"backbone\.fpn\.extra_blocks\.(p[67])\.(\w+)", name):
        return f"neck.extra_levels.{match[1]}.{match[2]}"
    for theirs, ours in _LAST.items():
        if match := re.fullmatch(rf"head\.{theirs}\.(\w+)", name):
            return f"head.{ours}.{match[1]}"
    heads = r"head\.(classification|regression)_head\.conv\.(\d+)\."
    if match := re.fullmatch(heads + r"([01])\.(\w+)", name):
        norm = "norm." if match[3] == "1" else ""
        return f"head.{_subnet(match[1])}.{match[2]}.{norm}{match[4]}"
    if step and (match := re.fullmatch(heads + r"(\w+)", name)):
        return f"head.{_subnet(match[1])}.{int(match[2]) // step}.{match[3]}"
    return None


def _subnet(head: str) -> str:
    return "cls_subnet" if head == "classification" else "box_subnet"


def _theirs(name: str, laterals: list[str]) -> str:
    if name.startswith("backbone."):
        inner = name.removeprefix("backbone.")
        return _BODY + to_torchvision_name(inner, deep_stem=False, pooled=False)
    if match := re.fullmatch(r"neck\.(laterals|outputs)\.(p\d)\.(\w+)", name):
        group = "inner" if match[1] == "laterals" else "layer"
        return f"backbone.fpn.{group}_blocks.{laterals.index(match[2])}.0.{match[3]}"
    name = name.replace("neck.extra_levels.", "backbone.fpn.extra_blocks.")
    if match := re.fullmatch(r"head\.(cls|box)_subnet\.(\d+)\.(norm\.)?(\w+)", name):
        head = "classification" if match[1] == "cls" else "regression"
        return f"head.{head}_head.conv.{match[2]}.{int(bool(match[3]))}.{match[4]}"
    for theirs, ours in _LAST.items():
        name = name.replace(f"head.{ours}.", f"head.{theirs}.")
    return name
