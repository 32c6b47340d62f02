"""`python -m findistill` is the console script."""

from findistill.app import main

main()
