"""From the data section of a config to loaders."""

import logging
from collections.abc import Sequence
from typing import overload

import numpy as np

from ..config.schema import Config, DataSection
from ..errors import ConfigError, DataError, UserError
from ..registry import Block
from ..utils.distributed import rank, world_size
from ..utils.text_file import shown
from .batch_transforms import build_batch_mixer
from .class_names import align_classes, listing
from .image_dataset import ImageDataset
from .image_io import ImageReader
from .loader import Loader
from .mapper import TestData, TrainingData
from .registries import DATASET_REGISTRY, SAMPLER_REGISTRY
from .samplers import TestBatchSampler, TrainingBatchSampler
from .transforms import build_transforms

_MAX_CLASSES_TOLD = 20
_MAX_TITLE = 200  # bytes; file systems allow 255, and suffixes are added

logger = logging.getLogger(__name__)


def build_datasets(
    blocks: Sequence[Block], section: str, class_names: Sequence[str] | None = None
) -> list[ImageDataset]:
    """Build data sets, whose classes are then numbered alike, by their names.

    Args:
        blocks: One a data set.
        section: Where they are in the config.
        class_names: The model's, of which a data set may lack some; None: those of the data set
            that has most.

    Raises:
        ConfigError: There is none, or they are for different tasks.
        DataError: One cannot be read, or has classes that the model or the others lack.
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
    if class_names is None:
        most = max(datasets, key=lambda dataset: len(dataset.class_names))
        class_names, whose = most.class_names, f"'{most.name}'"
    else:
        whose = "the training data"
    for dataset in datasets:
        align_classes(dataset, class_names, whose, section)
    return datasets


def check_class_count(section: DataSection, dataset: ImageDataset) -> None:
    """Raise a ConfigError if the config states another number of classes than the data has."""
    found = len(dataset.class_names)
    if section.num_classes is not None and section.num_classes != found:
        raise ConfigError(
            f"data.num_classes is {section.num_classes}, but '{dataset.name}' has {found} classes: "
            f"{listing(dataset.class_names)}. Remove the key, the number is taken from the data; "
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
    logger.info(
        "testing on %d images of '%s', %d %s%s",
        len(dataset),
        dataset.name,
        int(dataset.num_targets().sum()),
        dataset.targets[1],
        _told_counts([dataset]),
    )
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


def _check_name(name: str, block: str) -> None:
    odd = not name.isprintable() or len(name.encode("utf-8", "replace")) > _MAX_TITLE
    if name.strip() in ("", ".", "..") or "/" in name or "\\" in name or odd:
        raise DataError(
            f"{block}: the data set is called {shown(name)}, which cannot be the name of a folder "
            f"of results; give it a `title` of 1 to {_MAX_TITLE} bytes without slashes, line "
            "breaks and the like"
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
    if not counts.any():
        logger.warning("%s: no training image has a %s, so that nothing can be learned", names, one)
    logger.info(
        "training on %d images of %s, %d without a %s%s, %d %s%s",
        len(images),
        names,
        int((counts == 0).sum()),
        one,
        "" if keep_empty else " left out",
        int(counts.sum()),
        many,
        _told_counts(datasets),
    )
    return images


def _told_counts(datasets: Sequence[ImageDataset]) -> str:
    """The classes with the most targets, ": cat 20, dog 7"; "" where they are not known."""
    known = [counts for d in datasets if (counts := d.class_counts()) is not None]
    if len(known) < len(datasets):
        return ""
    counts = np.sum(known, axis=0)
    order = np.argsort(-counts, kind="stable")
    names = datasets[0].class_names
    told = ", ".join(f"{names[k]} {counts[k]}" for k in order[:_MAX_CLASSES_TOLD])
    rest = counts[order[_MAX_CLASSES_TOLD:]]
    if len(rest):
        told += f" and {len(rest)} more classes with {rest.sum()}, {(rest == 0).sum()} with none"
    return f": {told}"


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
