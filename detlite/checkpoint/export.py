"""Writing weights for other frameworks, in files that they load strictly."""

import json
import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from ..errors import CheckpointError
from ..modeling import MetaArch
from .atomic_file import save_atomically
from .interop import (
    DETLITE,
    PeerWeights,
    recognize,
    write_detectron2,
    write_mmdet,
    write_torchvision,
)
from .load_report import listed
from .settings import settings_differences

Format = Literal["detectron2", "torchvision", "mmdet", "safetensors"]
# State of training, not of the network.
_NOT_WRITTEN = "loss_normalizer."


def export_weights(
    peer: PeerWeights,
    file_format: Format,
    path: str | os.PathLike[str],
) -> list[str]:
    """Write weights in the form of another framework, and read them back to be sure.

    Args:
        peer: What to write, see ``own_weights``.
        file_format: "detectron2" is a ``.pkl`` as in its model zoo, "torchvision" a state dict of
            ``retinanet_resnet50_fpn`` or ``_v2``, "mmdet" a checkpoint of mmdetection,
            "safetensors" holds our names, the config and the class names.
        path: The file; an earlier one is replaced once the new one is whole.

    Returns:
        What its reader must know: settings of the model that are not the framework's own.

    Raises:
        CheckpointError: The format has no place for a tensor.
    """
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in peer.weights.items()
        if not name.startswith(_NOT_WRITTEN)
    }
    names = list(peer.class_names or ())
    if file_format == "safetensors":
        metadata = {
            "format": DETLITE,
            "config": peer.config or "",
            "class_names": json.dumps(names),
        }
        # The library makes bytes; they are written as carefully as every other checkpoint.
        save_atomically(safetensors.torch.save(weights, metadata), path)
        return []
    writers: Mapping[str, Callable[..., dict[str, Any]]] = {
        "detectron2": write_detectron2,
        "torchvision": write_torchvision,
        "mmdet": write_mmdet,
    }
    content = writers[file_format](weights, class_names=names)
    back = recognize(content, str(path))
    lost = [name for name in weights if not _equal(weights[name], back.weights.get(name))]
    if lost:
        raise CheckpointError(
            f"{file_format} has no place for {len(lost)} of the {len(weights)} tensors "
            f"({listed(lost)}); only a RetinaNet of ResNet, FPN and RetinaNetHead can be written"
        )
    if file_format == "detectron2":
        save_atomically(pickle.dumps(content, protocol=4), path)
    else:
        save_atomically(content, path)
    return settings_differences(back.settings, peer.settings)


def own_weights(model: MetaArch, config: str, source: str) -> PeerWeights:
    """The weights of a model as they would be read from a checkpoint of it.

    Args:
        model: With its class names.
        config: Its resolved config as YAML.
        source: What to call it.
    """
    content = {
        "format": DETLITE,
        "model": model.state_dict(),
        "config": config,
        "class_names": list(model.class_names),
    }
    return recognize(content, source)


def _equal(value: Tensor, back: Any) -> bool:
    return back is not None and value.dtype == back.dtype and torch.equal(value, back)
