"""The training loop: steps, and hooks around them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..config.schema import ClipGradients
from ..structures import BatchShare
from ..utils.distributed import sum_over_ranks
from ..utils.events import MetricBuffer
from ..utils.random_state import RandomState
from ..utils.stopping import STOP, StopWaiting
from . import run_state
from .ema import ModelEMA
from .hook_base import HookBase
from .parallel import backward_context, batch_shares, parallel_model, split_batch
from .precision import Precision, autocast

Batch = Sequence[Mapping[str, Any]]


class Trainer:
    """Trains a model whose ``forward`` returns a dict of losses.

    Args:
        model: In training mode it maps a batch to scalars; those named ``loss*`` are summed.
        optimizer: Moves the weights.
        loader: Endless batches, of this process only where there are several.
        max_iter: Iterations of the run.
        hooks: Called in this order.
        precision: Of the forward pass.
        clip_gradients: Limits of the gradient.
        ema: A moving average of the weights.
        accumulate: Parts in which a batch is computed, one after the other; the step is the same.
        kept_in_eval: Modules that stay in eval mode while the model is trained.
        last_checkpoint: Reads the last good checkpoint, for ``go_back``; None if there is none.

    Attributes:
        iter: The current iteration, from 0.
        start_iter: The first iteration of this process, more than 0 in a resumed run.
        metrics: Scalars of the last step, of the whole batch, on their device.
        batch: The last batch, the share of this process.
        parts: The same in the parts in which it was computed.
        shares: What each part was told of the whole batch; None where it is the whole batch.
        part_losses: What the model returned for each.
        skip_reason: Why the last step was left out; None if it was not.
        step_rng: The random states when the last step began.
        step_seconds: How long it took, with data, as ``IterationTimer`` measures it.
        buffer: Scalars since the last line of the log.
        summary: Their averages, in an iteration after which a line is due, else None.
        pictures: What hooks have drawn in this iteration for the writers, (H, W, 3) uint8 by name.
        results: What evaluation found last, by data set.
        results_iter: Iterations done when it did.
        unfinished_hook: The hook in whose ``after_step`` the run was stopped, if any; the resumed
            run first calls it again, and those behind it.
        stop_reason: Why the run ends before ``max_iter``: "early", or "signal" to go on later.
        lr_factor: What going back to checkpoints has multiplied the learning rate by.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: Iterable[Batch],
        *,
        max_iter: int,
        hooks: Sequence[HookBase] = (),
        precision: Precision = "fp32",
        clip_gradients: ClipGradients | None = None,
        ema: ModelEMA | None = None,
        accumulate: int = 1,
        kept_in_eval: Sequence[nn.Module] = (),
        last_checkpoint: Callable[[], Mapping[str, Any] | None] | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loader = loader
        self.max_iter = max_iter
        self.hooks = list(hooks)
        self.precision: Precision = precision
        self.clip_gradients = clip_gradients or ClipGradients()
        self.ema = ema
        self.accumulate = accumulate
        self.kept_in_eval = list(kept_in_eval)
        self.last_checkpoint = last_checkpoint
        self.device = next(model.parameters()).device
        self.parallel = parallel_model(model, self.device)
        # The scaler is a pass-through unless fp16 needs it.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.start_iter = self.iter = 0
        self.metrics: dict[str, Tensor] = {}
        self.batch: Batch = ()
        self.parts: list[Batch] = []
        self.shares: list[BatchShare | None] = []
        self.part_losses: list[dict[str, Tensor]] = []
        self.step_rng = RandomState.capture()
        self.step_seconds = 0.0
        self.buffer = MetricBuffer()
        self.summary: dict[str, float] | None = None
        self.pictures: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        self.results_iter = -1
        self.stop_reason: Literal["early", "signal"] | None = None
        self.unfinished_hook: str | None = None
        self.lr_factor = 1.0
        self.checkpoint_requested = False
        self._batches: Iterator[Batch] | None = None
        self._rng_to_restore: RandomState | None = None
        self._buffers_before: list[Tensor] = []
        self._grad_norm: Tensor | None = None
        self.skip_reason: str | None = None
        self._lower_lr: float | None = None

    def train(self) -> dict[str, Any]:
        """Run from ``start_iter`` to ``max_iter``; returns the last results of evaluation."""
        try:
            self.model.train()
            for module in self.kept_in_eval:
                module.eval()
            self._batches = iter(self.loader)
            self._call("before_train")
            self._restore_rng()
            iteration = self.start_iter
            while self._goes_on(iteration):
                if self.unfinished_hook is not None:
                    self.iter = iteration - 1
                    self._finish_step()
                    continue
                self.iter = iteration
                self._call("before_step")
                try:
                    self.run_step()
                except StopWaiting:
                    self.iter = iteration - 1
                    self._stop_between_steps()
                    break
                if self._lower_lr is not None:
                    self._restore_last(self._lower_lr)
                    iteration = self.start_iter
                    continue
                self._finish_step()
                iteration += 1
            if self.stop_reason != "signal":
                # Of a run that was interrupted between its last step and its end.
                self.iter = min(self.iter, iteration - 1)
                self._call("after_train")
        finally:
            # Ends the workers of the loader.
            self._batches = None
            with ExitStack() as stack:  # which also closes the rest where one fails
                for hook in reversed(self.hooks):
                    stack.callback(hook.close, self)
        return self.results

    def run_step(self) -> None:
        """One batch: forward, backward, step."""
        assert self._batches is not None
        start = time.perf_counter()
        with STOP.waiting():
            self.batch = next(self._batches)
        data_time = time.perf_counter() - start
        self._begin_step()
        self.metrics = self._forward_backward()
        self.scaler.unscale_(self.optimizer)
        self._call("after_backward")
        if self._lower_lr is not None:
            return
        if self.skip_reason is None:
            self._clip()
            self.scaler.step(self.optimizer)
        else:
            self._restore_buffers()
        self.scaler.update()
        if self.ema is not None and self.skip_reason is None:
            self.ema.update(self.model, self.iter)
        # One step that is left out shall not make the averages of many NaN.
        metrics = self.metrics if self.skip_reason is None else {}
        self.buffer.put({**metrics, "data_time": data_time})

    def _goes_on(self, iteration: int) -> bool:
        if self.unfinished_hook is not None:
            return self.stop_reason != "signal"
        return self.stop_reason is None and iteration < self.max_iter

    def _finish_step(self) -> None:
        """Call ``after_step`` of the hooks, or of those that a stop has left."""
        for name, hook in self.named_hooks():
            if self.unfinished_hook not in (None, name):
                continue
            self.unfinished_hook = None
            try:
                hook.after_step(self)
            except StopWaiting:
                self.unfinished_hook = name
                self._stop_between_steps()
                return

    def _stop_between_steps(self) -> None:
        self.stop_reason = "signal"  # also where the run was to end with this step
        # What was stopped before its first step is as its checkpoint has it.
        if self.iter >= self.start_iter:
            self._call("after_interruption")

    @property
    def is_last_step(self) -> bool:
        """Whether the run comes to its end with this step; not where it only pauses."""
        return self.iter + 1 >= self.max_iter or self.stop_reason == "early"

    def request_stop(self, reason: Literal["early", "signal"]) -> None:
        """End the run after this step: for good, or ("signal") to be resumed later."""
        self.stop_reason = self.stop_reason or reason

    def request_checkpoint(self) -> None:
        """Write a checkpoint after this step; where there are several processes, on all of them."""
        self.checkpoint_requested = True

    def skip_update(self, why: str) -> None:
        """In ``after_backward``: leave the weights, and the model's buffers, as they were."""
        self.skip_reason = why

    def go_back(self, lr_factor: float) -> None:
        """In ``after_backward``: go on from the last good checkpoint with a lower learning rate."""
        self._lower_lr = lr_factor

    def gradient_norm(self) -> Tensor:
        """The L2 norm of all gradients together, a scalar on the device; before clipping."""
        if self._grad_norm is None:
            gradients = [p.grad for p in self._parameters() if p.grad is not None]
            self._grad_norm = nn.utils.get_total_norm(gradients)
        return self._grad_norm

    def buffers_before(self) -> dict[str, Tensor]:
        """The model's buffers as they were when the step began."""
        names = [name for name, _ in self.model.named_buffers()]
        return dict(zip(names, self._buffers_before, strict=True))

    @contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Within the context the model has the weights to predict with."""
        with self.ema.applied(self.model) if self.ema else nullcontext():
            yield

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs; to be called on every rank."""
        return run_state.state_of(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave; hooks by name and number.

        Raises:
            CheckpointError: It is of a run with another model or other parameter groups.
        """
        self._rng_to_restore = run_state.load_state(self, state)

    def named_hooks(self) -> Iterator[tuple[str, HookBase]]:
        """Hooks by class and number, as checkpoints call them."""
        seen: dict[str, int] = {}
        for hook in self.hooks:
            name = type(hook).__name__
            seen[name] = seen.get(name, 0) + 1
            yield f"{name}.{seen[name]}", hook

    def _restore_rng(self) -> None:
        # Hooks and loaders may have drawn numbers since the state was loaded.
        if self._rng_to_restore is not None:
            self._rng_to_restore.restore()
            self._rng_to_restore = None

    def _restore_last(self, lr_factor: float) -> None:
        self._lower_lr = self._batches = None
        run_state.go_back_to_last(self, lr_factor)
        self._batches = iter(self.loader)
        self._call("after_restore")
        self._restore_rng()

    def _begin_step(self) -> None:
        self._grad_norm = self.skip_reason = None
        self.step_rng = RandomState.capture()
        buffers = list(self.model.buffers())
        if not self._buffers_before:
            self._buffers_before = [buffer.clone() for buffer in buffers]
        elif buffers:
            torch._foreach_copy_(self._buffers_before, buffers)
        self.parts = split_batch(self.batch, self.accumulate)
        self.shares = batch_shares(self.model, self.parts, self.device)
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _restore_buffers(self) -> None:
        for buffer, before in zip(self.model.buffers(), self._buffers_before, strict=True):
            buffer.copy_(before)

    def _forward_backward(self) -> dict[str, Tensor]:
        """The gradients of the whole batch; returns its metrics, the same on every rank."""
        self.part_losses = []
        for part, share in zip(self.parts, self.shares, strict=True):
            is_last = len(self.part_losses) == len(self.parts) - 1
            with backward_context(self.parallel, is_last):
                with autocast(self.device, self.precision):
                    losses = self.parallel(part) if share is None else self.parallel(part, share)
                terms = [value for name, value in losses.items() if name.startswith("loss")]
                total = torch.stack(terms).sum()
                self.scaler.scale(total).backward()
            detached = {"total_loss": total.detach()}
            detached |= {name: value.detach() for name, value in losses.items()}
            self.part_losses.append(detached)
        if self.shares == [None]:
            return dict(self.part_losses[0])
        names = list(self.part_losses[0])
        # float64, so that a count of anchors keeps its last digit.
        table = [[losses[name].double() for name in names] for losses in self.part_losses]
        sums = sum_over_ranks(torch.stack([torch.stack(row) for row in table]).sum(dim=0))
        return dict(zip(names, sums.unbind(), strict=True))

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _clip(self) -> None:
        clip = self.clip_gradients
        if clip.value is not None:
            nn.utils.clip_grad_value_(self._parameters(), clip.value)
            self._grad_norm = None
        if clip.norm is not None:
            norm = self.metrics["grad_norm"] = self.gradient_norm()
            nn.utils.clip_grads_with_norm_(self._parameters(), clip.norm, norm)

    def _call(self, point: str) -> None:
        for hook in self.hooks:
            getattr(hook, point)(self)
