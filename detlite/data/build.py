"""From the data section of a config to loaders."""

import logging
from collections.abc import Sequence

import numpy as np

from ..config.schema import Config, DataSection
from ..errors import ConfigError, DataError, UserError
from ..registry import Block
from ..utils.distributed import rank, world_size
from .detection_dataset import DetectionDataset
from .loader import Loader
from .mapper import TestData, TrainingData
from .registries import DATASET_REGISTRY, SAMPLER_REGISTRY
from .samplers import TestBatchSampler, TrainingBatchSampler
from .transforms import build_transforms

logger = logging.getLogger(__name__)


def build_datasets(blocks: Sequence[Block], section: str) -> list[DetectionDataset]:
    """Build data sets.

    Raises:
        ConfigError: There is none, or they differ in their classes.
    """
    if not blocks:
        raise ConfigError(
            f"{section} names no data set; give it at least one block, e.g. "
            f"{section}: [{{name: CocoDetection, json: a.json, images: a/}}]"
        )
    datasets: list[DetectionDataset] = []
    for i, block in enumerate(blocks):
        try:
            datasets.append(DATASET_REGISTRY.build(block))
        except ValueError as error:
            kind = type(error) if isinstance(error, UserError) else ConfigError
            raise kind(f"{section}.{i} ({block.name}): {error}") from error
    for other in datasets[1:]:
        _check_classes(other, datasets[0], section)
    return datasets


def check_class_count(section: DataSection, dataset: DetectionDataset) -> None:
    """Raise a ConfigError if the config states another number of classes than the data has."""
    found = len(dataset.class_names)
    if section.num_classes is not None and section.num_classes != found:
        raise ConfigError(
            f"data.num_classes is {section.num_classes}, but '{dataset.name}' has {found} classes: "
            f"{', '.join(dataset.class_names)}. Remove the key, the number is taken from the data; "
            "or choose classes with the data set's `classes: [...]`"
        )


def build_train_loader(
    config: Config, datasets: Sequence[DetectionDataset], *, start: int = 0
) -> Loader:
    """Endless training batches.

    Args:
        config: The whole config.
        datasets: What ``build_datasets`` made of ``data.train``.
        start: The batch to begin at, the iteration at which a run goes on.

    Raises:
        ConfigError: A process, or a part of its share of a batch, would be without an image.
        DataError: There is no image to train on.
    """
    section = config.data
    if section.num_workers == 0 and section.sample_timeout not in (0, DataSection.sample_timeout):
        logger.warning(
            "data.sample_timeout=%g has no effect with data.num_workers=0: nothing can interrupt a "
            "sample that hangs in the training process itself",
            section.sample_timeout,
        )
    images = _usable_images(datasets, section.keep_empty_images)
    data = TrainingData(
        datasets,
        build_transforms(section.train_transforms),
        seed=config.seed,
        replacements=images,
        skip_broken=section.broken_image == "skip",
        read_retries=section.read_retries,
        imports=config.imports,
    )
    sampler = SAMPLER_REGISTRY.build(
        section.sampler,
        images=images,
        image_classes=_classes_of(datasets, images),
        seed=config.seed,
    )
    groups = None
    if section.aspect_ratio_grouping:
        groups = np.concatenate([(d.widths > d.heights).astype(np.int64) for d in datasets])
    batches = TrainingBatchSampler(
        sampler,
        batch_size=section.batch_size,
        groups=groups,
        start=start,
        rank=rank(),
        world_size=world_size(),
        accumulate=config.train.accumulate,
    )
    return Loader(
        data,
        batches,
        num_workers=section.num_workers,
        sample_timeout=section.sample_timeout,
        lost_sample=section.lost_sample,
    )


def build_test_loader(config: Config, dataset: DetectionDataset) -> Loader:
    """Batches of a test data set, each image once over all ranks."""
    section = config.data
    data = TestData(
        dataset,
        build_transforms(section.test_transforms),
        read_retries=section.read_retries,
        imports=config.imports,
    )
    batches = TestBatchSampler(
        len(dataset), batch_size=config.test.batch_size, rank=rank(), world_size=world_size()
    )
    return Loader(
        data,
        batches,
        num_workers=section.num_workers,
        dataset=dataset,
        sample_timeout=section.sample_timeout,
        lost_sample=section.lost_sample,
    )


def check_test_classes(test: DetectionDataset, train_classes: Sequence[str]) -> None:
    """Raise a DataError if a test data set has other classes than the model was trained on."""
    if tuple(test.class_names) != tuple(train_classes):
        raise DataError(_class_difference(test, "the training data", train_classes, "data.test"))


def _check_classes(dataset: DetectionDataset, first: DetectionDataset, section: str) -> None:
    if dataset.class_names != first.class_names:
        raise DataError(_class_difference(dataset, f"'{first.name}'", first.class_names, section))


def _class_difference(
    dataset: DetectionDataset, other: str, names: Sequence[str], section: str
) -> str:
    return (
        f"{section}: '{dataset.name}' has {len(dataset.class_names)} classes "
        f"({', '.join(dataset.class_names)}), {other} has {len(names)} ({', '.join(names)}). "
        "Classes must be the same in the same order; choose them with the data set's "
        "`classes: [...]`"
    )


def _usable_images(datasets: Sequence[DetectionDataset], keep_empty: bool) -> np.ndarray:
    counts = np.concatenate([dataset.num_training_boxes() for dataset in datasets])
    images = np.arange(len(counts)) if keep_empty else np.flatnonzero(counts)
    names = ", ".join(f"'{dataset.name}'" for dataset in datasets)
    if len(images) == 0:
        raise DataError(f"{names}: there is no image to train on among {len(counts)}")
    logger.info(
        "training on %d images of %s, %d without a box%s, %d boxes",
        len(images),
        names,
        int((counts == 0).sum()),
        "" if keep_empty else " left out",
        int(counts.sum()),
    )
    return images


def _classes_of(datasets: Sequence[DetectionDataset], images: np.ndarray) -> list[np.ndarray]:
    classes = [
        np.unique(dataset.classes[dataset.boxes_of(i)])
        for dataset in datasets
        for i in range(len(dataset))
    ]
    return [classes[i] for i in images]
