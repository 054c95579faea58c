"""`rankopt zoo`, also as `python -m rankopt.zoo`: the models, trained on real data, rewritten and compared."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rankopt.errors import RankoptError
from rankopt.zoo.data import NAMES
from rankopt.zoo.dataset import Dataset, Role
from rankopt.zoo.describe import describe
from rankopt.zoo.files import check_output, write_whole
from rankopt.zoo.registry import ENTRIES

if TYPE_CHECKING:
    from rankopt.zoo.train import Step, Trained

EXTRA = {"sklearn", "pyarrow", "matplotlib"}
"""Packages that the zoo needs for data, training and plots, and that rankopt itself does not."""

RESULTS = Path("bench/results/zoo.json")
COUNTS = Path("bench/results/zoo_flops.json")
WEIGHTS = Path("build/zoo")

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)
_THREADS = click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of torch.")


@contextmanager
def plainly() -> Iterator[None]:
    """Errors of rankopt as one message; a missing package as the command that installs it."""
    try:
        yield
    except RankoptError as error:
        raise click.ClickException(str(error)) from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise click.ClickException(f"{error}.\n  fix: pip install 'rankopt[zoo]'") from error


def data_options(command: F) -> F:
    """Which data set, where it lies, and where what is made of it is kept."""
    for option in (
        click.option("--cache", type=_PATH, help="Where prepared data is kept; by default in the user's cache."),
        click.option("--data-path", type=_PATH, help="Where the data lies, unless it comes with rankopt."),
        click.option("--data", type=click.Choice(NAMES), help="By default MovieTweetings, with histories if needed."),
    ):
        command = option(command)
    return command


@click.group()
def zoo() -> None:
    """Rankers in plain torch, trained on real data."""


@zoo.command("list")
def list_models() -> None:
    """List the models, where they come from and their configuration."""
    table = Table("model", "paper", "configuration", box=None, pad_edge=False)
    for entry in ENTRIES.values():
        table.add_row(entry.name, entry.paper, repr(entry.config))
    Console().print(table)


@zoo.command()
@click.argument("model", type=click.Choice(list(ENTRIES)), metavar="MODEL")
def show(model: str) -> None:
    """Show the equations of MODEL, its configuration and its size."""
    click.echo(describe(ENTRIES[model]))


@zoo.command()
@click.argument("model", type=click.Choice(list(ENTRIES)), metavar="MODEL")
@data_options
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="At most so many; fewer if they bring nothing.")
@click.option("--budget", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop training after that long.")
@click.option("--ablation", type=click.Choice(["context", "target"]), help="See only these fields.")
@click.option("--device", default="cpu", show_default=True, help="Of torch: cpu, cuda, ...")
@click.option(
    "--precision", type=click.Choice(["float32", "bfloat16"]), help="float32 on a CPU, bfloat16 elsewhere by default."
)
@click.option("-o", "--output", type=_FILE, required=True)
@_THREADS
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@click.option("--json", "metrics", type=_FILE, help="Metrics go here.")
@click.option("--checkpoint", type=_FILE, help="Go on from here.")
def train(
    model: str,
    data: str | None,
    data_path: Path | None,
    cache: Path | None,
    seed: int,
    epochs: int | None,
    budget: float | None,
    ablation: Role | None,
    device: str,
    precision: str | None,
    output: Path,
    threads: int,
    force: bool,
    metrics: Path | None,
    checkpoint: Path | None,
) -> None:
    """Train MODEL and save it, as a torch.export program for any number of rows."""
    # Batches this small gain little from a second thread, and lose much where the cores are busy.
    torch.set_num_threads(threads)
    with plainly():
        from rankopt.zoo import train as training
        from rankopt.zoo.export import export_program, save_program
        from rankopt.zoo.learner import Hardware, Precision

        check_output(output, force)
        if metrics is not None:
            check_output(metrics, force)
        if checkpoint is not None:
            check_output(checkpoint, force=True)
        hardware = Hardware.best(device)
        if precision is not None:
            hardware = replace(hardware, precision=Precision(precision))
        name = data or default_data(model)
        dataset = load_data(name, data_path, cache)
        if ablation is not None:
            dataset = dataset.only(ablation)
        if epochs is not None:
            dataset = replace(dataset, schedule=replace(dataset.schedule, epochs=epochs))
        with progress_bar() as on_step:
            trained = training.train(
                ENTRIES[model],
                dataset,
                seed=seed,
                checkpoint=checkpoint,
                budget=budget,
                hardware=hardware,
                on_step=on_step,
            )
        save_program(export_program(trained.model, dataset.test), dataset.schema, output)
        facts = {"model": model, "data": name, "ablation": ablation, "seed": seed} | summary(trained)
        if metrics is not None:
            write_whole(metrics, lambda file: file.write(json.dumps(facts, indent=2).encode() + b"\n"))
    click.echo(
        f"{output}: {model} after {trained.epochs} epochs, {trained.seconds:.0f} s; on the test rows of"
        f" {name} AUC {trained.test.auc:.4f}, log loss {trained.test.log_loss:.4f}"
    )
    if not trained.complete:
        goes_on = "" if checkpoint is None else "; the same command goes on from the checkpoint"
        click.echo(f"training was stopped by its budget{goes_on}", err=True)


@zoo.command()
@click.argument("program", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--candidates", type=click.IntRange(min=1), default=512, show_default=True, help="Per request.")
@click.option("-o", "--output", type=_FILE, required=True, help="The ranker, .pt2, or what is exported of it.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def optimize(program: Path, candidates: int, output: Path, force: bool) -> None:
    """Rewrite PROGRAM, a model that `zoo train` has saved: it says itself which inputs are context."""
    with plainly():
        from rankopt.artefacts.formats import default_backend
        from rankopt.artefacts.writing import Order
        from rankopt.commands import rewriting
        from rankopt.commands.pricing import read_profile
        from rankopt.commands.sources import Source
        from rankopt.report.terminal import render
        from rankopt.zoo.export import read_schema

        check_output(output, force)
        context = [f"features.{name}" for name in read_schema(program).context]
        request = rewriting.Request(context, None, candidates, read_profile(default_backend(output)))
        done = rewriting.optimize(Source(program), request, Order(output), verification=True, overwrite=force)
    if done.ranker.report is not None:
        render(done.ranker.report, Console())
    if done.exported is not None:
        click.echo(done.exported.sentence)


@zoo.command()
@click.option("--model", "models", multiple=True, type=click.Choice(list(ENTRIES)), help="All by default.")
@click.option("--data", type=click.Choice(["movietweetings", "coupon"]), multiple=True, help="Both by default.")
@click.option("--coupon-path", type=_FILE, help="The coupon file; without one, $RANKOPT_DATA is asked, else left out.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Of the compared models.")
@click.option("--budget", type=click.FloatRange(min=0), default=90.0, show_default=True, help="Seconds per training.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Models trained at a time.")
@click.option(
    "--only", type=click.Choice(["train", "measure"]), help="Train, and measure later; or measure all that is trained."
)
@click.option("--weights", type=_PATH, default=WEIGHTS, show_default=True, help="Trained models are kept here.")
@click.option("-o", "--output", type=_FILE, default=RESULTS, show_default=True)
def bench(**options: Any) -> None:
    """Train, rewrite and measure the zoo; goes on where an earlier run stopped.

    Models are trained first, several at a time; then they are measured one by one. What has an entry in the JSON file
    is done, unless its model or recipe has changed. `--only measure` measures every trained model again.
    """
    with plainly():
        from rankopt.zoo.bench import run

        check_output(options["output"], force=True)
        failed = run(**options, echo=click.echo)
    if failed:
        click.echo(f"{failed} runs failed; their entries say why", err=True)
        sys.exit(1)


@zoo.command()
@click.option("--model", "models", multiple=True, type=click.Choice(list(ENTRIES)), help="All by default.")
@click.option("-o", "--output", type=_FILE, default=COUNTS, show_default=True)
def count(models: tuple[str, ...], output: Path) -> None:
    """Count how much work of each model is done once per request, on one shape."""
    with plainly():
        from rankopt.zoo.counting import run

        check_output(output, force=True)
        run(models, output, click.echo)


@zoo.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=RESULTS)
@click.option("--counts", type=_FILE, default=COUNTS, show_default=True, help="The file of `rankopt zoo count`.")
@click.option("--into", type=_FILE, default=Path("docs/zoo.md"), show_default=True, help="The page with the tables.")
def table(results: Path, counts: Path, into: Path) -> None:
    """Renew the tables and plots of the zoo's page from RESULTS."""
    with plainly():
        from rankopt.zoo.table import renew

        written = renew(results, counts, into)
    for path in written:
        click.echo(path)


def default_data(model: str) -> str:
    return "movietweetings_history" if ENTRIES[model].needs_history else "movietweetings"


def load_data(name: str, path: Path | None, cache: Path | None) -> Dataset:
    """One of the data sets by name. Raises ZooError where it cannot be read."""
    from rankopt.zoo.data.sources import load

    return load(name, path, cache)


def summary(trained: "Trained") -> dict[str, Any]:
    """What is worth keeping of a training run beside its weights."""
    return {
        "epochs": trained.epochs,
        "test": asdict(trained.test),
        "validation": [asdict(metrics) for metrics in trained.validation],
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "seconds": round(trained.seconds, 2),
        "complete": trained.complete,
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
