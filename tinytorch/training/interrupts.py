"""Ctrl-C while a model trains: the step is finished first."""

import contextlib
import signal
import threading


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training, after the step was finished and saved."""


@contextlib.contextmanager
def held_interrupt():
    """Ctrl-C inside sets the event that this yields, so that a step is never torn; a second one stops at once."""
    interrupted = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup, where Ctrl-C is not for us
        yield interrupted
        return

    def hold(signum, frame):
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
