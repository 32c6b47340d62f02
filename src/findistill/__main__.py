"""`python -m findistill` is the console script."""

from findistill.cli import main

main()
