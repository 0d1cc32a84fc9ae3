"""`python -m lab.faults`, what `./dev faults` runs."""

from lab.faults.cli import main

main()
