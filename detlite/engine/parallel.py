"""One step on several processes, or in several parts, that is the step on the whole batch.

Gradients are summed, never averaged: the loss of each part is already its share of the batch's
loss (``MetaArch.forward`` with a ``BatchShare``).
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import ConfigError, UserError
from ..structures import BatchShare
from ..utils.distributed import rank, sum_over_ranks, world_size

Samples = Sequence[Mapping[str, Any]]

# No message in each forward: buffers are the same everywhere, but for local statistics of norms,
# see `sync_model`. The name is that of torch 2.15, or that of before.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_KEEP_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False
}


class ParallelModel(DistributedDataParallel):
    """A model whose gradients are summed over all processes during ``backward``."""

    module: nn.Module

    def _passing_sync_batchnorm_handle(self, module: nn.Module) -> None:
        """PyTorch refuses synchronized norms on CPUs here; ours work there."""


def parallel_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a model so that its gradients are those of all processes; one process needs no wrapper.

    The weights of the first process become those of all.
    """
    if world_size() == 1:
        return model
    # No device_ids: the model itself moves its input, without waiting for the device.
    wrapped = ParallelModel(model, gradient_as_bucket_view=True, **_KEEP_BUFFERS)
    in_order = device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
    wrapped.register_comm_hook(None, sum_in_rank_order if in_order else sum_as_it_comes)
    return wrapped


def sum_as_it_comes(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Sum gradients while ``backward`` goes on; the rounding depends on the layout of buckets."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future


def sum_in_rank_order(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Sum gradients from the first rank to the last, so that every run rounds alike.

    An all-reduce adds in an order that depends on an element's place in its bucket, and buckets
    are laid out anew after the first iteration of a process, also of one that resumes a run.

    It blocks: a collective that waits in a callback of another can use up gloo's threads.
    """
    gradients, world = bucket.buffer(), world_size()
    chunk = -(-len(gradients) // world)
    padded = gradients.new_zeros(world * chunk)
    padded[: len(gradients)] = gradients
    received = torch.empty_like(padded)
    dist.all_to_all_single(received, padded)  # chunk i of every rank goes to rank i
    total, *others = received.view(world, chunk).unbind()
    for other in others:
        total = total + other
    # Of the collectives the one whose name every torch from 2.10 on knows without a warning.
    dist.all_gather(list(padded.view(world, chunk).unbind()), total)
    gradients.copy_(padded[: len(gradients)])
    # With its device, so that who takes the result waits for this stream.
    future: torch.futures.Future[Tensor] = torch.futures.Future(
        devices=[gradients.device] if gradients.is_cuda else None
    )
    future.set_result(gradients)
    return future


@contextmanager
def backward_context(model: nn.Module, is_last_part: bool) -> Iterator[None]:
    """Within the context goes a part's forward and backward; the last part sums over processes.

    Raises:
        UserError: A parameter got no gradient from the last part, so that processes cannot sum it.
    """
    if not isinstance(model, ParallelModel):
        yield
        return
    with nullcontext() if is_last_part else model.no_sync():
        yield
    if is_last_part:
        named = model.module.named_parameters()
        unused = [name for name, p in named if p.requires_grad and p.grad is None]
        if unused:
            raise UserError(
                f"no gradient reached {len(unused)} of the trained parameters, the first are "
                f"{', '.join(unused[:5])}; on several processes every trained parameter must take "
                "part in the loss of every batch, if only with a gradient of 0: freeze them "
                "(solver.freeze), or use them in forward"
            )


def split_batch(samples: Samples, num_parts: int) -> list[Samples]:
    """Cut the samples of a process into parts: every ``num_parts``-th of them."""
    return [samples[part::num_parts] for part in range(num_parts)]


@torch.no_grad()
def batch_shares(
    model: nn.Module, parts: Sequence[Samples], device: torch.device
) -> list[BatchShare | None]:
    """What each part must know of the whole batch; None where it is the whole batch.

    To be called on every process, once a step: it moves what the loss normalizer remembers.

    Args:
        model: The model itself, not its wrapper.
        parts: This process's samples, global[rank::world], as ``split_batch`` cut them.
        device: The model's.

    Raises:
        UserError: The model cannot be trained in parts.
        ConfigError: A process has not a sample for each part.
    """
    world, num_parts = world_size(), len(parts)
    if world == 1 and num_parts == 1:
        return [None]
    _check_support(model)
    canvas, sizes = _gather_sizes(parts)
    if min(sizes) < num_parts:
        processes = f"{world} processes" if world > 1 else "1 process"
        raise ConfigError(
            f"data.batch_size={sum(sizes)} is too small for {processes} with "
            f"train.accumulate={num_parts}: each part needs an image; give a batch_size of at "
            f"least {world * num_parts}, or fewer of the others"
        )
    # Sample i of rank r is the batch's i * world + r, and of part m every num_parts-th from m.
    if sizes != [len(range(r, sum(sizes), world)) for r in range(world)]:
        raise UserError(
            f"the processes have {', '.join(map(str, sizes))} samples of one batch; rank r must "
            f"have global[r::{world}], as detlite's loader gives it"
        )
    counts: Tensor | None = None
    own = slice(rank(), None, world)
    for part, samples in enumerate(parts):
        counted = model.count_targets(samples, canvas).to(device)  # type: ignore[operator]
        if counts is None:
            counts = counted.new_zeros(sum(sizes))
        counts[own][part::num_parts] = counted
    assert counts is not None
    weights = model.loss_weights(sum_over_ranks(counts))  # type: ignore[operator]
    if weights.shape != counts.shape:
        raise UserError(
            f"loss_weights of {type(model).__name__} must return one weight for each of the "
            f"{len(counts)} images, got shape {tuple(weights.shape)}"
        )
    return [BatchShare(canvas, weights[own][part::num_parts]) for part in range(num_parts)]


def sync_model(model: nn.Module) -> None:
    """Give every process the buffers of the first, such as statistics of norms.

    To be called on every process, before an evaluation that they share.
    """
    buffers = [buffer for buffer in model.buffers() if buffer.numel()]
    if world_size() == 1 or not buffers:
        return
    # As bytes, whatever their types are, and so in one message.
    rows = [buffer.detach().contiguous().view(-1).view(torch.uint8) for buffer in buffers]
    everything = torch.cat(rows)
    dist.broadcast(everything, src=0)
    for buffer, row in zip(buffers, everything.split([len(row) for row in rows]), strict=True):
        # Copied, since a type can only be seen in bytes that begin at a multiple of its size.
        buffer.detach().copy_(row.clone().view(buffer.dtype).view(buffer.shape))


def _check_support(model: nn.Module) -> None:
    name = type(model).__name__
    takes_share = "share" in inspect.signature(model.forward).parameters
    if not (takes_share and hasattr(model, "count_targets") and hasattr(model, "loss_weights")):
        raise UserError(
            f"{name} can only be trained on whole batches: its forward takes no `share`, or it is "
            "no MetaArch; see the contract (detlite.modeling.interfaces.MetaArch), or train in "
            "one process with train.accumulate=1"
        )


def _gather_sizes(parts: Sequence[Samples]) -> tuple[tuple[int, int], list[int]]:
    """(height, width) of the whole batch's canvas, and the number of samples of each rank."""
    shapes = [sample["image"].shape[-2:] for samples in parts for sample in samples]
    heights, widths = [shape[0] for shape in shapes], [shape[1] for shape in shapes]
    # On the CPU, where the sizes are known, so that nothing waits for a GPU.
    own = torch.tensor([max(heights, default=0), max(widths, default=0), len(shapes)])
    gathered = [own]
    if world_size() > 1:
        gathered = [torch.empty_like(own) for _ in range(world_size())]
        dist.all_gather(gathered, own)
    rows = [row.tolist() for row in gathered]
    canvas = (max(row[0] for row in rows), max(row[1] for row in rows))
    return canvas, [row[2] for row in rows]
