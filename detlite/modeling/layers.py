"""Layers that several parts use."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sync_batch_norm import SyncBatchNorm

NormName = Literal["", "BN", "FrozenBN", "SyncBN", "GN"]
InitName = Literal["caffe2", "xavier"]


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization with fixed statistics and affine parameters, all of them buffers.

    Args:
        num_features: Channels.
        eps: Added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, C, H, W)."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        # In place: a second large map costs more than the arithmetic.
        return (x * scale.to(x.dtype)[:, None, None]).add_(shift.to(x.dtype)[:, None, None])

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """Replace every batch normalization within ``module`` by a frozen one of equal values."""
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen = cls(module.num_features, module.eps)
            state = module.state_dict()
            state.pop("num_batches_tracked", None)
            frozen.load_state_dict(state)
            return frozen
        for name, child in module.named_children():
            setattr(module, name, cls.convert(child))
        return module

    def extra_repr(self) -> str:
        """Channels and eps, for ``print(model)``."""
        return f"{len(self.weight)}, eps={self.eps}"


def make_norm(name: NormName, channels: int, eps: float = 1e-5) -> nn.Module | None:
    """The normalization layer of a name, ``eps`` added to its variance; None for "".

    GN has 32 groups, or the greatest number below that divides 32 and the channels.
    """
    makers: dict[str, Callable[[int, float], nn.Module]] = {
        "BN": nn.BatchNorm2d,
        "FrozenBN": FrozenBatchNorm2d,
        "SyncBN": SyncBatchNorm,
        "GN": lambda num, eps: nn.GroupNorm(math.gcd(32, num), num, eps),
    }
    if name and name not in makers:
        raise ValueError(f"norm must be '' or one of {', '.join(makers)}, got '{name}'")
    return makers[name](channels, eps) if name else None


def init_xavier(conv: nn.Conv2d, init: InitName = "caffe2") -> None:
    """Begin a convolution of a neck with uniform weights and no bias.

    Args:
        conv: The convolution.
        init: What bounds the weights: "caffe2" the fan-in alone, as Caffe2's XavierFill
            (detectron2, torchvision); "xavier" the mean of fan-in and fan-out, as Glorot and
            Bengio 2010 (mmdetection, ODTK).
    """
    if init == "xavier":
        nn.init.xavier_uniform_(conv.weight)
    else:
        nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def init_prior(conv: nn.Conv2d, prior_prob: float) -> None:
    """Let a head's last convolution begin with this score everywhere (RetinaNet, section 4.1)."""
    assert conv.bias is not None
    nn.init.constant_(conv.bias, -math.log((1 - prior_prob) / prior_prob))


def by_anchor(levels: Sequence[Tensor], values: int) -> Tensor:
    """Join a head's outputs (N, A * values, H, W) in the anchors' order, (N, R, values)."""
    return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, values) for x in levels], dim=1)


class ConvNorm(nn.Conv2d):
    """A convolution, then a normalization, then a ReLU, the last two where asked for.

    The convolution has a bias if no normalization follows, or where ``bias`` says so. ``padding``
    keeps the size at stride 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: NormName = "",
        norm_eps: float = 1e-5,
        relu: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=not norm if bias is None else bias,
        )
        self.norm = make_norm(norm, out_channels, norm_eps)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x, inplace=True) if self.relu else x
