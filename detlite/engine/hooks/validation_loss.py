"""The losses on the test data."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...evaluation.progress import with_progress
from ...ranges import NonNegativeInt
from ...structures import BatchShare
from ...utils.distributed import gather_objects
from ..parallel import sync_model
from ..precision import autocast
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer
from .evaluation import Measurement, untouched

TASK = "val"


@HOOK_REGISTRY.register
class ValidationLoss(Measurement):
    """Computes the training's losses on the test data, as ``val/total_loss``, ``val/loss_cls``, ...

    The code is that of training, with the weights of the run (averaged if there are any), without
    augmentation, batch norms and dropout as in inference, and nothing moved. Each image is
    computed by itself, so that neither ``test.batch_size`` nor the number of processes changes a
    value; the normalizer sees batches of ``data.batch_size`` images in the data set's order, so
    that values compare with those of training.

    Args:
        test_loaders: The test data.
        batch_size: Images of a step, of all processes together.
        period: Iterations between measurements; null: with every evaluation; 0: at the end only.
    """

    def __init__(
        self, *, test_loaders: Sequence[Any], batch_size: int, period: NonNegativeInt | None = None
    ) -> None:
        self.test_loaders = test_loaders
        self.batch_size = batch_size
        self.period = period

    def is_due(self, trainer: Trainer) -> bool:
        """Every ``period`` iterations, or with the evaluation, and at the end."""
        done = trainer.iter + 1
        if self.period is None:
            return trainer.is_last_step or trainer.results_iter == done
        return trainer.is_last_step or bool(self.period and done % self.period == 0)

    def after_step(self, trainer: Trainer) -> None:
        """Measure where it is due."""
        if not self.test_loaders or not self.is_due(trainer):
            return
        results = {}
        with untouched(trainer.model), trainer.inference_weights(), _buffers_kept(trainer.model):
            sync_model(trainer.model)  # batch norms have seen other images on each rank
            trainer.model.eval()
            for loader in self.test_loaders:
                losses = _mean_losses(trainer, loader, self.batch_size)
                results[loader.dataset.name] = {TASK: losses}
        self.put(trainer, results)


@torch.no_grad()
def _mean_losses(trainer: Trainer, loader: Any, batch_size: int) -> dict[str, float]:
    """Each loss over the images of all ranks, as in batches of the training's size."""
    names: list[str] = []
    image_ids: list[Any] = []
    rows: list[Tensor] = []
    for batch in with_progress(loader, "validation loss"):
        for sample in batch:
            count, losses = _losses_of(trainer, sample)
            names = names or list(losses)
            image_ids.append(sample["image_id"])
            rows.append(torch.stack([count.double(), *(losses[name].double() for name in names)]))
    mine = dict(zip(image_ids, torch.stack(rows).tolist() if rows else [], strict=True))
    found: dict[Any, list[float]] = {}
    for names_there, part in gather_objects((names, mine)):
        names = names or names_there  # a rank may have no image
        found = part | found
    # In the data set's order, so that the sums do not depend on who computed what.
    table = torch.tensor([found[i] for i in loader.dataset.image_ids if i in found]).double()
    if not len(table):
        return {}
    weights = _image_weights(trainer, table[:, 0], batch_size)
    means = (table[:, 1:] * weights[:, None]).sum(dim=0).tolist()
    values = dict(zip(names, means, strict=True))
    return {"total_loss": sum(values.values()), **values}


def _losses_of(trainer: Trainer, sample: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The count and the loss sums, not divided by anything, of an image."""
    model = trainer.model
    count = torch.ones((), device=trainer.device)
    share: tuple[BatchShare, ...] = ()
    if _knows_shares(model):
        canvas = tuple(sample["image"].shape[-2:])
        share = (BatchShare(canvas, torch.ones(1, device=trainer.device)),)  # type: ignore[arg-type]
        count = model.count_targets([sample], canvas)[0].to(trainer.device)  # type: ignore[operator]
    # The model as in training; all within it as in inference.
    model.training = True
    try:
        with autocast(trainer.device, trainer.precision):
            losses = model([sample], *share)
    finally:
        model.training = False
    return count, {name: value for name, value in losses.items() if name.startswith("loss")}


def _image_weights(trainer: Trainer, counts: Tensor, batch_size: int) -> Tensor:
    """The weight of each image's sum (N,) float64, for counts (N,)."""
    num_images = len(counts)
    if not _knows_shares(trainer.model):
        return torch.full((num_images,), 1 / num_images, dtype=torch.float64)
    # The last batch is filled up from the beginning: a normalizer wants full batches.
    starts = range(0, num_images, batch_size)
    places = [[(start + i) % num_images for i in range(batch_size)] for start in starts]
    weights = []
    for batch in places:
        of_batch = counts[batch].to(trainer.device, torch.float32)
        weights.append(trainer.model.loss_weights(of_batch).double().cpu())  # type: ignore[operator]
    # A step's loss is the sum over its batch: the mean over batches is this over images.
    return torch.cat(weights)[:num_images] * batch_size / num_images


def _knows_shares(model: nn.Module) -> bool:
    return "share" in inspect.signature(model.forward).parameters


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards the buffers have the values of before, whatever a model moves in its losses."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)
