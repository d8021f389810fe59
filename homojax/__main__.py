"""``python -m homojax``, and the ``homojax`` command.

Ctrl-C and TERM are heard first, before anything slow is loaded.
"""

from homojax.lab import compile_cache, interrupts


def program() -> None:
    """Be the ``homojax`` command."""
    interrupts.stop_while_loading()
    compile_cache.commands_own = True
    from homojax.lab.cli import program

    program()


if __name__ == "__main__":
    program()
