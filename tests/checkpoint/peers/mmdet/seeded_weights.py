"""Weights of mmdetection's RetinaNet, drawn from a seed: its names, its shapes, its file.

numpy alone draws them, so that the script that ran mmdetection and the test without it hold the
same numbers. They are made for telling two programs apart, not for detecting anything:

* Filters sum to zero: what changes in the photograph decides, and not how bright it is. A few
  hundred candidates of many classes pass the score threshold, far apart from one another.
* Norms have other statistics, scales and shifts in every channel.
* The logarithms of width and height of two of the nine anchors reach beyond the box coder's clamp
  on both sides.
"""

from collections import OrderedDict

import numpy as np

NUM_CLASSES, NUM_ANCHORS = 80, 9
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
# Gains (see _conv) found by trial: of the FPN's outputs, so that all levels are alike; of the
# logits, whose mean is LOGIT_BIAS, and of the deltas.
LOGIT_BIAS = -8.0
GAINS = {18: (9.0, 0.3), 50: (11.0, 0.3)}
LEVEL_GAINS = (1.0, 1.6, 5.0, 9.0, 3.0)
# Anchors (numbered as in a cell) whose dw and dh are drawn this much wider.
WIDE_ANCHORS, WIDE = (2, 7), 20.0


def checkpoint(depth: int, class_names: list[str]) -> dict:
    """What mmdetection saves of ``retinanet_r{depth}_fpn_1x_coco``, with arrays for tensors.

    The deeper one as version 2 wrote it, the other as version 3 does.
    """
    meta: dict = {
        "mmdet_version": "2.3.0",
        "epoch": 12,
        "iter": 87960,
        "CLASSES": tuple(class_names),
    }
    if depth < 50:
        meta["mmdet_version"] = "3.3.0"
        meta["dataset_meta"] = {"classes": meta.pop("CLASSES"), "palette": [(220, 20, 60)]}
    return {"meta": meta, "state_dict": state_dict(depth)}


def state_dict(depth: int) -> "OrderedDict[str, np.ndarray]":
    """The model's weights in mmdetection's names and order, float32 (counters int64)."""
    draw = _Draw(depth)
    state: OrderedDict[str, np.ndarray] = OrderedDict()
    channels = _backbone(state, draw, depth)
    for i, width in enumerate(channels[1:]):
        _conv(state, draw, f"neck.lateral_convs.{i}.conv", width, 256, 1)
    widths = (256, 256, 256, channels[-1], 256)
    for i, (width, gain) in enumerate(zip(widths, LEVEL_GAINS, strict=True)):
        _conv(state, draw, f"neck.fpn_convs.{i}.conv", width, 256, 3, gain=gain)
    for branch in ("cls_convs", "reg_convs"):
        for i in range(4):
            _conv(state, draw, f"bbox_head.{branch}.{i}.conv", 256, 256, 3, gain=2.0)
    logit_gain, delta_gain = GAINS[depth]
    _conv(state, draw, "bbox_head.retina_cls", 256, NUM_ANCHORS * NUM_CLASSES, 3, gain=logit_gain)
    state["bbox_head.retina_cls.bias"] += np.float32(LOGIT_BIAS)
    _conv(state, draw, "bbox_head.retina_reg", 256, NUM_ANCHORS * 4, 3, gain=delta_gain)
    deltas = state["bbox_head.retina_reg.weight"].reshape(NUM_ANCHORS, 4, -1)
    deltas[list(WIDE_ANCHORS), 2:] *= np.float32(WIDE)
    return state


class _Draw:
    """Uniform float32 numbers. No logarithm or root of a library is in them: all machines agree."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.RandomState(seed)

    def __call__(self, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        return (self._random.random_sample(shape) * (high - low) + low).astype(np.float32)


def _backbone(state: dict[str, np.ndarray], draw: _Draw, depth: int) -> list[int]:
    """Add the ResNet; the channels of its four stages."""
    bottleneck = depth >= 50
    _conv_norm(state, draw, "backbone.conv1", "backbone.bn1", 3, 64, 7, gain=2.0)
    channels, before = [], 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        middle = 64 * 2**stage
        after = middle * 4 if bottleneck else middle
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = [middle] * (len(kernels) - 1) + [after]
        for i in range(blocks):
            block = f"backbone.layer{stage + 1}.{i}"
            width = before
            for n, (kernel, out) in enumerate(zip(kernels, widths, strict=True), start=1):
                _conv_norm(state, draw, f"{block}.conv{n}", f"{block}.bn{n}", width, out, kernel)
                width = out
            if i == 0 and before != after:
                _conv_norm(
                    state, draw, f"{block}.downsample.0", f"{block}.downsample.1", before, after, 1
                )
            before = after
        channels.append(after)
    return channels


def _conv(
    state: dict[str, np.ndarray],
    draw: _Draw,
    name: str,
    channels: int,
    out_channels: int,
    kernel: int,
    *,
    gain: float = 1.0,
    bias: bool = True,
) -> None:
    """Add a convolution whose outputs have ``gain`` times the mean square of its inputs."""
    limit = (3.0 * gain / (channels * kernel * kernel)) ** 0.5
    weight = draw((out_channels, channels, kernel, kernel), -limit, limit)
    state[f"{name}.weight"] = weight - weight.mean(axis=(1, 2, 3), keepdims=True)
    if bias:
        state[f"{name}.bias"] = draw((out_channels,), -0.1, 0.1)


def _conv_norm(
    state: dict[str, np.ndarray],
    draw: _Draw,
    conv: str,
    norm: str,
    channels: int,
    out_channels: int,
    kernel: int,
    *,
    gain: float = 1.0,
) -> None:
    """Add a convolution without bias and the batch normalization after it."""
    _conv(state, draw, conv, channels, out_channels, kernel, gain=gain, bias=False)
    state[f"{norm}.weight"] = draw((out_channels,), 0.5, 1.5)
    state[f"{norm}.bias"] = draw((out_channels,), -0.2, 0.2)
    state[f"{norm}.running_mean"] = draw((out_channels,), -0.2, 0.2)
    state[f"{norm}.running_var"] = draw((out_channels,), 0.5, 1.5)
    state[f"{norm}.num_batches_tracked"] = np.array(87960, np.int64)
