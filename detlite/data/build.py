"""From the data section of a config to loaders."""

import logging
import os
from collections.abc import Sequence
from typing import overload

import numpy as np

from ..config.schema import Config, DataSection
from ..errors import ConfigError, DataError, UserError, shorten
from ..registry import Block
from ..utils.distributed import rank, world_size
from .batch_transforms import build_batch_mixer
from .detection_dataset import DetectionDataset
from .image_dataset import ImageDataset
from .image_io import ImageReader
from .loader import Loader
from .mapper import TestData, TrainingData
from .registries import DATASET_REGISTRY, SAMPLER_REGISTRY
from .samplers import TestBatchSampler, TrainingBatchSampler
from .transforms import build_transforms

logger = logging.getLogger(__name__)

_MAX_CLASSES = 20  # that the log names


def build_datasets(blocks: Sequence[Block], section: str) -> list[ImageDataset]:
    """Build data sets.

    Raises:
        ConfigError: There is none, or they are for different tasks.
        DataError: One cannot be read, or they differ in their classes.
    """
    if not blocks:
        raise ConfigError(
            f"{section} names no data set; give it at least one block, e.g. "
            f"{section}: [{{name: CocoDetection, json: a.json, images: a/}}]"
        )
    datasets: list[ImageDataset] = []
    for i, block in enumerate(blocks):
        try:
            datasets.append(DATASET_REGISTRY.build(block))
        except ValueError as error:
            kind = type(error) if isinstance(error, UserError) else ConfigError
            raise kind(f"{section}.{i} ({block.name}): {error}") from error
        _check_name(datasets[-1].name, f"{section}.{i} ({block.name})")
    for other in datasets[1:]:
        if other.task != datasets[0].task:
            raise ConfigError(
                f"{section}: '{other.name}' is a data set for {other.task}, '{datasets[0].name}' "
                f"for {datasets[0].task}; a run has one task, so take one of them out"
            )
        _check_classes(other, datasets[0], section)
    return datasets


def check_class_count(section: DataSection, dataset: ImageDataset) -> None:
    """Raise a ConfigError if the config states another number of classes than the data has."""
    found = len(dataset.class_names)
    if section.num_classes is not None and section.num_classes != found:
        raise ConfigError(
            f"data.num_classes is {section.num_classes}, but '{dataset.name}' has {found} classes: "
            f"{', '.join(dataset.class_names)}. Remove the key, the number is taken from the data; "
            "or choose classes with the data set's `classes: [...]`"
        )


def build_train_loader(
    config: Config, datasets: Sequence[ImageDataset] | None = None, *, start: int = 0
) -> Loader:
    """Endless training batches: lists of dicts, which a model in training mode takes as they are.

    Args:
        config: The whole config.
        datasets: What ``build_datasets`` made of ``data.train``; None: it is read here.
        start: The batch to begin at, the iteration at which a run goes on.

    Raises:
        ConfigError: A process, or a part of its share of a batch, would be without an image.
        DataError: There is no image to train on.
    """
    section = config.data
    if datasets is None:
        datasets = build_datasets(section.train, "data.train")
    if section.num_workers == 0 and section.sample_timeout not in (0, DataSection.sample_timeout):
        logger.warning(
            "data.sample_timeout=%g has no effect with data.num_workers=0: nothing can interrupt a "
            "sample that hangs in the training process itself",
            section.sample_timeout,
        )
    read_as_configured(datasets, section)
    images = _usable_images(datasets, section.keep_empty_images)
    if section.batch_size > len(images):
        logger.warning(
            "data.batch_size=%d is more than the %d training images, so that a batch holds images "
            "more than once; set data.batch_size to %d or less",
            section.batch_size,
            len(images),
            len(images),
        )
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
        image_classes=ClassesOfImages(datasets, images),
        seed=config.seed,
    )
    batches = TrainingBatchSampler(
        sampler,
        batch_size=section.batch_size,
        groups=_aspect_groups(datasets) if section.aspect_ratio_grouping else None,
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
        mixer=build_batch_mixer(section.batch_transforms, datasets, config.seed),
    )


def build_test_loader(config: Config, dataset: ImageDataset) -> Loader:
    """Batches of a test data set, each image once over all ranks."""
    section = config.data
    read_as_configured([dataset], section)
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


def read_as_configured(datasets: Sequence[ImageDataset], section: DataSection) -> None:
    """Let data sets read image files as ``data.max_pixels`` and ``data.image_range`` say."""
    reader = ImageReader.of(section)
    for dataset in datasets:
        dataset.reader = reader


def check_test_classes(test: ImageDataset, train_classes: Sequence[str]) -> None:
    """Give the classes of a test data set the numbers that the model was trained with, by name.

    Raises:
        DataError: It has a class that the training data lack.
    """
    lacking = [name for name in train_classes if name not in test.class_names]
    if tuple(test.class_names) == tuple(train_classes):
        return
    if isinstance(test, DetectionDataset) and {*test.class_names} <= {*train_classes}:
        test.number_classes_as(train_classes)
        logger.info(
            "data.test: the classes of '%s' are matched to those of the training data by name%s",
            test.name,
            f"; it has no {shorten(', '.join(lacking))}, whose AP is nan" if lacking else "",
        )
    else:
        raise DataError(_class_difference(test, "the training data", train_classes, "data.test"))


def _check_name(name: str, block: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise DataError(
            f"{block}: the data set is called '{name}', which cannot be the name of a folder of "
            "results; give it a `title`, or a name without slashes"
        )
    # 255 bytes is what file systems allow; writers make longer names of it.
    if len(os.fsencode(name)) > 200 or not name.isprintable():
        raise DataError(
            f"{block}: the data set is called '{shorten(name)}', which cannot be the name of a "
            "folder of results: give it a `title` of at most 200 bytes, without control characters"
        )


def _check_classes(dataset: ImageDataset, first: ImageDataset, section: str) -> None:
    if dataset.class_names != first.class_names:
        raise DataError(_class_difference(dataset, f"'{first.name}'", first.class_names, section))


def _class_difference(dataset: ImageDataset, other: str, names: Sequence[str], section: str) -> str:
    return (
        f"{section}: '{dataset.name}' has {len(dataset.class_names)} classes "
        f"({', '.join(dataset.class_names)}), {other} has {len(names)} ({', '.join(names)}). "
        "Classes must be the same in the same order; choose them with the data set's "
        "`classes: [...]`"
    )


def _aspect_groups(datasets: Sequence[ImageDataset]) -> np.ndarray | None:
    """1 for each landscape image, 0 for the others; None where sizes are not known."""
    sizes = [known for d in datasets if (known := d.image_sizes()) is not None]
    if len(sizes) < len(datasets):
        return None
    heights, widths = np.concatenate(sizes).T
    return (widths > heights).astype(np.int64)


def _usable_images(datasets: Sequence[ImageDataset], keep_empty: bool) -> np.ndarray:
    counts = np.concatenate([dataset.num_targets() for dataset in datasets])
    images = np.arange(len(counts)) if keep_empty else np.flatnonzero(counts)
    names = ", ".join(f"'{dataset.name}'" for dataset in datasets)
    if len(images) == 0:
        raise DataError(f"{names}: there is no image to train on among {len(counts)}")
    one, many = datasets[0].targets
    logger.info(
        "training on %d images of %s, %d without a %s%s, %d %s%s",
        len(images),
        names,
        int((counts == 0).sum()),
        one,
        "" if keep_empty else " left out",
        int(counts.sum()),
        many,
        _class_counts(datasets),
    )
    if not counts.any():
        logger.warning("%s: no training image has a %s, so nothing can be learned", names, one)
    return images


def _class_counts(datasets: Sequence[ImageDataset]) -> str:
    """How many targets each class has: ``: cat 3, dog 5``."""
    names = datasets[0].class_names
    total = np.zeros(len(names), np.int64)
    for dataset in datasets:
        classes = getattr(dataset, "classes", None)
        if classes is None:  # of a data set that is neither of ours
            return ""
        if isinstance(dataset, DetectionDataset):
            classes = classes[~(dataset.degenerate | dataset.crowd)]
        total += np.bincount(classes, minlength=len(names))
    shown = [f"{name} {count}" for name, count in zip(names, total, strict=True)]
    more = [f"and {len(shown) - _MAX_CLASSES} more classes"] if len(shown) > _MAX_CLASSES else []
    return ": " + ", ".join([*shown[:_MAX_CLASSES], *more])


class ClassesOfImages(Sequence[np.ndarray]):
    """The classes that occur on each training image, found when a sampler asks for them.

    Args:
        datasets: Their indices follow one another.
        images: (M,) indices of the images to train on.
    """

    def __init__(self, datasets: Sequence[ImageDataset], images: np.ndarray) -> None:
        self.datasets = datasets
        self.images = images
        self.starts = np.cumsum([0] + [len(dataset) for dataset in datasets])

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, item: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, item: slice) -> list[np.ndarray]: ...
    def __getitem__(self, item: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(item, slice):
            return [self[i] for i in range(len(self))[item]]
        image = self.images[item]
        which = int(np.searchsorted(self.starts, image, side="right")) - 1
        return self.datasets[which].classes_of(int(image - self.starts[which]))
