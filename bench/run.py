"""Everything in one go: every script within its share of the time, then the page and its plots.

    python bench/run.py [--minutes 60] [--quick] [--only headline peers] [--threads 2 1]

A script that is done early leaves its time to those after it. What was measured at this commit is not measured again,
so a second run goes on where the first one's time was up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from running import Clock

HERE = Path(__file__).parent
SHARES = {
    "headline": 15, "paper_tables": 15, "peers": 30, "mari": 5, "sweeps": 20, "profile_ops": 5, "limits": 10,
    "prediction": 25,
}  # fmt: skip
"""The scripts, what matters most first, and their shares."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="a small slice of each, written to build/bench")
    parser.add_argument("--only", nargs="*", default=list(SHARES), choices=list(SHARES), metavar="SCRIPT")
    parser.add_argument("--threads", nargs="*", default=["2", "1"])
    options = parser.parse_args(arguments)
    clock = Clock.of(60 * options.minutes)
    left = {name: share for name, share in SHARES.items() if name in options.only}
    failed = []
    while left:
        name = next(iter(left))
        seconds = max(clock.left, 1.0) * left[name] / sum(left.values())
        del left[name]
        command = [
            sys.executable,
            str(HERE / f"{name}.py"),
            "--seconds",
            f"{seconds:.0f}",
            "--threads",
            *options.threads,
        ]
        print(f"== {name}, {seconds:.0f} s", flush=True)
        if subprocess.run([*command, *(["--quick"] if options.quick else [])], check=False).returncode:
            failed.append(name)
    if not options.quick:
        subprocess.run([sys.executable, str(HERE / "page.py")], check=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
