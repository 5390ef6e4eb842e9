"""From the data section of a config to loaders."""

import logging
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from ..config.schema import Config, DataSection
from ..errors import ConfigError, DataError, UserError
from ..registry import Block
from ..utils.distributed import rank, world_size
from .detection_dataset import DetectionDataset
from .mapper import BrokenSample, TestData, TrainingData
from .registries import DATASET_REGISTRY, SAMPLER_REGISTRY
from .samplers import TestSampler, TrainingBatchSampler
from .transforms import build_transforms

logger = logging.getLogger(__name__)

Batch = list[dict[str, Any]]


class Loader:
    """Batches of a torch DataLoader; a sample that a worker could not make becomes an error."""

    def __init__(self, loader: DataLoader[Any], dataset: DetectionDataset | None = None) -> None:
        self.loader = loader
        # The data set of a test loader, for the evaluators; training data have none.
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            for sample in batch:
                if isinstance(sample, BrokenSample):
                    advice = "\n    To train without such images set data.broken_image=skip."
                    raise DataError(sample + (advice if self.dataset is None else ""))
                for message in sample.get("skipped", ()):
                    logger.warning("skipped an image, another takes its place: %s", message)
            yield batch


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
        start: Batches to pass over, the iteration at which a run goes on.
    """
    section = config.data
    images = _usable_images(datasets, section.keep_empty_images)
    data = TrainingData(
        datasets,
        build_transforms(section.train_transforms),
        seed=config.seed,
        replacements=images if section.broken_image == "skip" else None,
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
    )
    return Loader(_torch_loader(data, section.num_workers, batch_sampler=batches))


def build_test_loader(config: Config, dataset: DetectionDataset) -> Loader:
    """Batches of a test data set, each image once over all ranks."""
    data = TestData(dataset, build_transforms(config.data.test_transforms))
    return Loader(
        _torch_loader(
            data,
            config.data.num_workers,
            batch_size=config.test.batch_size,
            sampler=TestSampler(len(dataset), rank(), world_size()),
        ),
        dataset,
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


def _torch_loader(data: Any, num_workers: int, **arguments: Any) -> DataLoader[Any]:
    return DataLoader(
        data,
        num_workers=num_workers,
        collate_fn=_as_list,
        worker_init_fn=_init_worker,
        pin_memory=torch.cuda.is_available(),
        **arguments,
    )


def _as_list(samples: Batch) -> Batch:
    return samples


def _init_worker(_: int) -> None:
    # Workers stand side by side; threads of their own would only get in each other's way.
    cv2.setNumThreads(0)
    # Ctrl-C reaches them too; the training process ends them, without a traceback from each.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
