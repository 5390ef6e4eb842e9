"""The precision of a forward pass: what a config asks for, and what the device computes itself."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from ..config.loader import parse_yaml
from ..config.schema import Config, PrecisionKey
from ..errors import ConfigError
from ..utils.distributed import gather_objects
from ..utils.hardware import computes_bf16

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

logger = logging.getLogger(__name__)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context of a forward pass of this precision."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def choose_precision(
    asked: Mapping[str, PrecisionKey], device: torch.device, *, on_all_ranks: bool = True
) -> dict[str, Precision]:
    """What ``auto`` is on a device, bf16 where the hardware computes it, else fp32; log the choice.

    An explicit bf16 that the hardware does not compute is kept, with a warning.

    Args:
        asked: Precisions by the names of their keys.
        device: Of the forward pass.
        on_all_ranks: Choose the same on every rank, bf16 only if all compute it; to be called on
            every rank then.

    Returns:
        The precision of each key.
    """
    has, reason = computes_bf16(device)
    if on_all_ranks:
        has, reason = min(gather_objects((has, reason)))
    best: Precision = "bf16" if has else "fp32"
    chosen: dict[str, Precision] = {k: best if v == "auto" else v for k, v in asked.items()}
    automatic = [key for key, value in asked.items() if value == "auto"]
    if automatic:
        logger.info("%s: %s (auto), as %s", " and ".join(automatic), best, reason)
    slow = [key for key, value in asked.items() if value == "bf16" and not has]
    if slow:
        logger.warning(
            "%s: bf16, as set, although %s: about 8 times slower than fp32 on such hardware; set "
            "%s to auto or fp32",
            " and ".join(slow),
            reason,
            "it" if len(slow) == 1 else "them",
        )
    return chosen


def settle_precision(
    config: Config, device: torch.device, checkpoint: Mapping[str, Any] | None
) -> tuple[Config, Precision, Precision]:
    """Fix the precisions of a training run; to be called on every rank.

    A resumed run whose config says ``auto`` keeps the precision that it began with.

    Args:
        config: The whole config; is not changed.
        device: Of the run.
        checkpoint: What the run is resumed from, if it is.

    Returns:
        The config with ``train.precision`` as chosen, so that checkpoints and ``config.yaml``
        repeat the run, that precision, and that of the run's evaluations. ``test.precision``
        stays ``auto`` in the config: whoever loads the checkpoint may have another device.
    """
    training = config.train.precision
    begun_with = _precision_of(checkpoint)
    if training == "auto" and begun_with:
        training = begun_with
        logger.info("train.precision: %s, with which the run began", training)
    asked = {"train.precision": training, "test.precision": config.test.precision}
    chosen = choose_precision(asked, device)
    train, test = chosen["train.precision"], chosen["test.precision"]
    return replace(config, train=replace(config.train, precision=train)), train, test


def memory_format(
    channels_last: bool | Literal["auto"], precision: PrecisionKey, device: torch.device
) -> torch.memory_format:
    """What ``model.to`` is told; auto: channels-last for half precisions that are computed.

    On two AVX2 cores fp32 is no faster in channels-last (RetinaNet with ResNet-18 and -50), with
    AVX-512 BF16 and on GPUs convolutions of half precision are.
    """
    if channels_last == "auto":
        half = device.type == "cuda" or computes_bf16(device)[0]
        channels_last = precision != "fp32" and half
    return torch.channels_last if channels_last else torch.preserve_format


def _precision_of(checkpoint: Mapping[str, Any] | None) -> Precision | None:
    """The precision that a checkpoint's run was trained in; None where it does not say."""
    if not checkpoint or not checkpoint.get("config"):
        return None
    try:
        values = parse_yaml(str(checkpoint["config"]), "the config within the checkpoint").values
    except ConfigError:  # of an older version; the run goes on with the present config
        return None
    train = values.get("train")
    found = train.get("precision") if isinstance(train, dict) else None
    return found if found in ("fp32", "bf16", "fp16") else None
