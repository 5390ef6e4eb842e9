"""One run of data workers, seen from their parent: what they send, and what befalls them.

torch's DataLoader starts the workers and deals out the batches. A thread takes the batches from it,
so that the main thread is never in the middle of a transfer, neither when a worker is killed while
it sends nor when Ctrl-C comes; it watches the workers while it waits.
"""

import contextlib
import logging
import multiprocessing
import multiprocessing.util
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader

from .transfer import PackedBatch, describe_limit
from .worker import SIGNALS_OF_A_RUN, SampleAtHand, SampleTable
from .worker_faults import Fault, WorkerFaults, describe_exit, signal_name

logger = logging.getLogger(__name__)

_POLL = 0.25  # seconds between two looks at the workers
_GRACE = 2.0  # seconds that they have to end by themselves
_KILL_WAIT = 5.0  # seconds until a killed process must be gone
_TRANSFER = 1.0  # seconds that a transfer which has begun may take when its process exits
_QUIET = 60.0  # seconds at the least that no worker need be at a sample, for they must start too
_DONE = object()


class WorkerRun:
    """The workers of a DataLoader from one batch on, until it ends or one of them fails.

    Args:
        loader: With at least one worker.
        table: In which its workers say what they are at.
        sample_timeout: Seconds after which a sample is taken to hang; 0 waits for ever.

    Raises:
        WorkerFaults: They cannot be started.
    """

    def __init__(self, loader: DataLoader[Any], table: SampleTable, sample_timeout: float) -> None:
        self.table = table
        self.sample_timeout = sample_timeout
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._wanted = threading.Semaphore(1)
        self._batches: queue.SimpleQueue[Any] = queue.SimpleQueue()
        iterator, self._workers = _start(loader)
        self._thread = threading.Thread(
            target=_fetch,
            args=(iterator, self._wanted, self._closed, self._batches),
            daemon=True,
            name="data-fetch",
        )
        # Before its process exits, multiprocessing calls this; else it would send SIGTERM, which
        # workers ignore, and wait for them.
        self._killer = multiprocessing.util.Finalize(
            self,
            _end,
            args=(self._workers, self._thread, self._wanted, self._closed),
            exitpriority=100,
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        while (batch := self._next()) is not _DONE:
            # The one after it is fetched meanwhile.
            self._wanted.release()
            yield batch

    def close(self, grace: float = _GRACE) -> None:
        """End the workers for certain.

        Args:
            grace: Seconds that they have to end by themselves, which is the quieter way.
        """
        if self._pid != os.getpid():
            return  # a process forked from ours, whose workers these are not
        if self._closed.is_set():
            grace = 0.0  # they had it
        self._closed.set()
        self._wanted.release()
        try:
            # The thread ends them; it may also wait for a batch that never comes.
            self._thread.join(grace)
        finally:
            self._killer()

    def _next(self) -> Any:
        quiet_since = time.monotonic()
        overdue: list[int] = []
        while not self._closed.is_set():
            try:
                item = self._batches.get(timeout=_POLL)
            except queue.Empty:
                self._raise_dead()
                if any(self._at_hand()):
                    quiet_since = time.monotonic()
                overdue = self._raise_hung(overdue, quiet_since)
                continue
            if isinstance(item, BaseException):
                # A worker that dies while it sends breaks the connection first.
                limit = describe_limit(item)
                self._raise_dead(
                    item, wait=0.0 if limit and not isinstance(item, EOFError) else 1.0
                )
                raise WorkerFaults([], limit) if limit else item
            return item
        return _DONE

    def _at_hand(self) -> list[SampleAtHand | None]:
        return [self.table.at_hand(i) for i in range(len(self._workers))]

    def _raise_dead(self, cause: BaseException | None = None, wait: float = 0.0) -> None:
        deadline = time.monotonic() + wait
        while True:
            # At the end of the data workers leave with exit code 0, before the thread says so.
            dead = [
                Fault(
                    "worker_died",
                    describe_exit(worker.exitcode),
                    worker.pid,
                    self.table.at_hand(i),
                    signal_name(worker.exitcode),
                )
                for i, worker in enumerate(self._workers)
                if worker.exitcode is not None and (worker.exitcode != 0 or cause is not None)
            ]
            if dead:
                raise WorkerFaults(dead) from cause
            if time.monotonic() >= deadline:
                return
            time.sleep(0.02)

    def _raise_hung(self, overdue: list[int], quiet_since: float) -> list[int]:
        if not self.sample_timeout:
            return []
        now = time.monotonic()
        at_hand = self._at_hand()
        late = [
            i
            for i, sample in enumerate(at_hand)
            if sample and now - sample.since > self.sample_timeout
        ]
        # Seen twice, since a machine that was stopped for a while makes everything late.
        hung = [
            Fault(
                "sample_hung",
                f"was at one sample for {now - sample.since:.1f} s",
                self._workers[i].pid,
                sample,
            )
            for i in late
            if i in overdue and (sample := at_hand[i])
        ]
        if not hung and now - quiet_since > max(self.sample_timeout, _QUIET):
            what = f"sent nothing for {now - quiet_since:.1f} s, and is at no sample"
            hung = [Fault("sample_hung", what, worker.pid, None) for worker in self._workers[:1]]
        if hung:
            raise WorkerFaults(hung)
        return late


def _start(loader: DataLoader[Any]) -> tuple[Iterator[Any], list[BaseProcess]]:
    before = set(multiprocessing.active_children())
    try:
        with _signals_kept_from_workers():
            iterator = iter(loader)
    except BaseException as error:
        # Whatever it is: at its exit Python would wait for them, and they ignore its SIGTERM.
        _kill(list(set(multiprocessing.active_children()) - before))
        _abandon_iterator(error)
        if not isinstance(error, (OSError, RuntimeError)):
            raise
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        fault = Fault("worker_died", f"not started: {error}", None, None)
        raise WorkerFaults([fault], describe_limit(error)) from error
    # torch has no public name for its workers; the children that have come are the same ones.
    workers = getattr(iterator, "_workers", None)
    if workers is None:
        workers = sorted(
            set(multiprocessing.active_children()) - before, key=lambda worker: worker.pid or 0
        )
    _keep_deaths_from_torch(iterator)
    return iterator, list(workers)


def _abandon_iterator(error: BaseException) -> None:
    # An iterator that failed in its constructor tells its workers to end when it is collected, and
    # waits for ever for a lock that a killed one has held; torch's own comment there says so.
    trace = error.__traceback__
    while trace is not None:
        iterator = trace.tb_frame.f_locals.get("self")
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown = True
        trace = trace.tb_next


def _keep_deaths_from_torch(iterator: Any) -> None:
    # When a worker dies, torch raises an error from a signal handler, wherever the main thread is:
    # in the middle of a step, or of a checkpoint. Here it is found out at the next batch.
    forget = getattr(torch._C, "_remove_worker_pids", None)
    if forget is not None and getattr(iterator, "_worker_pids_set", False):
        forget(id(iterator))
        iterator._worker_pids_set = False


@contextlib.contextmanager
def _signals_kept_from_workers() -> Iterator[None]:
    # Between its start and ``init_worker`` a worker would obey them.
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_OF_A_RUN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fetch(
    iterator: Iterator[Any],
    wanted: threading.Semaphore,
    closed: threading.Event,
    batches: "queue.SimpleQueue[Any]",
) -> None:
    while True:
        wanted.acquire()
        if closed.is_set():
            return
        try:
            batch = next(iterator)
            batches.put(batch.unpack() if isinstance(batch, PackedBatch) else batch)
        except StopIteration:
            batches.put(_DONE)
            return
        except BaseException as error:
            batches.put(error.with_traceback(None))  # which would keep the iterator alive
            # The workers stay as they are until it is known whether they are the cause.
            closed.wait()
            return


def _end(
    workers: list[BaseProcess],
    thread: threading.Thread,
    wanted: threading.Semaphore,
    closed: threading.Event,
) -> None:
    exiting = not closed.is_set()
    closed.set()
    wanted.release()
    _kill(workers)
    if exiting:
        # Python ends the threads that are left at its exit wherever they are, and a thread that is
        # in C++, as it takes a tensor, then aborts the process.
        thread.join(_TRANSFER)


def _kill(workers: list[BaseProcess]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()
    deadline = time.monotonic() + _KILL_WAIT
    for worker in workers:
        worker.join(max(deadline - time.monotonic(), 0.0))
        # Where another thread takes its exit code at the same time, it looks alive for a moment.
        while worker.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if worker.is_alive():
            logger.warning(
                "data worker %s was killed %.0f s ago and is still there; as a rule it waits for a "
                "disk or a network file system",
                worker.pid,
                _KILL_WAIT,
            )
