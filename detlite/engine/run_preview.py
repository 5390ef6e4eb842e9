"""What a config does to the learning rates, without a run."""

import logging

import torch

from ..config.schema import Config
from ..data import build_datasets
from ..errors import UserError
from ..modeling import MetaArch, build_meta_arch
from ..solver import scale_to_batch
from ..solver.preview import SchedulePreview, preview_schedule

logger = logging.getLogger(__name__)

# Of COCO. The number of classes changes sizes of tensors, no rate.
CLASSES_WITHOUT_DATA = 80


def preview_run(config: Config) -> SchedulePreview:
    """Step through the schedule of a run, with its optimizer.

    Needs no weights, and no data: without them there are iterations, but no epochs.

    Args:
        config: The whole config.
    """
    config = scale_to_batch(config)
    class_names, images = _training_data(config)
    return preview_schedule(config, _build_without_weights(config, class_names), images)


def _training_data(config: Config) -> tuple[list[str], int | None]:
    """The names of the classes, and the images of an epoch; names made up if there is no data."""
    try:
        datasets = build_datasets(config.data.train, "data.train")
    except UserError as error:
        logger.warning("the training data cannot be counted, so there are no epochs: %s", error)
        return [str(i) for i in range(config.data.num_classes or CLASSES_WITHOUT_DATA)], None
    if config.data.keep_empty_images:
        images = sum(len(data) for data in datasets)
    else:
        images = sum(int((data.num_targets() > 0).sum()) for data in datasets)
    return list(datasets[0].class_names), images or None


def _build_without_weights(config: Config, class_names: list[str]) -> MetaArch:
    """The model, if possible on the meta device, where it costs neither memory nor time."""
    try:
        with torch.device("meta"):
            return build_meta_arch(config.model, class_names)
    except (NotImplementedError, RuntimeError):
        # A component that computes with the values of tensors while it is built.
        return build_meta_arch(config.model, class_names)
