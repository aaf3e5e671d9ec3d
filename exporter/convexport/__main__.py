"""``python -m convexport`` is the command line."""

from convexport.cli import main

main()
