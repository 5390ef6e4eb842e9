"""Layers that several parts use."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..structures import current_extents
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


class GroupNorm(nn.GroupNorm):
    """PyTorch's, of which the padding of a batch has no part.

    Statistics are those of the cells that belong to the image (``image_extents``); the others
    become 0, which is what convolutions see beyond the border of an image alone. Outside of
    ``image_extents`` it is PyTorch's bit by bit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, C, H, W)."""
        extents = current_extents()
        mask = None if extents is None else extents.mask(x)
        if mask is None:
            # What nn.GroupNorm calls, after it has refused one image with one value a group, which
            # comes out as the bias.
            return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        # float32 at least, also under autocast.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mask = mask.to(wide.dtype)
        count = mask.sum(dim=(2, 3)) * (self.num_channels // self.num_groups)
        mean = self._over_groups((wide * mask).sum(dim=(2, 3)), count)
        centered = (wide - mean) * mask
        var = self._over_groups(centered.square().sum(dim=(2, 3)), count)
        scale = (var + self.eps).rsqrt()
        if not self.affine:
            return (centered * scale).to(x.dtype)
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        return torch.addcmul(bias * mask, centered, scale * weight).to(x.dtype)

    def _over_groups(self, sums: Tensor, count: Tensor) -> Tensor:
        """Sums (N, C) over cells, of ``count`` (N, 1) values a group, to means (N, C, 1, 1)."""
        means = sums.unflatten(1, (self.num_groups, -1)).sum(dim=2) / count
        return means.repeat_interleave(self.num_channels // self.num_groups, dim=1)[..., None, None]


def make_norm(name: NormName, channels: int, eps: float = 1e-5) -> nn.Module | None:
    """The normalization layer of a name, ``eps`` added to its variance; None for "".

    GN has 32 groups, or the greatest number below that divides 32 and the channels.
    """
    makers: dict[str, Callable[[int, float], nn.Module]] = {
        "BN": nn.BatchNorm2d,
        "FrozenBN": FrozenBatchNorm2d,
        "SyncBN": SyncBatchNorm,
        "GN": lambda num, eps: GroupNorm(math.gcd(32, num), num, eps),
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
