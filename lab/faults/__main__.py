"""`python -m lab.faults`, what `./dev faults` runs."""

from lab.faults.cli import app

if __name__ == "__main__":
    app()
