"""A bar for a person at a terminal, and lines for a log."""

import io

from rich.console import Console

from homojax.lab.progress import in_lines, progress_bar


def test_a_log_gets_its_first_line_at_once_and_then_one_a_minute():
    log, now = io.StringIO(), [0.0]
    say = in_lines(Console(file=log), "sweep", lambda: now[0])
    for done in range(200):
        now[0] = float(done)
        say(done, 200, "n = 4")
    assert log.getvalue().splitlines() == [
        "sweep: 0 of 200, n = 4",
        "sweep: 60 of 200, n = 4, about 2:20 left",
        "sweep: 120 of 200, n = 4, about 1:20 left",
        "sweep: 180 of 200, n = 4, about 0:20 left",
    ]
    say(200, 200, "done")
    assert log.getvalue().endswith("sweep: 200 of 200, done\n")


def test_only_a_terminal_gets_a_bar():
    for terminal in (False, True):
        out = io.StringIO()
        with progress_bar(Console(file=out, force_terminal=terminal), "audit") as say:
            say(1, 2, "reading")
        assert ("\x1b" in out.getvalue()) == terminal and "audit" in out.getvalue()
