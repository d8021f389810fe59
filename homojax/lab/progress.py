"""How far a run is: what it reports, the bar that shows it, and how long is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from homojax.lab.inputs import InputError

Progress = Callable[[int, int, str], None]  # (done, total, what is being done)
EVERY = 60.0  # seconds between two lines of a log


def silent(done: int, total: int, doing: str) -> None:
    """Report no progress."""


def require_progress(progress: object) -> None:
    """Return nothing where a function to report progress to was given.

    Raises:
        InputError: it cannot be called.
    """
    if not callable(progress):
        raise InputError(
            f"progress = {progress!r} cannot be called: give a function of (done, total, what is "
            "being done), such as print, or leave it out."
        )


@contextmanager
def progress_bar(console: Console, label: str) -> Iterator[Progress]:
    """Show a bar, and give the function (done, total, what is being done) that moves it.

    Where there is no terminal, such as in the log of a job, it writes a line a minute instead.
    """
    if not console.is_terminal:
        yield in_lines(console, label)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[doing]}"),
    )
    with Bar(*columns, console=console) as bar:
        task, pace = bar.add_task(label, total=None, doing=""), Pace()

        def move(done: int, total: int, doing: str) -> None:
            said = f"{doing}{pace.left(done, total, doing)}"
            bar.update(task, completed=done, total=total, doing=said)

        yield move


def in_lines(console: Console, label: str, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return a progress that is told in lines: the first and the last, and one a minute.

    >>> moments = iter([0.0, 0.0, 30.0, 30.0, 90.0, 90.0])
    >>> say = in_lines(Console(), "sweep", lambda: next(moments))
    >>> for done in range(3):
    ...     say(done, 4, "n = 8")
    sweep: 0 of 4, n = 8
    sweep: 2 of 4, n = 8, about 2:00 left
    """
    pace, last = Pace(clock), -EVERY

    def say(done: int, total: int, doing: str) -> None:
        nonlocal last
        left, now = pace.left(done, total, doing), clock()
        if now - last >= EVERY or done >= total:
            last = now
            console.print(f"{label}: {done:,} of {total:,}, {doing}{left}", highlight=False)

    return say


class Steps:
    """The steps that several threads have done, counted together and told to one ``Progress``.

    Once it is left by an exception, the next ``say`` of every thread raises, too.

    >>> with Steps(20, lambda *said: print(*said)) as steps:
    ...     steps.add(20)
    20 20 done
    """

    def __init__(self, total: int, progress: Progress):
        self.total = total
        self.done = 0
        self._progress = progress
        self._one_at_a_time = threading.Lock()
        self._stopped = False

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._stopped = error is not None
        if not self._stopped:
            self._progress(self.done, self.total, "done")

    def add(self, steps: int) -> None:
        """Count steps that were done."""
        with self._one_at_a_time:
            self.done += steps

    def say(self, doing: str) -> None:
        """Tell what is being done now.

        Raises:
            CancelledError: another thread has ended the work.
        """
        with self._one_at_a_time:
            if self._stopped:
                raise CancelledError
            self._progress(self.done, self.total, doing)


class Pace:
    """How long a run still takes, by its steps so far but those that compile."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.seconds = 0.0  # that counted steps took
        self.counted = 0
        # When the last step ended, how many were done, and whether to count the next one.
        self.last: tuple[float, int, bool] | None = None

    def left(self, done: int, total: int, doing: str) -> str:
        """Return ", about … left" for a progress; "" as long as there is nothing to go by.

        >>> times = iter([0.0, 30.0, 32.0])  # the first step compiles
        >>> pace = Pace(lambda: next(times))
        >>> [pace.left(done, 4, "n = 8") for done in (0, 1, 2)]
        ['', '', ', about 0:04 left']
        """
        now = self.clock()
        if self.last is not None:
            then, before, counts = self.last
            if counts and done > before:
                self.seconds, self.counted = self.seconds + now - then, self.counted + done - before
        self.last = now, done, self.last is not None and "compiling" not in doing
        if not self.counted or done >= total:
            return ""
        minutes, seconds = divmod(round((total - done) * self.seconds / self.counted), 60)
        return f", about {minutes}:{seconds:02} left"
