import os
import signal
import threading

import pytest

from illada.train.interrupt import GracefulStop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _own_handlers():
    """Whatever a test does to the handlers is undone, and a signal that slips through does not end the suite."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:  # under nohup Python starts with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_is_requested_at_first():
    with GracefulStop() as stop:
        assert stop.requested is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_by_name(number):
    with GracefulStop() as stop:
        send(number)
        assert stop.requested == number.name


def test_the_note_stays_after_leaving():
    with GracefulStop() as stop:
        send(signal.SIGTERM)
    assert stop.requested == "SIGTERM"


def test_a_second_ctrl_c_leaves_at_once():
    with GracefulStop() as stop:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.requested == "SIGINT"


def test_a_ctrl_c_after_sigterm_leaves_at_once():
    with GracefulStop():
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_second_sigterm_is_patient():
    # schedulers repeat it while they wait; the first is being answered
    with GracefulStop() as stop:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop.requested == "SIGTERM"


def test_the_handlers_are_given_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with GracefulStop():
        assert all(signal.getsignal(number) not in before for number in SIGNALS)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_the_handlers_are_given_back_after_an_error():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(RuntimeError, match="in the block"), GracefulStop():
        raise RuntimeError("in the block")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_ignored_signals_are_ignored_again_afterwards():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    with GracefulStop():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_leaves_the_signals_alone():
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def work():
        with GracefulStop() as stop:
            seen.append(([signal.getsignal(number) for number in SIGNALS], stop.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]
