"""``python -m sparrow``: the command line."""

from sparrow.cli import main

main()
