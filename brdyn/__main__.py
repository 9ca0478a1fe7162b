"""`python -m brdyn` is the `brdyn` command."""

from brdyn.cli import program

program()
