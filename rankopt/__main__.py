"""`python -m rankopt`: the command line."""

from rankopt.cli import main

if __name__ == "__main__":
    main(prog_name="rankopt")
