"""Weights as detectron2's users have them: a RetinaNet of the zoo, backbones of MSRA and pycls.

The numbers are random, but the same everywhere and for ever: ``RandomState`` never changes its
streams, each tensor has one of its own, and what is done to the numbers (sums, products, square
roots) is rounded alike on every machine.
"""

import io
import math
import pickle
import struct
import zlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

BLOCKS = {"res2": 3, "res3": 4, "res4": 6, "res5": 3}
NUM_ANCHORS, NUM_CLASSES = 9, 80
EPS = 1e-5

# The biases of cls_score. `record_golden.py --search` found this seed: neither a score nor an
# overlap is so near to a decision that rounding could turn it.
SCORE_SEED = 1051
# Logits lie low and far apart, so that few pass the threshold, with scores of all sizes.
PRIOR, PRIOR_SPREAD = -10.5, 1.0
LOGIT_SCALE, DELTA_SCALE = 0.4, 0.1
# Evens out the levels, whose features have passed through more or fewer sums.
LEVEL_SCALES = {"fpn_output4": 1.3, "fpn_output5": 2.2, "top_block.p6": 4.0, "top_block.p7": 1.4}


def zoo_checkpoint() -> dict[str, Any]:
    """What an old file of the model zoo holds: weights, and buffers that were saved then."""
    buffers = {
        "pixel_mean": np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1),
        "pixel_std": np.ones((3, 1, 1), np.float32),
    }
    for level in range(5):
        corners = []
        for octave in range(3):
            for ratio in (0.5, 1.0, 2.0):
                area = (32 * 2**level * 2 ** (octave / 3)) ** 2
                width = math.sqrt(area / ratio)
                half = width / 2, width * ratio / 2
                corners.append((-half[0], -half[1], half[0], half[1]))
        buffers[f"anchor_generator.cell_anchors.{level}"] = np.array(corners, np.float32)
    return {"model": {**buffers, **retinanet_state()}, "__author__": "Detectron2 Model Zoo"}


def msra_backbone(*, folded: bool) -> dict[str, np.ndarray]:
    """ResNet-50 in Caffe2's names, with a classifier and momenta that nobody needs.

    Args:
        folded: Norms have a scale ``_s`` and a shift ``_b``, their statistics folded in; otherwise
            ``_gamma``, ``_beta``, ``_running_mean`` and ``_running_var``.
    """
    state = backbone_state()
    blobs = {}
    for name in [name.removesuffix(".weight") for name in state if state[name].ndim == 4]:
        blob = _caffe2_name(name)
        norm = ("res_conv1" if name == "stem.conv1" else blob) + "_bn"
        blobs[f"{blob}_w"] = state[f"{name}.weight"]
        scale, shift, mean, var = (
            state[f"{name}.norm.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
        )
        if folded:
            scale = (scale / np.sqrt(var + EPS)).astype(np.float32)
            blobs |= {f"{norm}_s": scale, f"{norm}_b": (shift - mean * scale).astype(np.float32)}
        else:
            blobs |= {f"{norm}_gamma": scale, f"{norm}_beta": shift}
            blobs |= {f"{norm}_running_mean": mean, f"{norm}_running_var": var}
    blobs["fc1000_w"] = (0.02 * _uniform("fc1000_w", (1000, 2048))).astype(np.float32)
    blobs["fc1000_b"] = np.zeros(1000, np.float32)
    trained = ["conv1_w", "res2_0_branch1_w", "fc1000_w", "fc1000_b"]
    return blobs | {f"{blob}_momentum": np.zeros_like(blobs[blob]) for blob in trained}


def pycls_backbone(*, pycls_names: bool) -> dict[str, np.ndarray]:
    """The "model_state" of a ``.pyth`` file: ResNet-50 for pixels of deviation 1, a classifier.

    Args:
        pycls_names: ``s1.b1.f.a.weight``, which detectron2 reads into its RegNets only; otherwise
            ``res2.0.conv1.weight``, which it reads into its ResNets.
    """
    state = backbone_state()
    state["stem.conv1.weight"] = 57 * state["stem.conv1.weight"]
    for name in [name for name in state if name.endswith("running_var")]:
        state[name.replace("running_var", "num_batches_tracked")] = np.array(1000)
    if pycls_names:
        state = {_pycls_name(name): value for name, value in state.items()}
    state["head.fc.weight"] = (0.02 * _uniform("head.fc.weight", (1000, 2048))).astype(np.float32)
    return state | {"head.fc.bias": np.zeros(1000, np.float32)}


def retinanet_state() -> dict[str, np.ndarray]:
    """RetinaNet R50-FPN with 80 classes in detectron2's names, 301 tensors."""
    state = {f"backbone.bottom_up.{name}": value for name, value in backbone_state().items()}
    for level, channels in ((3, 512), (4, 1024), (5, 2048)):
        state |= _conv(f"backbone.fpn_lateral{level}", 256, channels, 1)
        state |= _conv(f"backbone.fpn_output{level}", 256, 256, 3)
    state |= _conv("backbone.top_block.p6", 256, 2048, 3)
    state |= _conv("backbone.top_block.p7", 256, 256, 3)
    for subnet in ("cls_subnet", "bbox_subnet"):
        for i in (0, 2, 4, 6):
            state |= _conv(f"head.{subnet}.{i}", 256, 256, 3)
    state |= _conv("head.cls_score", NUM_ANCHORS * NUM_CLASSES, 256, 3, scale=LOGIT_SCALE)
    state |= _conv("head.bbox_pred", NUM_ANCHORS * 4, 256, 3, scale=DELTA_SCALE)
    state["head.cls_score.bias"] = score_bias(SCORE_SEED)
    return state


def score_bias(seed: int) -> np.ndarray:
    """The bias (720,) of cls_score."""
    noise = np.random.RandomState(seed).random_sample(NUM_ANCHORS * NUM_CLASSES) * 2 - 1
    return (PRIOR + PRIOR_SPREAD * noise).astype(np.float32)


def backbone_state() -> dict[str, np.ndarray]:
    """ResNet-50 in detectron2's names, without any prefix; no classifier."""
    state = {}
    for name, out_channels, in_channels, kernel in _backbone_convs():
        state |= _conv(name, out_channels, in_channels, kernel, bias=False)
        state |= _norm(name, out_channels)
    return state


def pickle_as_python2(content: Any) -> bytes:
    """Pickle in the way of Python 2: text and bytes alike are byte strings."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(content)
    return _with_old_names(file.getvalue())


def pickle_as_python3(content: Any) -> bytes:
    """Pickle in the way of the first versions of Python 3."""
    return _with_old_names(pickle.dumps(content, protocol=3))


def _with_old_names(pickled: bytes) -> bytes:
    # What a file says of functions is lines of text; numpy 2 has given its own a new module.
    return pickled.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


class _Python2Pickler(pickle._Pickler):
    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, text: str | bytes) -> None:
        data = text if isinstance(text, bytes) else text.encode("ascii")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_string


def _backbone_convs() -> Iterator[tuple[str, int, int, int]]:
    """Name, outputs, inputs and kernel of each convolution of ResNet-50."""
    yield "stem.conv1", 64, 3, 7
    channels = 64
    for i, (stage, num_blocks) in enumerate(BLOCKS.items()):
        width = 64 * 2**i
        for j in range(num_blocks):
            yield f"{stage}.{j}.conv1", width, channels, 1
            yield f"{stage}.{j}.conv2", width, width, 3
            yield f"{stage}.{j}.conv3", 4 * width, width, 1
            if j == 0:
                yield f"{stage}.{j}.shortcut", 4 * width, channels, 1
            channels = 4 * width


def _conv(
    name: str, outputs: int, inputs: int, kernel: int, *, scale: float = 1.0, bias: bool = True
) -> dict[str, np.ndarray]:
    # Of variance 3 / fan-in, which keeps that of ReLUs' outputs. The second half of the inputs has
    # the first half's weights with the other sign: filters sum to 0, so that the mean of their
    # inputs, positive after a ReLU, does not add up from layer to layer.
    for ending, factor in LEVEL_SCALES.items():
        scale *= factor if name.endswith(ending) else 1
    bound = scale * 3 / math.sqrt(inputs * kernel**2)
    drawn = _uniform(f"{name}.weight", (outputs, (inputs + 1) // 2, kernel, kernel))
    weight = np.concatenate((drawn, -drawn), axis=1)[:, :inputs]
    state = {f"{name}.weight": (bound * weight).astype(np.float32)}
    if bias:
        state[f"{name}.bias"] = (0.1 * _uniform(f"{name}.bias", (outputs,))).astype(np.float32)
    return state


def _norm(name: str, channels: int) -> dict[str, np.ndarray]:
    # Pixels have a standard deviation of about 60, activations of about 1. The last norm of a block
    # is weaker, so that sixteen blocks do not add up to a flood.
    std = 60.0 if name == "stem.conv1" else 1.0
    gain = 0.25 if name.endswith("conv3") else 1.0
    values = {
        "weight": gain * (1 + 0.3 * _uniform(f"{name}.norm.weight", (channels,))),
        "bias": 0.2 * _uniform(f"{name}.norm.bias", (channels,)),
        "running_mean": 0.2 * std * _uniform(f"{name}.norm.running_mean", (channels,)),
        "running_var": std**2 * (1.6 + 0.8 * _uniform(f"{name}.norm.running_var", (channels,))),
    }
    return {f"{name}.norm.{key}": value.astype(np.float32) for key, value in values.items()}


def _uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers between -1 and 1, of a stream that belongs to this name."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    return stream.random_sample(shape) * 2 - 1


def _caffe2_name(layer: str) -> str:
    """``res2.0.conv1`` -> ``res2_0_branch2a``."""
    branches = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    stage, *block, conv = layer.split(".")
    if stage == "stem":
        return conv
    return "_".join((stage, *block, branches.get(conv, "branch1")))


def _pycls_name(name: str) -> str:
    """``res2.0.conv1.norm.weight`` -> ``s1.b1.f.a_bn.weight``."""
    if name.startswith("stem."):
        return name.replace("conv1.norm", "bn").replace("conv1", "conv")
    stage, block, conv, *rest = name.split(".")
    if conv == "shortcut":
        inner = "bn" if len(rest) > 1 else "proj"
    else:
        inner = f"f.{'abc'[int(conv[-1]) - 1]}{'_bn' if len(rest) > 1 else ''}"
    return f"s{int(stage[-1]) - 1}.b{int(block) + 1}.{inner}.{rest[-1]}"
