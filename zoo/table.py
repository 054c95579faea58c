"""The tables and plots of the zoo's page, made from the entries of `rankopt zoo bench`.

A table stands in the page between `<!-- table: NAME -->` and `<!-- end -->`; all else on the page is left as it is.
Plots are SVG files in a folder beside the page that has its name.
"""

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rankopt.zoo.experiments import BASELINE, PAIRS, SWEEPS, SWEPT
from rankopt.zoo.errors import ZooError
from rankopt.zoo.files import write_whole
from rankopt.zoo.plots import plot_saving, plot_sweeps
from rankopt.zoo.results import read

Run = dict[str, Any]

MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renew(results: Path, page: Path) -> list[Path]:
    """Writes the tables into the page and the plots beside it; gives the files written.

    Raises:
        ZooError: the results are none, or the page asks for a table that there is not.
    """
    content = read(results)
    runs = [run for run in content["runs"] if "error" not in run]
    text = page.read_text()

    def replaced(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise ZooError(f"{page} asks for the table {match[2]!r}, expected one of {sorted(TABLES)}")
        return f"{match[1]}\n{TABLES[match[2]](content, runs)}\n\n{match[3]}"

    renewed = MARKED.sub(replaced, text)
    write_whole(page, lambda file: file.write(renewed.encode()))
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    plots = [folder / "saving.svg", folder / "mlcc.svg"]
    plot_saving(defaults(runs, "movietweetings", "movietweetings_history"), plots[0])
    plot_sweeps(swept(runs), plots[1])
    return [page, *plots]


def defaults(runs: Iterable[Run], *data: str) -> list[Run]:
    """Of every model the run with its default configuration, all fields and the first seed."""
    whole = [run for run in runs if run["data"] in data and run["sees"] == "all"]
    return [run for run in whole if not run["change"] and not run["seed"]]


def swept(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """By scaling axis, the runs along it with the value in `at`, smallest first."""
    found = {}
    for axis in SWEEPS:
        model = "mc_mlcc" if axis == "channels" else SWEPT
        along = [run for run in runs if run["model"] == model and set(run["change"]) == {axis}]
        along += defaults([run for run in runs if run["model"] == model], "movietweetings")
        points = [run | {"at": run["change"].get(axis, config_value(run, axis))} for run in along]
        found[axis] = sorted(points, key=lambda run: int(run["at"]))
    return found


def config_value(run: Run, axis: str) -> int:
    """The value of an axis in the configuration of a run, which the file has as text."""
    match = re.search(rf"\b{axis}=(\d+)", run["identity"]["config"])
    return int(match[1]) if match else 0


def models_table(data: str) -> Callable[[Any, Sequence[Run]], str]:
    """Every model on a data set, the best first."""

    def table(content: Any, runs: Sequence[Run]) -> str:
        chosen = sorted(defaults(runs, data, f"{data}_history"), key=lambda run: -run["auc"])
        rows = [
            [
                named(run),
                f"{run['auc']:.4f}",
                f"{run['log_loss']:.4f}",
                f"{run['dense_parameters'] / 1e3:,.0f}",
                kflops(run["flops_before"]),
                kflops(run["flops_after"]),
                f"{run['flops_saved']:.0%}",
                f"{run['speedup']:.2f}x",
                f"{run['float64_error']:.0e}",
                f"{run['float32_ratio']:.2f}",
                "same" if run["top10"] == run["top100"] == 1 else f"{run['top10']:.0%}, {run['top100']:.0%}",
            ]
            for run in chosen
        ]
        head = ["model", "AUC", "log loss", "k parameters", "kFLOP before", "after", "saved", "speed at 512"]
        return markdown([*head, "float64 error", "float32 ratio", "top 10, top 100"], rows)

    return table


def compared_table(content: Any, runs: Sequence[Run]) -> str:
    """Mean and spread over the seeds, of models that differ in whether the context sees the candidate."""
    names = list(dict.fromkeys(name for pair in PAIRS for name in pair))
    tweets = [run for run in runs if run["data"] == "movietweetings" and run["sees"] == "all"]
    rows = []
    for name in names:
        of_model = [run for run in tweets if run["model"] == name and not run["change"]]
        if not of_model:
            continue
        first = of_model[0]
        rows.append(
            [
                name,
                str(len(of_model)),
                mean_and_spread([run["auc"] for run in of_model]),
                mean_and_spread([run["log_loss"] for run in of_model]),
                f"{first['dense_parameters'] / 1e3:,.0f}",
                kflops(first["flops_before"]),
                kflops(first["flops_after"]),
            ]
        )
    return markdown(["model", "seeds", "AUC", "log loss", "k parameters", "kFLOP before", "after"], rows)


def sides_table(content: Any, runs: Sequence[Run]) -> str:
    """What the baseline reaches with one side of a row, and with histories."""
    of_baseline = [run for run in runs if run["model"] == BASELINE and not run["change"] and not run["seed"]]
    rows = [[run["data"], run["sees"], f"{run['auc']:.4f}", f"{run['log_loss']:.4f}"] for run in of_baseline]
    return markdown(["data", f"{BASELINE} sees", "AUC", "log loss"], rows)


def sweep_table(content: Any, runs: Sequence[Run]) -> str:
    """MLCC along its scaling axes."""
    rows = [
        [
            axis,
            str(run["at"]),
            f"{run['auc']:.4f}",
            kflops(run["flops_before"]),
            kflops(run["flops_after"]),
        ]
        for axis, points in swept(runs).items()
        for run in points
    ]
    return markdown(["axis", "value", "AUC", "kFLOP before", "after"], rows)


def machine_table(content: Any, runs: Sequence[Run]) -> str:
    """Where the figures were measured."""
    machine = content["machine"]
    versions = [f"{name} {number}" for name, number in machine["versions"].items()]
    return markdown(["measured on", "with"], [[machine["processor"], ", ".join([*versions, "one thread per model"])]])


def named(run: Run) -> str:
    """The model, with a star where its budget ended the training."""
    histories = " (with histories)" if run["data"].endswith("history") else ""
    return f"{run['model']}{histories}{'' if run['complete'] else ' *'}"


def kflops(flops: float) -> str:
    return f"{flops / 1e3:,.1f}"


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


TABLES: dict[str, Callable[[Any, Sequence[Run]], str]] = {
    "movietweetings": models_table("movietweetings"),
    "coupon": models_table("coupon"),
    "compared": compared_table,
    "sides": sides_table,
    "sweep": sweep_table,
    "machine": machine_table,
}
