"""`python -m findistill` runs the console script."""

from findistill.cli import main

main()
