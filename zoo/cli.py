"""`python -m rankopt.zoo`: train a model of the zoo and save it as a torch.export program."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rankopt.zoo.dataset import Dataset, Role
from rankopt.zoo.errors import ZooError
from rankopt.zoo.files import check_output, write_whole
from rankopt.zoo.registry import ENTRIES

if TYPE_CHECKING:
    from rankopt.zoo.train import Step, Trained


@click.group()
def zoo() -> None:
    """Rankers in plain torch, trained on real data."""


@zoo.command("list")
def list_models() -> None:
    """Show the models, where they come from and their configuration."""
    table = Table("model", "paper", "configuration", box=None, pad_edge=False)
    for entry in ENTRIES.values():
        table.add_row(entry.name, entry.paper, repr(entry.config))
    Console().print(table)


@zoo.command()
@click.argument("model", type=click.Choice(list(ENTRIES)), metavar="MODEL")
@click.option("--data", type=click.Choice(["movietweetings", "coupon"]), default="movietweetings")
@click.option("--data-path", type=click.Path(path_type=Path), help="Where the coupon file lies.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="At most so many; fewer if they bring nothing.")
@click.option("--ablation", type=click.Choice(["context", "target"]), help="See only these fields.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of torch.")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@click.option("--json", "metrics", type=click.Path(path_type=Path, dir_okay=False), help="Metrics go here.")
@click.option("--checkpoint", type=click.Path(path_type=Path, dir_okay=False), help="Go on from here.")
def train(
    model: str,
    data: str,
    data_path: Path | None,
    seed: int,
    epochs: int | None,
    ablation: Role | None,
    output: Path,
    threads: int,
    force: bool,
    metrics: Path | None,
    checkpoint: Path | None,
) -> None:
    """Train MODEL and save it, as a torch.export program for any number of rows."""
    # Imported here because training needs scikit-learn, which listing and the models themselves do not.
    try:
        from rankopt.zoo import train as training
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}.\n  fix: pip install 'rankopt[zoo]'") from error
    from rankopt.zoo.export import export_program, save_program

    # Batches this small gain little from a second thread, and lose much where the cores are busy.
    torch.set_num_threads(threads)
    try:
        check_output(output, force)
        if metrics is not None:
            check_output(metrics, force)
        if checkpoint is not None:
            check_output(checkpoint, force=True)
        dataset = load_data(data, data_path)
        if ablation is not None:
            dataset = dataset.only(ablation)
        if epochs is not None:
            dataset = replace(dataset, schedule=replace(dataset.schedule, epochs=epochs))
        with progress_bar() as on_step:
            trained = training.train(ENTRIES[model], dataset, seed=seed, checkpoint=checkpoint, on_step=on_step)
        save_program(export_program(trained.model, dataset.test), dataset.schema, output)
        facts = {"model": model, "data": data, "ablation": ablation, "seed": seed} | summary(trained)
        if metrics is not None:
            write_whole(metrics, lambda file: file.write(json.dumps(facts, indent=2).encode() + b"\n"))
    except ZooError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{output}: {model} after {trained.epochs} epochs, {trained.seconds:.0f} s; on the test rows of"
        f" {data} AUC {trained.test.auc:.4f}, log loss {trained.test.log_loss:.4f}"
    )


def load_data(name: str, path: Path | None) -> Dataset:
    """One of the data sets by name."""
    from rankopt.zoo import coupon, movietweetings

    return coupon.load(path) if name == "coupon" else movietweetings.load()


def summary(trained: "Trained") -> dict[str, Any]:
    """What is worth keeping of a training run beside its weights."""
    return {
        "epochs": trained.epochs,
        "test": asdict(trained.test),
        "validation": [asdict(metrics) for metrics in trained.validation],
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "seconds": round(trained.seconds, 2),
    }


@contextmanager
def progress_bar() -> Iterator[Callable[["Step"], None]]:
    """A bar on the terminal, one line per phase and epoch; gives the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def on_step(step: "Step") -> None:
            line = f"{step.phase.value}, epoch {step.epoch}"
            if line not in tasks:
                tasks[line] = progress.add_task(line, total=step.batches)
            progress.update(tasks[line], completed=step.batch)

        yield on_step
