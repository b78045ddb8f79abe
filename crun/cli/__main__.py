"""`python -m crun.cli`."""

from crun.cli import main

if __name__ == "__main__":
    main()
