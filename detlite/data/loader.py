"""Batches for a run: whatever befalls the workers, the same samples in the same order."""

import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import torch
from torch.utils.data import DataLoader

from ..errors import DataError
from ..utils.distributed import rank
from .batch_transforms import BrokenBatch
from .image_dataset import ImageDataset
from .mapper import BrokenSample, LostImage, Samples, TrainingData
from .transfer import Collate, describe_limit
from .worker import SampleAtHand, SampleTable, init_worker
from .worker_count import usable_workers
from .worker_faults import Fault, WorkerFaults
from .worker_run import WorkerRun

logger = logging.getLogger(__name__)

Batch = list[dict[str, Any]]
# The run ends when workers that are at no sample are lost so often between two batches.
MAX_IDLE_LOSSES = 3
# What a signal mostly comes from, where it is not the sample.
_CAUSES = {
    "SIGKILL": "as a rule the system kills workers when memory runs out",
    "SIGBUS": "as a rule the shared memory, /dev/shm, is full",
    "SIGSEGV": "as a rule a library that decodes images is at fault",
}
_ADVICE = "lower data.num_workers or data.batch_size, or give more memory or a larger /dev/shm"


class BatchSampler(Protocol):
    """Deals out the keys of a data set, batch by batch, from a batch on."""

    start: int

    def __iter__(self) -> Iterator[list[Any]]: ...


class Loader:
    """Batches of samples that are functions of their position, made by workers.

    A worker that dies, or stays too long at one sample, is replaced; as samples and their order are
    functions, the batches are the same as if nothing had happened. A sample that is lost twice is
    an error, or is replaced by another image.

    Args:
        data: Makes the samples.
        batches: The keys of the samples of each batch.
        num_workers: Processes that make them; 0: they are made here, where nothing can interrupt a
            sample that hangs. More than the cores are not started.
        dataset: The data set of a test loader, for the evaluators; training data have none.
        sample_timeout: Seconds after which a sample in a worker is taken to hang; 0 waits for ever.
        lost_sample: What is done with a sample whose worker died or hung: "stop", "retry" once, or
            "skip" after one retry. Test images are never skipped.
        mixer: Changes the samples of a batch together, where they are made.

    Attributes:
        loader: The torch loader.
        start: The batch at which an iteration begins.
        faults: How often there was an "unreadable" image, a read that was repeated
            ("retried_reads"), a "worker_died", a "sample_hung", an image that was "skipped".
    """

    def __init__(
        self,
        data: Samples,
        batches: BatchSampler,
        *,
        num_workers: int = 0,
        dataset: ImageDataset | None = None,
        sample_timeout: float = 0.0,
        lost_sample: Literal["stop", "retry", "skip"] = "retry",
        mixer: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self.data = data
        self.batches = batches
        self.start = batches.start
        self.dataset = dataset
        self.sample_timeout = sample_timeout
        self.lost_sample = lost_sample
        self.faults: Counter[str] = Counter()
        self._runs: weakref.WeakSet[WorkerRun] = weakref.WeakSet()
        self.loader: DataLoader[Any] = DataLoader(
            data,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=usable_workers(num_workers),
            collate_fn=Collate(mixer),
            worker_init_fn=init_worker,
            pin_memory=torch.cuda.is_available(),
            # Its own, so that starting workers draws nothing from the run's random numbers.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches of an iteration that begins at 0; training data have no end."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return self._iterate(self.start)

    def restart(self, start: int) -> None:
        """End the iterations that are going on; the next one begins at this batch."""
        self.close()
        self.start = start

    def close(self) -> None:
        """End all workers for certain, and with them the iterations."""
        for run in list(self._runs):
            run.close()

    def state_dict(self) -> dict[str, Any]:
        """The images that are passed over, by position, and the counts of faults."""
        lost = self.data.lost if isinstance(self.data, TrainingData) else {}
        pairs = [[position, image] for position, images in lost.items() for image in images]
        return {"lost": pairs, "faults": dict(self.faults)}

    def load_state_dict(self, state: Mapping[str, Any] | list[Mapping[str, Any]]) -> None:
        """Take back what ``state_dict`` gave, or what it gave on each of the ranks.

        Of several ranks, whose number may have changed, the lost images are joined, and the main
        process takes the counts.
        """
        states = state if isinstance(state, list) else [state]
        lost: dict[int, list[int]] = {}
        for position, image in (pair for each in states for pair in each.get("lost", ())):
            if image not in lost.setdefault(int(position), []):
                lost[int(position)].append(int(image))
        if isinstance(self.data, TrainingData):
            self.data.lost = lost
        counted = states if rank() == 0 or not isinstance(state, list) else []
        self.faults = sum((Counter(each.get("faults", {})) for each in counted), Counter())

    def _iterate(self, due: int) -> Iterator[Batch]:
        recovery = _Recovery(self)
        while True:
            run: WorkerRun | None = None
            try:
                self.batches.start = due
                if self.loader.num_workers:
                    run = self._start_workers()
                for batch in self.loader if run is None else run:
                    self._check(batch)
                    due += 1
                    recovery.idle_losses = 0
                    yield batch
                return
            except WorkerFaults as error:
                if run is not None:
                    run.close(grace=0.0)
                if error.limit:
                    raise DataError(error.limit) from error
                recovery.settle(error.faults, due)
            finally:
                if run is not None:
                    run.close()

    def _start_workers(self) -> WorkerRun:
        try:
            self.data.table = SampleTable(self.loader.num_workers)
            run = WorkerRun(self.loader, self.data.table, self.sample_timeout)
        except (OSError, RuntimeError) as error:
            if message := describe_limit(error):
                raise DataError(message) from error
            raise
        self._runs.add(run)
        return run

    def _check(self, batch: Batch) -> None:
        for sample in batch:
            if isinstance(sample, BrokenBatch):
                raise DataError(sample)
            if isinstance(sample, BrokenSample):
                self.faults["unreadable"] += 1
                advice = "\n    To train without such images set data.broken_image=skip."
                raise DataError(sample + (advice if self.dataset is None else ""))
            if retried := sample.get("retried_reads", 0):
                self.faults["retried_reads"] += retried
                logger.warning("'%s' took %d more attempts to read", sample["file_name"], retried)
            for message in sample.get("skipped", ()):
                self.faults["skipped"] += 1
                if not isinstance(message, LostImage):
                    self.faults["unreadable"] += 1
                logger.warning("skipped an image, another takes its place: %s", message)


class _Recovery:
    """What one iteration makes of the faults of its workers.

    Args:
        loader: Whose policy holds, and whose faults are counted.

    Attributes:
        idle_losses: How often, since the last batch, workers were lost that were at no sample.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.idle_losses = 0
        self.lost_once: set[tuple[int, int]] = set()

    def settle(self, faults: list[Fault], due: int) -> None:
        """Count and tell what has happened at once, and make ready for new workers.

        Raises:
            DataError: The run must not go on.
        """
        for fault in faults:
            self.loader.faults[fault.kind] += 1
            told = f"a data worker (pid {fault.pid}) {fault.what}"
            if fault.cause in _CAUSES:
                told += f"; {_CAUSES[fault.cause]}"
            if fault.sample is None:
                logger.warning("%s, at no sample; new workers go on at batch %d", told, due)
            else:
                self._settle_sample(told, fault.sample, due)
        if any(fault.sample for fault in faults):
            return
        self.idle_losses += 1
        if self.idle_losses == MAX_IDLE_LOSSES:
            raise DataError(
                f"data workers were lost {MAX_IDLE_LOSSES} times before batch {due}, and never at "
                f"a sample; the last time {told}. Mostly memory has run out: {_ADVICE}"
            )

    def _settle_sample(self, told: str, sample: SampleAtHand, due: int) -> None:
        data, policy = self.loader.data, self.loader.lost_sample
        position, image = sample.position, sample.image
        told = f"{told}, at '{data.file_name(image)}' (position {position})"
        if policy == "stop":
            raise DataError(f"{told}. data.lost_sample=retry would try it once more")
        if (position, image) not in self.lost_once:
            self.lost_once.add((position, image))
            logger.warning("%s; new workers go on at batch %d and try it again", told, due)
        elif policy == "skip" and isinstance(data, TrainingData):
            data.lost.setdefault(position, []).append(image)
            logger.warning("%s, for the second time; another image takes its place", told)
        else:
            raise DataError(f"{told}, for the second time. {self._advice()}")

    def _advice(self) -> str:
        if not isinstance(self.loader.data, TrainingData):
            return "A test image cannot be skipped: mend it, or take it out of the annotations"
        return (
            "Mend the image, take it out of the annotations, or train without it by "
            "data.lost_sample=skip; if memory ran out, " + _ADVICE
        )
