"""`python -m rankopt.zoo`."""

from rankopt.zoo.cli import zoo

if __name__ == "__main__":
    zoo(prog_name="python -m rankopt.zoo")
