"""Whose weights a file holds, told from what is in it."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...config.tree import parse_yaml
from ...errors import CheckpointError
from .detectron2 import read_detectron2
from .foreign_body import read_foreign_body
from .mmdet import read_mmdet
from .peer_weights import RGB_MEAN, RGB_STD, PeerWeights
from .resnet import read_resnet
from .torchvision import KIND as TORCHVISION
from .torchvision import read_torchvision

DETLITE = "detlite"
# Where the tensors are in the checkpoints of frameworks, the averaged ones of timm first.
_STATES = ("state_dict_ema", "state_dict", "model_state", "model", "blobs")
_READERS: tuple[Callable[[Mapping[str, Tensor]], PeerWeights | None], ...] = (
    read_detectron2,
    read_torchvision,
    read_mmdet,
    read_resnet,
)
_MAX_TOLD = 5


def recognize(content: Any, name: str, own: Collection[str] = ()) -> PeerWeights:
    """The weights in the content of a file, under our names.

    Args:
        content: What the file holds: plain containers and tensors.
        name: The file, for error messages.
        own: Names of the tensors of the model that they are for, if it is known: its backbone may
            hold the very modules that the file is of.

    Raises:
        CheckpointError: It holds no weights, or those of something unknown.
    """
    try:
        return _recognize(content, name, own)
    except CheckpointError:
        raise
    # A file whose names are right may hold anything behind them: a number for a convolution.
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{name} has the names of known weights, and does not hold behind them what such a "
            f"file does: {type(error).__name__}: {error}"
        ) from error


def _recognize(content: Any, name: str, own: Collection[str]) -> PeerWeights:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{name} holds no weights by name but a {type(content).__name__}; save the model's "
            "state_dict()"
        )
    if content.get("format") == "safetensors":
        metadata, content = content["metadata"], content["tensors"]
        if metadata.get("format") == DETLITE:
            names = json.loads(metadata["class_names"])
            content = {**metadata, "class_names": names, "model": content}
    if content.get("format") == DETLITE:
        return _own(content, name)
    state = _state(content)
    if not state:
        found = ", ".join(map(str, list(content)[:_MAX_TOLD])) or "nothing"
        raise CheckpointError(
            f"{name} is no checkpoint with weights that detlite knows (it holds {found})"
        )
    for reader in (lambda state: read_foreign_body(state, own), *_READERS):
        result = reader(state)
        if result is not None:
            result.source = name
            result.class_names = class_names_in(content)
            _add_frozen_eps(result, state)
            return result
    first = ", ".join(list(state)[:_MAX_TOLD])
    raise CheckpointError(
        f"{name} holds {len(state)} tensors of an unknown model ({first}, ...). Known are "
        "checkpoints of detlite; RetinaNets of detectron2, torchvision and mmdetection; ResNets "
        "of torchvision, timm, detectron2, pycls and Caffe2; and the model that a "
        "TorchvisionBackbone or a TimmBackbone is made of"
    )


def inference_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights to predict with: the moving average where there is one."""
    weights: dict[str, Tensor] = checkpoint.get("ema") or checkpoint["model"]
    return weights


def _own(content: Mapping[str, Any], name: str) -> PeerWeights:
    config = content.get("config")
    return PeerWeights(
        kind="checkpoint of detlite",
        weights=dict(inference_weights(content)),
        class_names=class_names_in(content),
        settings=_own_settings(parse_yaml(config, "the config").values["model"]) if config else {},
        source=name,
        config=config,
    )


def _add_frozen_eps(result: PeerWeights, state: Mapping[str, Tensor]) -> None:
    """The eps of torchvision's first published RetinaNet, which it overwrites with 0."""
    published = "COCO_V1" in result.source or "retinanet_resnet50_fpn_coco" in result.source
    frozen = not any(name.endswith("num_batches_tracked") for name in state)
    if published and frozen and result.kind == TORCHVISION:
        result.settings["backbone.norm_eps"] = 0.0


def class_names_in(content: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """The class names in a checkpoint: ours beside the weights, mmdetection's in its ``meta``."""
    meta = content.get("meta")
    places: list[Any] = [content]
    if isinstance(meta, Mapping):
        places = [content, meta.get("dataset_meta"), meta]
    for place in places:
        for key in ("class_names", "classes", "CLASSES"):
            names = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(names, list | tuple) and names and all(type(n) is str for n in names):
                return tuple(names)
    return None


# Keys that change what the same weights compute; the others say how a model is trained.
_PARTS = ("backbone", "neck", "anchor_generator", "head", "box_coder", "preprocessor")
_TRAINING = (
    "weights",
    "freeze_at",
    "out_features",
    "norm",
    "batch_statistics",
    "init",
    "prior_prob",
    "zero_init_residual",
)


def _own_settings(block: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one of our model blocks."""
    settings = _settings_of(block)
    if block.get("preprocessor") is None:
        # The meta-archs' own default, which all of them share.
        settings.pop("preprocessor", None)
        settings |= {"preprocessor.mean": RGB_MEAN, "preprocessor.std": RGB_STD}
        settings["preprocessor.channel_order"] = "RGB"
    if "neck" not in block:
        # A classifier's images are padded for no pyramid.
        settings.pop("preprocessor.size_divisor", None)
    return settings


def _settings_of(block: Any, path: str = "") -> dict[str, Any]:
    """The values of a block that decide what weights compute, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in block.items():
        if (not path and key not in _PARTS) or key in _TRAINING:
            continue
        if isinstance(value, Mapping):
            found.update(_settings_of(value, f"{path}{key}."))
        else:
            found[f"{path}{key}"] = value
    return found


def _state(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The tensors in a checkpoint's content, by name; none if there are none."""
    for key in _STATES:
        inner = content.get(key)
        if isinstance(inner, Mapping) and inner:
            return _state(inner) or _tensors(inner)
    return _tensors(content)


def _tensors(content: Mapping[Any, Any]) -> dict[str, Any]:
    values = {
        str(key): value
        for key, value in content.items()
        if isinstance(value, Tensor | np.ndarray) and isinstance(key, str)
    }
    # DistributedDataParallel and torch.compile put a prefix before every name.
    for prefix in ("module.", "_orig_mod."):
        if values and all(key.startswith(prefix) for key in values):
            values = {key.removeprefix(prefix): value for key, value in values.items()}
    return {key: torch.as_tensor(value) for key, value in values.items()}
