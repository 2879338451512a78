"""Signals as a wish to stop: noted, breaking in, insisting, and gone afterwards."""

from __future__ import annotations

import signal
import threading

import pytest

from bcd_bench.util.interrupts import stopping

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in BOTH]
    with stopping() as stop:
        assert not stop()
        stop.check()
        for _ in range(2):  # however often, whatever is being written is not broken into
            signal.raise_signal(number)
            assert stop()
        with pytest.raises(KeyboardInterrupt):
            stop.check()
    assert [signal.getsignal(one) for one in BOTH] == before


@pytest.mark.parametrize("number", BOTH)
def test_it_breaks_in_where_it_may_and_once(number: signal.Signals) -> None:
    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # while cleaning up
            cleaned.append(number)

    cleaned: list[signal.Signals] = []
    with stopping() as stop:
        with pytest.raises(KeyboardInterrupt), stop.into():
            work()
        assert cleaned == [number]
        assert stop()
        with pytest.raises(KeyboardInterrupt), stop.into():
            pytest.fail("a stop that was asked for before lets nothing begin")


def test_a_second_signal_insists() -> None:
    with stopping(insist=True) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_are_never_asked() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stopping() as stop, stop.into():
            seen.append((signal.getsignal(signal.SIGINT), stop()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
