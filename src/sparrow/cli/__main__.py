"""``python -m sparrow.cli``: the same as ``sparrow``."""

from sparrow.cli import main

main()
