"""Sends things to a server that may be slow or away, while something else goes on."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0


class Outbox:
    """Calls functions one after the other in a thread, each again until it does not fail.

    Nothing ever waits for it but ``close``, and no error leaves it.

    Args:
        name: Of the server, for the log.
        is_hopeless: Whether an error would come again at every attempt; the call is then given up.
        limit: Calls that wait at most; then the oldest is given up for each new one.
        pause: Seconds before the second attempt; each further pause is twice as long, to a minute.
    """

    def __init__(
        self,
        name: str,
        is_hopeless: Callable[[Exception], bool],
        *,
        limit: int = 10000,
        pause: float = 1.0,
    ) -> None:
        self.name = name
        self.is_hopeless = is_hopeless
        self.limit = limit
        self.pause = pause
        self.is_failing = False
        self.num_lost = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._first: Callable[[], None] | None = None
        self._wakened = threading.Condition()
        self._is_closing = self._has_given_up = self._is_calling = False
        self._thread = threading.Thread(target=self._work, name=f"outbox {name}", daemon=True)

    def open(self, call: Callable[[], None]) -> None:
        """Begin, with a call that must succeed before any other; if it is hopeless, all are."""
        self._first = call
        self._thread.start()

    def put(self, call: Callable[[], None]) -> None:
        """Have something called, after everything before it."""
        with self._wakened:
            is_full = len(self._calls) >= self.limit
            self.num_lost += self._has_given_up or is_full
            if self._has_given_up:
                return
            if is_full:
                self._calls.popleft()
            self._calls.append(call)
            self._wakened.notify()

    def close(self, timeout: float) -> int:
        """Wait for what is left, at most ``timeout`` seconds; returns how many calls were lost."""
        with self._wakened:
            self._is_closing = True
            self._wakened.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        with self._wakened:
            self._has_given_up = True
            lost = self.num_lost + self._is_calling + len(self._calls)
            self._calls.clear()
            self._wakened.notify()
        return lost

    def _work(self) -> None:
        assert self._first is not None
        if not self._persist(self._first):
            with self._wakened:
                self._has_given_up = True
                self.num_lost += len(self._calls)
                self._calls.clear()
            return
        while True:
            with self._wakened:
                while not (self._calls or self._is_closing):
                    self._wakened.wait()
                if not self._calls:
                    return
                call = self._calls.popleft()
                self._is_calling = True
            arrived = self._persist(call)
            with self._wakened:
                self._is_calling = False
                self.num_lost += not arrived

    def _persist(self, call: Callable[[], None]) -> bool:
        """Call until it succeeds; False where that is hopeless."""
        pause = self.pause
        while True:
            try:
                call()
            except Exception as error:
                hopeless = self.is_hopeless(error)
                self._tell(error, hopeless)
                if hopeless or not self._sleep(pause):
                    return False
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if self.is_failing:
                    logger.info("%s is reached again", self.name)
                self.is_failing = False
                return True

    def _sleep(self, seconds: float) -> bool:
        """Wait, less where the outbox is being closed; False once nobody waits for it any more."""
        end = time.monotonic() + seconds
        with self._wakened:
            while not self._has_given_up and (left := end - time.monotonic()) > 0:
                if self._is_closing:
                    left = min(left, self.pause)
                    end = time.monotonic() + left
                    self._wakened.wait(left)
                    break
                self._wakened.wait(left)
            return not self._has_given_up

    def _tell(self, error: Exception, hopeless: bool) -> None:
        if self.is_failing:
            return
        self.is_failing = True
        logger.warning(
            "%s: %s: %s; training goes on%s",
            self.name,
            type(error).__name__,
            str(error).strip() or "no reason given",
            ", without it" if hopeless else ", and what is to be sent waits",
        )
