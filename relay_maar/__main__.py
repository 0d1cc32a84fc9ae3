"""`python -m relay_maar`."""

from relay_maar.cli import main

main()
