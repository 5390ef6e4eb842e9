"""Metrics and pictures for Weights & Biases (https://wandb.ai)."""

import uuid
from typing import Any, Literal

import numpy as np

from ..registries import HOOK_REGISTRY
from .tracking import TrackingWriter


@HOOK_REGISTRY.register
class WandbWriter(TrackingWriter):
    """Sends config, metrics and pictures to Weights & Biases; needs the package wandb.

    Charts have the iteration as their x axis; iterations that a resumed run repeats come twice,
    with the same values.

    Args:
        output_dir: Folder of the run; wandb's own files lie in ``wandb`` within it.
        project: Where the run appears.
        run_name: Null: that of the output folder.
        entity: User or team; null: the one that is logged in.
        tags: Of the run.
        mode: "online", "offline" (``wandb sync`` sends it later) or "disabled"; null: what
            ``WANDB_MODE`` says.
    """

    PACKAGE = "wandb"
    INSTALL = "wandb"
    SERVICE = "Weights & Biases"

    def __init__(
        self,
        *,
        output_dir: str,
        project: str = "detlite",
        run_name: str | None = None,
        entity: str | None = None,
        tags: list[str] | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        super().__init__(output_dir=output_dir)
        self.project = project
        self.run_name = run_name
        self.entity = entity
        self.tags = tags
        self.mode = mode
        self._run: Any = None
        self._wandb: Any = None

    def start(self, config: dict[str, Any]) -> None:
        """Begin a run, or go on with the one of before."""
        # Here and not above: an optional dependency.
        import wandb

        self._wandb = wandb
        self.keep_run_id(self.run_id or uuid.uuid4().hex[:12])
        self._run = wandb.init(
            id=self.run_id,
            resume="allow",
            project=self.project,
            name=self.run_name or self.folder.resolve().name,
            entity=self.entity,
            tags=self.tags,
            dir=str(self.folder),
            config=config,
            allow_val_change=True,  # a run may go on with another config
            mode=self.mode,
            settings=wandb.Settings(console="off"),
        )
        # wandb's own steps must never fall, and those of a resumed run do.
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")

    def send_metrics(self, values: dict[str, float], iteration: int) -> None:
        """Send the values of an iteration."""
        self._run.log({**values, "iteration": iteration})

    def send_pictures(self, pictures: dict[str, np.ndarray], iteration: int) -> None:
        """Send pictures (H, W, 3)."""
        images = {f"pictures/{k}": self._wandb.Image(v) for k, v in pictures.items()}
        self._run.log({**images, "iteration": iteration})

    def end(self, status: str) -> None:
        """Say how the run ended."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=int(status == "failed"))

    def is_hopeless(self, error: Exception) -> bool:
        """Whether it is a mistake in the use, such as no login; a server that is away is none."""
        usage = getattr(getattr(self._wandb, "errors", None), "UsageError", ())
        return super().is_hopeless(error) or isinstance(error, usage)
