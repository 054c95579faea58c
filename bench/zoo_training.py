"""How well do the models of the zoo rank, and does it take both sides of a row?

Trains every model on both data sets, and one baseline on the context alone and on the target alone; prints a
line and rewrites bench/results/zoo_training.json after every run. Runs that the file already has, made in the
same setting, are not repeated: delete it to start anew.

    python bench/zoo_training.py --coupon coupon.csv.gz
"""

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch

from rankopt.zoo import ENTRIES
from rankopt.zoo.cli import summary
from rankopt.zoo.data import coupon, movietweetings
from rankopt.zoo.dataset import Dataset, Role
from rankopt.zoo.files import write_whole
from rankopt.zoo.train import train

RESULTS = Path(__file__).parent / "results" / "zoo_training.json"
ABLATED = "dnn"
ROLES: tuple[Role, ...] = ("context", "target")


@click.command()
@click.option("--coupon", "coupon_path", type=click.Path(path_type=Path), help="Left out without it.")
@click.option("--seeds", default=3, show_default=True, help="Runs per model, with seeds 0, 1, ...")
@click.option("--threads", type=int, help="Of torch; by default as many as it wants.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(coupon_path: Path | None, seeds: int, threads: int | None, output: Path) -> None:
    """Train the zoo and write the table of what it reached."""
    if threads is not None:
        torch.set_num_threads(threads)
    datasets = [movietweetings.load()]
    if coupon_path is not None:
        datasets.append(coupon.load(coupon_path))
    output.parent.mkdir(parents=True, exist_ok=True)
    setting = describe(datasets)
    runs = previous_runs(output, setting)
    for model, data, ablation in experiments(datasets):
        for seed in range(seeds):
            key = {"data": data.name, "model": model, "sees": ablation or "all", "seed": seed}
            if any(key.items() <= run.items() for run in runs):
                continue
            trained = train(ENTRIES[model], data, seed=seed)
            # Wall time is left out: it says more about the machine's other work than about the models.
            facts = {name: fact for name, fact in summary(trained).items() if name != "seconds"}
            runs.append(key | {"threads": torch.get_num_threads()} | facts)
            click.echo(
                f"{data.name:15}{model:15}{key['sees']:9}seed {seed}  AUC {trained.test.auc:.4f}"
                f"  log loss {trained.test.log_loss:.4f}  {trained.epochs} epochs"
            )
            text = json.dumps(setting | {"runs": runs}, indent=1)
            write_whole(output, lambda file, text=text: file.write(text.encode() + b"\n"))


def experiments(datasets: list[Dataset]) -> Iterator[tuple[str, Dataset, Role | None]]:
    """Model, data and what the model is allowed to see."""
    for data in datasets:
        for model in ENTRIES:
            yield model, data, None
        for role in ROLES:
            yield ABLATED, data.only(role), role


def describe(datasets: list[Dataset]) -> dict[str, Any]:
    """What somebody needs to repeat the runs."""
    setting = {
        "question": "how well do the models of the zoo rank, and does it take both sides of a row?",
        "machine": {"cpu": cpu_name(), "system": platform.platform()},
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "scikit-learn")},
        },
        "schedules": {data.name: asdict(data.schedule) for data in datasets},
        "models": {
            entry.name: {"config": asdict(entry.config), "recipe": asdict(entry.recipe)} for entry in ENTRIES.values()
        },
    }
    return json.loads(json.dumps(setting))  # as it comes back from the file: lists, not tuples


def previous_runs(output: Path, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs in the file, if they were made in the same setting."""
    if not output.exists():
        return []
    content = json.loads(output.read_text())
    runs = content.pop("runs")
    return runs if content == setting else []


def cpu_name() -> str:
    """The processor's model name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
