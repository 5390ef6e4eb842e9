"""Names of a ResNet's tensors: torchvision's and timm's, pycls's, Caffe2's; ours are detectron2's.

Each function takes a name and gives ours without ``backbone.``, or None. torchvision's and timm's
last layer, which an ``ImageClassifier`` has too, is read with the backbone.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from .peer_weights import (
    CLASSIFIER,
    CLASSIFIER_TENSORS,
    RGB_MEAN,
    RGB_STD,
    PeerWeights,
    ends_with,
    starts_with,
    translate,
)

_TENSOR = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
# How the classifiers of ImageNet end.
_CLASSIFIER = starts_with("fc.", "fc1000_", "pred_", "head.fc.", "linear.")
_TORCHVISION_HEAD = dict(zip(("fc.weight", "fc.bias"), CLASSIFIER_TENSORS, strict=True))


def from_torchvision_name(name: str) -> str | None:
    """``layer1.0.bn1.weight`` -> ``res2.0.conv1.norm.weight``; timm's "d" variants too."""
    if match := re.fullmatch(r"layer([1-4])\.(\d+)\.(.+)", name):
        stage, block, rest = int(match[1]) + 1, match[2], match[3]
        inner = _in_torchvision_block(rest)
        return inner and f"res{stage}.{block}.{inner}"
    # A deep stem has convolutions 0, 3, 6 with ReLUs between, and norms 1, 4; its third is bn1.
    if match := re.fullmatch(r"conv1\.([036])\.weight", name):
        return f"stem.conv{int(match[1]) // 3 + 1}.weight"
    if match := re.fullmatch(rf"conv1\.([14])\.{_TENSOR}", name):
        return f"stem.conv{int(match[1]) // 3 + 1}.norm.{match[2]}"
    if name == "conv1.weight":
        return "stem.conv1.weight"
    if match := re.fullmatch(rf"bn1\.{_TENSOR}", name):
        return f"stem.conv1.norm.{match[1]}"
    return None


def _in_torchvision_block(rest: str) -> str | None:
    if match := re.fullmatch(r"conv([123])\.weight", rest):
        return f"conv{match[1]}.weight"
    if match := re.fullmatch(rf"bn([123])\.{_TENSOR}", rest):
        return f"conv{match[1]}.norm.{match[2]}"
    # The shortcut is 0 and 1; where an average pooling is 0, they are 1 and 2.
    if match := re.fullmatch(rf"downsample\.([012])\.{_TENSOR}", rest):
        return f"shortcut.{match[1]}.{match[2]}"
    return None


def rename_torchvision(state: Mapping[str, Tensor]) -> dict[str, str | None]:
    """Our name of each tensor of a ResNet in torchvision's or timm's names.

    What a number in ``downsample`` means depends on its neighbours, and whose norm ``bn1`` is
    depends on the stem, so the whole state is looked at.
    """
    deep_stem = "conv1.0.weight" in state
    renamed: dict[str, str | None] = {}
    for name in state:
        ours = from_torchvision_name(name)
        if ours and deep_stem and name.startswith("bn1."):
            ours = ours.replace("conv1", "conv3")
        if ours and (match := re.fullmatch(r"(.*shortcut)\.([012])\.(.+)", ours)):
            is_conv = state[name].ndim == 4
            ours = f"{match[1]}.{match[3]}" if is_conv else f"{match[1]}.norm.{match[3]}"
        renamed[name] = ours
    return renamed


def rename_body(state: Mapping[str, Tensor], prefix: str) -> dict[str, str | None]:
    """Our name of each tensor of the ResNet within a detector, by the detector's names."""
    body = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    return {
        f"{prefix}{n}": ours and f"backbone.{ours}" for n, ours in rename_torchvision(body).items()
    }


def to_torchvision_name(name: str, *, deep_stem: bool, pooled: bool) -> str:
    """The inverse: our name, without ``backbone.``, to torchvision's or timm's.

    Args:
        name: Ours.
        deep_stem: The stem has three convolutions.
        pooled: Shortcuts begin with an average pooling.
    """
    if match := re.fullmatch(r"stem\.conv(\d)\.(norm\.)?(\w+)", name):
        which = int(match[1])
        if not deep_stem:
            return f"bn1.{match[3]}" if match[2] else f"conv1.{match[3]}"
        if match[2] and which == 3:
            return f"bn1.{match[3]}"
        return f"conv1.{3 * (which - 1) + (1 if match[2] else 0)}.{match[3]}"
    name = re.sub(r"^res(\d)", lambda m: f"layer{int(m[1]) - 1}", name)
    name = re.sub(r"\.conv(\d)\.norm\.", r".bn\1.", name)
    first = 1 if pooled else 0
    name = name.replace("shortcut.norm.", f"downsample.{first + 1}.")
    return name.replace("shortcut.", f"downsample.{first}.")


def from_pycls_name(name: str) -> str | None:
    """``s1.b1.f.a_bn.weight`` -> ``res2.0.conv1.norm.weight``."""
    if match := re.fullmatch(rf"stem\.(conv|bn)\.{_TENSOR}", name):
        return f"stem.conv1.{'norm.' if match[1] == 'bn' else ''}{match[2]}"
    if match := re.fullmatch(rf"s([1-4])\.b(\d+)\.(?:f\.)?(a|b|c|proj|bn)(_bn)?\.{_TENSOR}", name):
        stage, block = int(match[1]) + 1, int(match[2]) - 1
        layer = {"a": "conv1", "b": "conv2", "c": "conv3"}.get(match[3], "shortcut")
        norm = "norm." if match[4] or match[3] == "bn" else ""
        return f"res{stage}.{block}.{layer}.{norm}{match[5]}"
    return None


_CAFFE2_TENSORS = {
    "w": "weight",
    "b": "bias",
    # Affine layers with folded statistics, of Detectron; norms with statistics, of detectron2.
    **dict.fromkeys(("bn_s", "bn_gamma", "gn_s"), "norm.weight"),
    **dict.fromkeys(("bn_b", "bn_bias", "bn_beta", "gn_b", "gn_bias"), "norm.bias"),
    **dict.fromkeys(("bn_rm", "bn_running_mean"), "norm.running_mean"),
    **dict.fromkeys(("bn_riv", "bn_running_var"), "norm.running_var"),
}
_CAFFE2_LAYERS = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}


def from_caffe2_name(name: str) -> str | None:
    """``res2_0_branch2a_bn_s`` -> ``res2.0.conv1.norm.weight``."""
    if match := re.fullmatch(r"res([2-5])_(\d+)_branch(1|2[abc])_(\w+)", name):
        tensor = _CAFFE2_TENSORS.get(match[4])
        return tensor and f"res{match[1]}.{match[2]}.{_CAFFE2_LAYERS[match[3]]}.{tensor}"
    if match := re.fullmatch(r"(?:res_)?conv1_(\w+)", name):
        tensor = _CAFFE2_TENSORS.get(match[1])
        return tensor and f"stem.conv1.{tensor}"
    return None


def from_detectron2_name(name: str) -> str | None:
    """detectron2's names are ours."""
    pattern = rf"(stem|res[2-5]\.\d+)\.(conv[123]|shortcut)\.(norm\.)?{_TENSOR}"
    return name if re.fullmatch(pattern, name) else None


def read_resnet(state: Mapping[str, Tensor]) -> PeerWeights | None:
    """The backbone in a file that holds a ResNet alone; None if it holds something else."""
    if "res2_0_branch2a_w" in state:
        result = _backbone(state, from_caffe2_name, "ImageNet backbone in Caffe2's names")
        result.settings = caffe_settings()
        if not any("gn_" in name for name in state):
            _add_folded_statistics(result)
    elif any(name.startswith("s1.b1.") for name in state):
        result = _backbone(state, from_pycls_name, "ImageNet backbone of pycls")
        result.settings = {
            "backbone.stride_in_1x1": False,
            "preprocessor.channel_order": "BGR",
            "preprocessor.mean": RGB_MEAN,
            "preprocessor.std": RGB_STD,
        }
    elif "res2.0.conv1.weight" in state:
        result = _backbone(state, from_detectron2_name, "ImageNet backbone in detectron2's names")
        result.settings = {"backbone.stride_in_1x1": False}
    elif "layer1.0.conv1.weight" in state:
        names = rename_torchvision(state)
        result = _backbone(state, names.get, "ResNet in torchvision's names", _TORCHVISION_HEAD)
        result.settings = {
            "backbone.stride_in_1x1": False,
            "backbone.stem": "deep" if "conv1.0.weight" in state else "7x7",
            # The pooling has no weights; it shows by the number of the convolution behind it.
            "backbone.avg_down": "layer2.0.downsample.2.weight" in state,
            "preprocessor.channel_order": "RGB",
        }
    else:
        return None
    return result


def caffe_settings() -> dict[str, object]:
    """What the ImageNet backbones of MSRA were made with; their weights contain the deviation."""
    return {
        "backbone.stride_in_1x1": True,
        "preprocessor.channel_order": "BGR",
        "preprocessor.mean": RGB_MEAN,
        "preprocessor.std": (1.0, 1.0, 1.0),
    }


def _backbone(
    state: Mapping[str, Tensor],
    rename: Callable[[str], str | None],
    kind: str,
    head: Mapping[str, str] = MappingProxyType({}),
) -> PeerWeights:
    def renamed(name: str) -> str | None:
        ours = rename(name)
        return head.get(name) or (ours and f"backbone.{ours}")

    sorts = {
        CLASSIFIER: lambda name: _CLASSIFIER(name) and name not in head,
        "momentum": ends_with("_momentum"),
    }
    return translate(state, renamed, kind=kind, not_needed=sorts)


def _add_folded_statistics(result: PeerWeights) -> None:
    """Where a norm's statistics are folded into scale and shift, they are 0 and 1."""
    for name in [name for name in result.weights if name.endswith("norm.weight")]:
        prefix, scale = name.removesuffix("weight"), result.weights[name]
        if f"{prefix}running_var" not in result.weights:
            result.weights[f"{prefix}running_mean"] = torch.zeros_like(scale)
            result.weights[f"{prefix}running_var"] = torch.ones_like(scale)
