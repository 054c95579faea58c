"""How well do the models of the zoo rank, and does it take both sides of a row?

Trains every model on both data sets, and one baseline on the context alone and on the target alone; prints a
line and rewrites bench/results/zoo_training.json after every run.

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

from rankopt.zoo import ENTRIES, coupon, movietweetings
from rankopt.zoo.cli import summary
from rankopt.zoo.dataset import Dataset, Role
from rankopt.zoo.files import write_whole
from rankopt.zoo.train import train

RESULTS = Path(__file__).parent / "results" / "zoo_training.json"
ABLATED = "dnn"
ROLES: tuple[Role, ...] = ("context", "target")


@click.command()
@click.option("--coupon", "coupon_path", type=click.Path(path_type=Path), help="Left out without it.")
@click.option("--seeds", default=3, show_default=True, help="Runs per model, with seeds 0, 1, ...")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(coupon_path: Path | None, seeds: int, output: Path) -> None:
    """Train the zoo and write the table of what it reached."""
    datasets = [movietweetings.load()]
    if coupon_path is not None:
        datasets.append(coupon.load(coupon_path))
    output.parent.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    for model, data, ablation in experiments(datasets):
        for seed in range(seeds):
            trained = train(ENTRIES[model], data, seed=seed)
            facts = {"data": data.name, "model": model, "sees": ablation or "all", "seed": seed}
            runs.append(facts | summary(trained))
            click.echo(
                f"{data.name:15}{model:15}{facts['sees']:9}seed {seed}  AUC {trained.test.auc:.4f}"
                f"  log loss {trained.test.log_loss:.4f}  {trained.epochs} epochs  {trained.seconds:.0f} s"
            )
            save(runs, datasets, output)


def experiments(datasets: list[Dataset]) -> Iterator[tuple[str, Dataset, Role | None]]:
    """Model, data and what the model is allowed to see."""
    for data in datasets:
        for model in ENTRIES:
            yield model, data, None
        for role in ROLES:
            yield ABLATED, data.only(role), role


def save(runs: list[dict[str, Any]], datasets: list[Dataset], output: Path) -> None:
    """Writes the runs with what somebody needs to repeat them."""
    content = {
        "question": "how well do the models of the zoo rank, and does it take both sides of a row?",
        "machine": {
            "cpu": cpu_name(),
            "threads": torch.get_num_threads(),
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "scikit-learn")},
        },
        "schedules": {data.name: asdict(data.schedule) for data in datasets},
        "models": {
            entry.name: {"config": asdict(entry.config), "recipe": asdict(entry.recipe)}
            for entry in ENTRIES.values()
        },
        "runs": runs,
    }
    write_whole(output, lambda file: file.write(json.dumps(content, indent=1).encode() + b"\n"))


def cpu_name() -> str:
    """The processor's model name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
