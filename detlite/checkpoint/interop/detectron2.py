"""detectron2's RetinaNet: names, and what its weights mean."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .peer_weights import PeerWeights, starts_with, translate
from .resnet import caffe_settings, from_detectron2_name

_PREFIX = "backbone.bottom_up."
_LAST = {"cls_score": "cls_score", "bbox_pred": "box_pred"}


def read_detectron2(state: Mapping[str, Tensor]) -> PeerWeights | None:
    """The weights of a RetinaNet of detectron2; None if it is none."""
    if not any(name.startswith((_PREFIX, "head.bbox_subnet.")) for name in state):
        return None
    step = _subnet_step(state)
    anchors = [
        state[name] for name in sorted(state) if name.startswith("anchor_generator.cell_anchors.")
    ]
    return translate(
        state,
        lambda name: _ours(name, step),
        kind="RetinaNet of detectron2",
        not_needed={
            "pixel mean and deviation": starts_with("pixel_mean", "pixel_std"),
            "anchors": starts_with("anchor_generator.cell_anchors"),
        },
        settings={
            **caffe_settings(),
            **_pixel_settings(state),
            "neck.extra_levels.source": "res5",
            "neck.extra_levels.relu_before_p7": True,
            "anchor_generator.order": "size_major",
            "anchor_generator.rounding": "none",
            "anchor_generator.offset": 0.0,
            "anchor_generator.cell_spacing": "stride",
            "postprocessor.clip_before_nms": False,
        },
        cell_anchors=anchors,
    )


def write_detectron2(
    weights: Mapping[str, Tensor], *, class_names: Sequence[str]
) -> dict[str, Any]:
    """The content of a ``.pkl`` in the form of detectron2's model zoo."""
    step = 3 if any(re.match(r"head\.cls_subnet\.\d\.norm", name) for name in weights) else 2
    model = {_theirs(name, step): value.numpy() for name, value in weights.items()}
    # detectron2 reads past the class names, we do not.
    return {"model": model, "__author__": "detlite", "class_names": list(class_names)}


def _subnet_step(state: Mapping[str, Tensor]) -> int:
    """Layers for each convolution of a subnet: 2 with its ReLU, 3 with a norm between."""
    indices = {
        int(match[1])
        for name, value in state.items()
        if value.ndim == 4 and (match := re.match(r"head\.cls_subnet\.(\d+)\.", name))
    }
    return 3 if 3 in indices else 2


def _ours(name: str, step: int) -> str | None:
    if name.startswith(_PREFIX):
        inner = from_detectron2_name(name.removeprefix(_PREFIX))
        return inner and f"backbone.{inner}"
    if match := re.fullmatch(r"backbone\.fpn_(lateral|output)(\d)\.(.+)", name):
        return f"neck.{match[1]}s.p{match[2]}.{match[3]}"
    if match := re.fullmatch(r"backbone\.top_block\.(p[67])\.(\w+)", name):
        return f"neck.extra_levels.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"head\.(cls|bbox)_subnet\.(\d+)\.(\w+)", name):
        subnet = "cls_subnet" if match[1] == "cls" else "box_subnet"
        index, within = divmod(int(match[2]), step)
        return f"head.{subnet}.{index}.{'norm.' if within else ''}{match[3]}"
    if match := re.fullmatch(r"head\.(cls_score|bbox_pred)\.(\w+)", name):
        return f"head.{_LAST[match[1]]}.{match[2]}"
    return None


def _theirs(name: str, step: int) -> str:
    name = re.sub(r"^neck\.(lateral|output)s\.p(\d)\.", r"backbone.fpn_\1\2.", name)
    name = name.replace("neck.extra_levels.", "backbone.top_block.")
    name = re.sub(r"^backbone\.(stem|res\d)\.", rf"{_PREFIX}\1.", name)
    if match := re.fullmatch(r"head\.(cls|box)_subnet\.(\d+)\.(norm\.)?(\w+)", name):
        subnet = "cls_subnet" if match[1] == "cls" else "bbox_subnet"
        return f"head.{subnet}.{int(match[2]) * step + bool(match[3])}.{match[4]}"
    return name.replace("head.box_pred.", "head.bbox_pred.")


def _pixel_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Mean and deviation, if the file says them; blue comes first unless its mean is greater."""
    if "pixel_mean" not in state or "pixel_std" not in state:
        return {}
    mean = [round(float(value), 4) for value in state["pixel_mean"].flatten()]
    std = [round(float(value), 4) for value in state["pixel_std"].flatten()]
    bgr = mean[0] <= mean[-1]
    return {
        "preprocessor.channel_order": "BGR" if bgr else "RGB",
        "preprocessor.mean": tuple(reversed(mean)) if bgr else tuple(mean),
        "preprocessor.std": tuple(reversed(std)) if bgr else tuple(std),
        # Only MSRA's backbones have their deviation in the weights, and their stride in the 1x1.
        "backbone.stride_in_1x1": std == [1.0, 1.0, 1.0],
    }
