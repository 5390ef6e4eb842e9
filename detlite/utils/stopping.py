"""A stop that was asked for from outside, and the loops that can be broken off for it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .distributed import max_over_ranks, tell_ranks, was_told, world_size

T = TypeVar("T")


class StopWaiting(BaseException):
    """Ends a wait or a loop; no ``Exception``, so that nothing takes it for a broken image."""


class StopRequest:
    """Whether this process was asked to stop; there is one, as a signal comes to a process.

    Attributes:
        asked: Whether a stop was asked for.
    """

    def __init__(self) -> None:
        self.asked = False
        self._waits = self._breakable = False
        self._loops = 0

    def ask(self) -> None:
        """Ask this process to stop; for handlers of signals.

        Raises:
            StopWaiting: It waits for a batch, and is the only process. Several must stop together.
        """
        self.asked = True
        if self._waits and world_size() == 1:
            raise StopWaiting

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the context ``ask`` may raise."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Within the context loops over test data may be broken off: they leave nothing changed."""
        self._breakable = True
        try:
            yield
        finally:
            self._breakable = False

    def obeyed(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of a loop, which ends after the present one when a stop is asked for.

        Every process has a loop of its own, with any number of batches. They stop together.

        Raises:
            StopWaiting: One of the processes was asked to stop; within ``breakable`` only.
        """
        if not self._breakable:
            yield from batches
            return
        self._loops += 1
        topic, iterator = f"stop/{self._loops}", iter(batches)
        while not self._stops(topic):
            try:
                with self.waiting():
                    batch = next(iterator)
            except StopIteration:
                break
            yield batch
        # One may have been told after another had ended: the results are gathered by all or none.
        if max_over_ranks([self.asked])[0]:
            raise StopWaiting

    def _stops(self, topic: str) -> bool:
        if self.asked:
            tell_ranks(topic)
        return self.asked or was_told(topic)


STOP = StopRequest()
"""The one of this process."""
