"""Ctrl-C asks first: the loop it comes to ends, and what there is is kept."""

from __future__ import annotations

import logging
import os
import signal
import threading

import pytest

from rfdetr_foundationpose.interrupts import Interruptible


def test_first_interrupt_asks_and_the_second_is_the_usual_one(caplog):
    caplog.set_level(logging.INFO, "rfdetr_foundationpose")
    before = signal.getsignal(signal.SIGINT)
    with Interruptible() as stop:
        assert not stop.requested and stop.status == 0
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested and stop.stop() and stop.status == 130 and "kept" in caplog.text
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with Interruptible() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested and stop.status == 143


def test_other_threads_change_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Interruptible() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
