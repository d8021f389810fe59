"""``python -m homojax`` is the ``homojax`` command."""

from homojax.lab.cli import program

program()
