"""In which order samples come: a function of (seed, epoch) and never of what came before.

The stream of training samples is the epochs one after the other. A sample's place in the stream is
its position; augmentation is drawn from it, so neither workers nor restarts change a run.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from ..errors import ConfigError
from ..ranges import Fraction, PositiveInt


class SamplePosition(NamedTuple):
    """A sample's place in the stream, and the image that stands there."""

    position: int
    image: int


class TrainingSampler(ABC):
    """The order of the training images.

    Args:
        images: (M,) indices of the images to train on.
        image_classes: For each of them the classes that occur on it.
        seed: Of the order.
    """

    def __init__(
        self, *, images: np.ndarray, image_classes: Sequence[np.ndarray], seed: int
    ) -> None:
        self.images = images
        self.image_classes = image_classes
        self.seed = seed

    @abstractmethod
    def epoch(self, epoch: int) -> np.ndarray:
        """The images of an epoch in order, as indices; a function of the seed and the epoch."""

    def epoch_size(self, epoch: int) -> int:
        """How many images an epoch has.

        A run that goes on at a position far into the stream counts up to it, epoch by epoch; where
        the number is known without drawing the epoch, a subclass says it here.
        """
        return len(self.epoch(epoch))

    def generator(self, epoch: int) -> np.random.Generator:
        """Random numbers of an epoch."""
        return np.random.default_rng([self.seed, epoch])


class ShuffleSampler(TrainingSampler):
    """Each image once an epoch, in an order of its own."""

    def epoch(self, epoch: int) -> np.ndarray:
        """A permutation of the images."""
        return self.generator(epoch).permutation(self.images)

    def epoch_size(self, epoch: int) -> int:
        """The number of images."""
        return len(self.images)


class SequentialSampler(TrainingSampler):
    """Each image once an epoch, in the data set's order."""

    def epoch(self, epoch: int) -> np.ndarray:
        """The images as they are."""
        return self.images

    def epoch_size(self, epoch: int) -> int:
        """The number of images."""
        return len(self.images)


class RepeatFactorSampler(TrainingSampler):
    """Images of rare classes more often (Gupta et al. 2019, LVIS, section B.2).

    An image comes ``max(1, sqrt(threshold / f))`` times an epoch, f being the share of images that
    show its rarest class; fractions are drawn anew each epoch.

    Args:
        images: (M,) indices of the images to train on.
        image_classes: For each of them the classes that occur on it.
        seed: Of the order.
        threshold: Classes on a smaller share of images are repeated.
    """

    def __init__(
        self,
        *,
        images: np.ndarray,
        image_classes: Sequence[np.ndarray],
        seed: int,
        threshold: Fraction = 0.001,
    ) -> None:
        super().__init__(images=images, image_classes=image_classes, seed=seed)
        present = [np.zeros(0, np.int64), *(np.unique(classes) for classes in image_classes)]
        counts = np.bincount(np.concatenate(present))
        with np.errstate(divide="ignore", invalid="ignore"):  # classes that no image shows
            by_class = np.maximum(1, np.sqrt(threshold * len(images) / counts))
        self.factors = np.array([by_class[c].max() if len(c) else 1.0 for c in image_classes])
        self.whole = np.floor(self.factors).astype(np.int64)

    def epoch(self, epoch: int) -> np.ndarray:
        """The images, each as often as its factor says, in random order."""
        generator = self.generator(epoch)
        return generator.permutation(np.repeat(self.images, self._repeats(generator)))

    def epoch_size(self, epoch: int) -> int:
        """The number of images with their repetitions."""
        return int(self._repeats(self.generator(epoch)).sum())

    def _repeats(self, generator: np.random.Generator) -> np.ndarray:
        extra = generator.random(len(self.factors)) < self.factors - self.whole
        return self.whole + extra


class RepeatedAugmentSampler(TrainingSampler):
    """Each image several times in a row (Hoffer et al. 2019, https://arxiv.org/abs/1901.09335).

    The ranks together have the order of torchvision's ``RASampler``: an epoch has as many samples
    as images, rounded down to a multiple of 256 where there are so many: one in ``repeats``.

    Args:
        images: (M,) indices of the images to train on.
        image_classes: For each of them the classes that occur on it.
        seed: Of the order.
        repeats: Times that an image comes.
    """

    def __init__(
        self,
        *,
        images: np.ndarray,
        image_classes: Sequence[np.ndarray],
        seed: int,
        repeats: PositiveInt = 4,
    ) -> None:
        super().__init__(images=images, image_classes=image_classes, seed=seed)
        self.repeats = repeats

    def epoch(self, epoch: int) -> np.ndarray:
        """The beginning of a permutation, each image repeated."""
        size = self.epoch_size(epoch)
        return np.repeat(self.generator(epoch).permutation(self.images), self.repeats)[:size]

    def epoch_size(self, epoch: int) -> int:
        """The number of images, as a multiple of 256."""
        return len(self.images) // 256 * 256 or len(self.images)


class TrainingBatchSampler(Sampler[list[SamplePosition]]):
    """Endless batches of the stream, of each the share of this rank.

    With groups, batches are formed within windows of the stream: a window's images are sorted into
    their groups, cut into batches, and the batches shuffled. Only what is left of the groups at the
    end of a window shares a batch, so every image comes as often as in the stream.

    The global batches are the same whatever the ranks; their shares differ by one image at most.

    Args:
        sampler: The order of the images.
        batch_size: Of all ranks together.
        groups: The group of each image, by index; None for no grouping.
        start: The batch to begin at, the iteration at which a run goes on.
        rank: This process.
        world_size: Number of processes.
        accumulate: Parts that each process cuts its share into.

    Raises:
        ConfigError: A process, or a part of its share, would be left without an image.
    """

    WINDOW = 64
    """Batches in a window."""

    def __init__(
        self,
        sampler: TrainingSampler,
        *,
        batch_size: int,
        groups: np.ndarray | None = None,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        _check_shares(batch_size, world_size, accumulate)
        self.sampler = sampler
        self.batch_size = batch_size
        self.groups = groups
        self.start = start
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[SamplePosition]]:
        return self._shares(self.start)

    def _shares(self, start: int) -> Iterator[list[SamplePosition]]:
        for batch in self._batches(start):
            yield batch[self.rank :: self.world_size]

    def _batches(self, start: int) -> Iterator[list[SamplePosition]]:
        per_window = 1 if self.groups is None else self.WINDOW
        window, skip = divmod(start, per_window)
        stream = self._stream(window * per_window * self.batch_size)
        while True:
            samples = [next(stream) for _ in range(per_window * self.batch_size)]
            yield from self._window(samples, window)[skip:]
            window, skip = window + 1, 0

    def _window(self, samples: list[SamplePosition], window: int) -> list[list[SamplePosition]]:
        if self.groups is None:
            return [samples]
        by_group: dict[int, list[SamplePosition]] = {}
        for sample in samples:
            by_group.setdefault(int(self.groups[sample.image]), []).append(sample)
        size = self.batch_size
        whole = [g[i : i + size] for g in by_group.values() for i in range(0, len(g), size)]
        batches = [batch for batch in whole if len(batch) == size]
        rest = [sample for batch in whole if len(batch) < size for sample in batch]
        batches += [rest[i : i + size] for i in range(0, len(rest), size)]
        order = np.random.default_rng([self.sampler.seed, window, 1]).permutation(len(batches))
        return [batches[i] for i in order]

    def _stream(self, start: int) -> Iterator[SamplePosition]:
        position = epoch = 0
        while position + (size := self._epoch_size(epoch)) <= start:
            position, epoch = position + size, epoch + 1
        while True:
            images = self.sampler.epoch(epoch)
            if len(images) != size:
                raise ValueError(
                    f"{type(self.sampler).__name__}.epoch_size({epoch}) is {size}, but epoch "
                    f"{epoch} has {len(images)} images; they must agree, or a run could not go on"
                )
            for i in range(max(start - position, 0), size):
                yield SamplePosition(position + i, int(images[i]))
            position, epoch = position + size, epoch + 1
            size = self._epoch_size(epoch)

    def _epoch_size(self, epoch: int) -> int:
        size = self.sampler.epoch_size(epoch)
        if size < 1:
            raise ValueError(f"{type(self.sampler).__name__}: epoch {epoch} has no image")
        return size


class TestBatchSampler(Sampler[list[int]]):
    """Batches of each image once; the ranks' shares are consecutive, one image apart at most.

    Args:
        num_images: Images of the data set.
        batch_size: Of this rank; the last batch holds what is left.
        start: The batch to begin at.
        rank: This process.
        world_size: Number of processes.
    """

    __test__ = False  # not a test, for pytest

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int = 1,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        begin, end = (num_images * r // world_size for r in (rank, rank + 1))
        self.indices = range(begin, end)
        self.batch_size = batch_size
        self.start = start

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size
        begins = range(self.start * size, len(self.indices), size)
        return iter([list(self.indices[begin : begin + size]) for begin in begins])

    def __len__(self) -> int:
        """Batches from the first one on, wherever an iteration begins."""
        return -(-len(self.indices) // self.batch_size)


def _check_shares(batch_size: int, world_size: int, accumulate: int) -> None:
    if batch_size >= world_size * accumulate:
        return
    raise ConfigError(
        f"data.batch_size is {batch_size}, but {world_size} processes with train.accumulate "
        f"{accumulate} need at least {world_size * accumulate} images a step, one for each part of "
        "each process; raise data.batch_size, or lower train.accumulate or the number of processes"
    )
