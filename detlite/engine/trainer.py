"""The training loop: steps, and hooks around them."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..config.schema import ClipGradients
from ..utils.events import MetricBuffer
from .ema import ModelEMA
from .hook_base import HookBase

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Trains a model whose ``forward`` returns a dict of losses.

    Args:
        model: In training mode it maps a batch to scalars; those named ``loss*`` are summed.
        optimizer: Moves the weights.
        loader: Endless batches.
        max_iter: Iterations of the run.
        hooks: Called in this order.
        precision: Of the forward pass.
        clip_gradients: Limits of the gradient.
        ema: A moving average of the weights.

    Attributes:
        iter: The current iteration, from 0.
        start_iter: The first iteration of this process, more than 0 in a resumed run.
        metrics: Scalars of the last step, on their device.
        batch: The last batch.
        buffer: Scalars since the last line of the log.
        summary: Their averages, in an iteration after which a line is due, else None.
        results: What evaluation found last, by data set.
        results_iter: Iterations done when it did.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: Iterable[Sequence[Mapping[str, Any]]],
        *,
        max_iter: int,
        hooks: Sequence[HookBase] = (),
        precision: Precision = "fp32",
        clip_gradients: ClipGradients | None = None,
        ema: ModelEMA | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loader = loader
        self.max_iter = max_iter
        self.hooks = list(hooks)
        self.precision: Precision = precision
        self.clip_gradients = clip_gradients or ClipGradients()
        self.ema = ema
        self.device = next(model.parameters()).device
        # The scaler is a pass-through unless fp16 needs it.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.start_iter = self.iter = 0
        self.metrics: dict[str, Tensor] = {}
        self.batch: Sequence[Mapping[str, Any]] = ()
        self.buffer = MetricBuffer()
        self.summary: dict[str, float] | None = None
        self.results: dict[str, Any] = {}
        self.results_iter = -1
        self._batches: Iterator[Sequence[Mapping[str, Any]]] | None = None

    def train(self) -> dict[str, Any]:
        """Run from ``start_iter`` to ``max_iter``; returns the last results of evaluation."""
        try:
            self._batches = iter(self.loader)
            self.model.train()
            self._call("before_train")
            for iteration in range(self.start_iter, self.max_iter):
                self.iter = iteration
                self._call("before_step")
                self.run_step()
                self._call("after_step")
            self._call("after_train")
        finally:
            # Ends the workers of the loader.
            self._batches = None
            self._call("close")
        return self.results

    def run_step(self) -> None:
        """One batch: forward, backward, step."""
        assert self._batches is not None
        start = time.perf_counter()
        self.batch = next(self._batches)
        data_time = time.perf_counter() - start
        with autocast(self.device, self.precision):
            self.metrics = self.model(self.batch)
        losses = [value for name, value in self.metrics.items() if name.startswith("loss")]
        total = torch.stack(losses).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model)
        self.metrics = {"total_loss": total.detach()} | {
            name: value.detach() for name, value in self.metrics.items()
        }
        self.buffer.put({**self.metrics, "data_time": data_time})

    @contextlib.contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Within the context the model has the weights to predict with."""
        with self.ema.applied(self.model) if self.ema else contextlib.nullcontext():
            yield

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "hooks": {name: hook.state_dict() for name, hook in self._named_hooks()},
        }
        if self.ema is not None:
            state |= {"ema": self.ema.weights, "ema_updates": self.ema.updates}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave, the model aside; hooks by name and number."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None and "ema" in state:
            self.ema.load(state["ema"], state["ema_updates"])
        for name, hook in self._named_hooks():
            if name in state["hooks"]:
                hook.load_state_dict(state["hooks"][name])
        self.start_iter = self.iter = int(state["iteration"]) + 1

    def _named_hooks(self) -> Iterator[tuple[str, HookBase]]:
        seen: dict[str, int] = {}
        for hook in self.hooks:
            name = type(hook).__name__
            seen[name] = seen.get(name, 0) + 1
            yield f"{name}.{seen[name]}", hook

    def _clip(self) -> None:
        clip = self.clip_gradients
        if clip.norm is None and clip.value is None:
            return
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if clip.value is not None:
            nn.utils.clip_grad_value_(parameters, clip.value)
        if clip.norm is not None:
            self.metrics["grad_norm"] = nn.utils.clip_grad_norm_(parameters, clip.norm)

    def _call(self, point: str) -> None:
        for hook in self.hooks:
            getattr(hook, point)(self)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context of a forward pass of this precision."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
