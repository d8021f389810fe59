"""Ctrl-C and TERM: a program stops at once, even while XLA compiles, and keeps what is done."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

_STOPS = {signal.SIGINT, signal.SIGTERM}
_stopping = threading.Event()  # from when a stop was heard
UNTOUCHED = threading.Lock()  # held where half a step would lose or leave something


def stop_while_loading() -> None:
    """Make Ctrl-C and TERM end this program at once, as long as it has done nothing."""

    def stop(number: int, _: object) -> None:
        os.write(2, b"homojax: stopped.\n")
        os._exit(128 + number)

    for number in _heard():
        signal.signal(number, stop)


def _heard() -> set[signal.Signals]:
    """Return the signals that stop this program: a job in the background ignores some."""
    return {number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN}


def stop_at_once(last_words: Callable[[], None]) -> None:
    """Make Ctrl-C and TERM end this program at once, with exit code 130 or 143.

    Python would raise an exception, but only between its own instructions, and compiled code runs
    for long; and it would wait for XLA's threads at the end. So a thread waits for the signal,
    which comes to it by a pipe. All that is kept on disk is whole at every moment.

    Args:
        last_words: called before the end.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    for number in _heard():
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_wait, args=(told, last_words), daemon=True).start()


def give_way() -> None:
    """Return at once, or never where a stop was heard: the thread that heard it ends the program.

    What fails meanwhile may fail for its tidying up, and is not told.
    """
    if _stopping.is_set():
        threading.Event().wait()


def _wait(told: int, last_words: Callable[[], None]) -> None:
    while (number := os.read(told, 1)[0]) not in _STOPS:
        pass
    _stopping.set()
    UNTOUCHED.acquire(timeout=2)
    try:
        last_words()
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # a progress bar hides the cursor
        sys.stderr.flush()
    finally:
        os._exit(128 + number)
