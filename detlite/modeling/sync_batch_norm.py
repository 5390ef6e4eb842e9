"""Batch normalization with the statistics of all processes, on GPUs and on CPUs."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SyncBatchNorm(nn.SyncBatchNorm):
    """PyTorch's on GPUs; the same on CPUs, where PyTorch has none.

    Processes may have different numbers of images. Within one process it is batch normalization.
    Statistics are those of the images that are computed at the same time: with
    ``train.accumulate``, of one part of the batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, C, ...)."""
        if x.device.type != "cpu":
            return super().forward(x)
        group = self.process_group if _is_distributed() else None
        if not self.training or not _is_distributed() or dist.get_world_size(group) == 1:
            # That of all batch normalizations; PyTorch's synchronized one refuses CPUs.
            return super(nn.SyncBatchNorm, self).forward(x)
        self._check_input_dim(x)
        # As autocast's batch normalization, which takes and returns low precision.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normalized, mean, var, count = _Standardize.apply(wide, self.eps, group)
        if self.track_running_stats:
            self._move_statistics(mean, var * count / (count - 1))
        if self.weight is not None:
            shape = [1, -1, *[1] * (x.ndim - 2)]
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(x.dtype)

    @torch.no_grad()
    def _move_statistics(self, mean: Tensor, var: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        # Without a momentum, the mean over all batches so far.
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - share).add_(share * mean.to(self.running_mean))
        self.running_var.mul_(1 - share).add_(share * var.to(self.running_var))


class _Standardize(torch.autograd.Function):
    """Values (N, C, ...) to mean 0 and variance 1 in each channel, over all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, group: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Standardized values; mean (C,), biased variance (C,) and count () of all processes."""
        var, mean = torch.var_mean(x, _all_but_channels(x), correction=0)
        own = torch.cat((mean.double(), var.double(), mean.new_tensor([x.numel() // x.shape[1]])))
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, own, group)
        means, variances, counts = torch.stack(gathered).split([len(mean), len(mean), 1], dim=1)
        # Each process's own deviations, then those of the means; no difference of large squares.
        count = counts.sum()
        mean = (means * counts).sum(dim=0) / count
        var = ((variances + (means - mean) ** 2) * counts).sum(dim=0) / count
        shape = [1, -1, *[1] * (x.ndim - 2)]
        scale = (var + eps).rsqrt().to(x.dtype).view(shape)
        normalized = (x - mean.to(x.dtype).view(shape)) * scale
        ctx.save_for_backward(normalized, scale, count)
        ctx.group = group
        ctx.mark_non_differentiable(mean, var, count)
        return normalized, mean, var, count

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        """The gradient of the sum of all processes' losses."""
        normalized, scale, count = ctx.saved_tensors
        dims = _all_but_channels(gradient)
        sums = torch.stack((gradient.sum(dims), (gradient * normalized).sum(dims))).double()
        dist.all_reduce(sums, group=ctx.group)
        along, by_value = (sums / count).to(gradient.dtype).view(2, *scale.shape)
        return (gradient - along - normalized * by_value) * scale, None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
