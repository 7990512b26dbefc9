"""`python -m drc` is the command `drc`."""

from drc.cli.app import main

if __name__ == "__main__":
    main()
