"""The JSON file of `rankopt zoo bench`: what was measured where, and one entry per run."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rankopt.zoo.errors import ZooError
from rankopt.zoo.experiments import Experiment
from rankopt.zoo.files import write_whole
from rankopt.zoo.measure import CANDIDATES
from rankopt.zoo.weights import Facts

KEY = ("data", "model", "sees", "change", "seed")


class Results:
    """The entries; an entry that failed says so, and is worth another try.

    Raises:
        ZooError: the file has something else in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: list[Facts] = read(path)["runs"] if path.exists() else []

    def has(self, experiment: Experiment) -> bool:
        """Whether there is an entry of this very model."""
        wanted = experiment.key | {"identity": experiment.identity}
        return any("error" not in run and {name: run.get(name) for name in wanted} == wanted for run in self.runs)

    def add(self, facts: Facts) -> None:
        """Puts an entry in the place of an older one of the same key, and writes the file."""
        others = [run for run in self.runs if any(run[name] != facts[name] for name in KEY)]
        self.runs = sorted([*others, facts], key=order)
        text = json.dumps({"machine": machine(), "candidates": CANDIDATES, "runs": self.runs}, indent=1)
        write_whole(self.path, lambda file: file.write(text.encode() + b"\n"))


def read(path: Path) -> dict[str, Any]:
    """The file as it is.

    Raises:
        ZooError: it is none of `Results`.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if all(set(KEY) <= run.keys() for run in content["runs"]) and content["machine"]:
            return content
        raise KeyError("an entry without a key")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ZooError(
            f"expected results of the zoo in {path}, found none: {error!r}.\n  fix: run `rankopt zoo bench`"
        ) from error


def order(run: Facts) -> tuple[str, str, str, str, int]:
    return run["data"], run["model"], run["sees"], json.dumps(run["change"]), run["seed"]


def machine() -> dict[str, Any]:
    """What a reader needs to know about where the figures were measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads_per_model": 1,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "scikit-learn", "numpy")},
    }
