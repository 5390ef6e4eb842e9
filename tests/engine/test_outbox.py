"""What is sent to a service that may be slow or away."""

import logging
import threading
import time

from detlite.engine.hooks.outbox import Outbox


def never_hopeless(error):
    return False


def test_what_is_sent_arrives_in_order_after_an_outage(caplog):
    away, arrived, tried = threading.Event(), [], threading.Event()
    away.set()

    def send(number):
        def call():
            tried.set()
            if away.is_set():
                raise ConnectionError("away")
            arrived.append(number)

        return call

    outbox = Outbox("service", never_hopeless, pause=0.01)
    with caplog.at_level(logging.INFO, logger="detlite"):
        outbox.open(send(0))
        for number in range(1, 6):
            outbox.put(send(number))
        assert tried.wait(10)
        away.clear()
        assert outbox.close(10) == 0
    assert arrived == [0, 1, 2, 3, 4, 5]
    assert caplog.text.count("ConnectionError: away; training goes on") == 1
    assert "service is reached again" in caplog.text


def test_a_call_that_is_refused_does_not_hold_up_the_others():
    arrived = []

    def refused():
        raise ValueError("bad name")

    outbox = Outbox("service", lambda error: isinstance(error, ValueError))
    outbox.open(lambda: None)
    for call in (refused, lambda: arrived.append(1), refused, lambda: arrived.append(2)):
        outbox.put(call)
    assert outbox.close(10) == 2
    assert arrived == [1, 2]


def test_nobody_waits_for_a_service_that_hangs():
    hang = threading.Event()
    outbox = Outbox("service", never_hopeless)
    outbox.open(lambda: None)
    start = time.perf_counter()
    outbox.put(hang.wait)
    for _ in range(3):
        outbox.put(lambda: None)
    assert outbox.close(0.05) == 4
    assert time.perf_counter() - start < 5
    hang.set()


def test_of_too_many_that_wait_the_oldest_are_given_up():
    go, arrived = threading.Event(), []
    outbox = Outbox("service", never_hopeless, limit=2)
    outbox.open(go.wait)
    for number in range(5):
        outbox.put(lambda number=number: arrived.append(number))
    go.set()
    assert outbox.close(10) == 3
    assert arrived == [3, 4]
