"""The tables and plots of the zoo's page, made from the entries of `rankopt zoo bench`.

A table stands in the page between `<!-- table: NAME -->` and `<!-- end -->`; all else on the page is left as it is.
Plots are SVG files in a folder beside the page that has its name.
"""

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rankopt.zoo.counting import read as read_counts
from rankopt.zoo.errors import ZooError
from rankopt.zoo.experiments import BASELINE, PAIRS, SWEEPS, SWEPT
from rankopt.zoo.files import write_whole
from rankopt.zoo.plots import plot_decomposition, plot_saving, plot_sweeps
from rankopt.zoo.results import read

Run = dict[str, Any]

MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renew(results: Path, counts: Path, page: Path) -> list[Path]:
    """Writes the tables into the page and the plots beside it; gives the files written.

    Args:
        results: the file of `rankopt zoo bench`.
        counts: the file of `rankopt zoo count`.

    Raises:
        ZooError: the results are none, or the page asks for a table that there is not.
    """
    content = read(results) | {"counts": read_counts(counts)}
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
    plots = [folder / "saving.svg", folder / "mlcc.svg", folder / "decomposition.svg"]
    measured = [run for run in runs if "flops_after" in run]
    plot_saving(defaults(measured, "movietweetings", "movietweetings_history"), plots[0])
    plot_sweeps({axis: averaged(points) for axis, points in swept(measured).items()}, plots[1])
    plot_decomposition(content["counts"], plots[2])
    return [page, *plots]


def defaults(runs: Iterable[Run], *data: str) -> list[Run]:
    """Of every model the run with its default configuration, all fields and the first seed."""
    whole = [run for run in runs if run["data"] in data and run["sees"] == "all"]
    return [run for run in whole if not run["change"] and not run["seed"]]


def swept(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """By scaling axis, the runs of all seeds along it with the value in `at`, smallest first."""
    found = {}
    for axis in SWEEPS:
        model = "mc_mlcc" if axis == "channels" else SWEPT
        along = [run for run in runs if run["model"] == model and set(run["change"]) == {axis}]
        along += [
            run for run in runs if run["model"] == model and run["data"] == "movietweetings" and not run["change"]
        ]
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
                kflops(run.get("flops_before")),
                kflops(run.get("flops_after")),
                f"{run['flops_saved']:.0%}" if "flops_saved" in run else "",
                f"{run['speedup']:.2f}x" if "speedup" in run else "",
                *(agreement(run) if "identical" in run else ("", "", "")),
            ]
            for run in chosen
        ]
        head = ["model", "AUC", "log loss", "k parameters", "kFLOP before", "after", "saved", "speed at 512"]
        return markdown([*head, "float64 error", "float32 ratio", "top 10, top 100"], rows)

    return table


def of_model(runs: Iterable[Run], data: str, name: str) -> list[Run]:
    """All seeds of a model in its default configuration."""
    return [r for r in runs if (r["data"], r["model"], r["sees"]) == (data, name, "all") and not r["change"]]


def compared_table(content: Any, runs: Sequence[Run]) -> str:
    """Models that differ in whether the context sees the candidate: mean and spread over the seeds."""
    rows = []
    for data in ("movietweetings", "coupon"):
        for name in dict.fromkeys(name for pair in PAIRS for name in pair):
            if seeds := of_model(runs, data, name):
                auc, loss = ([run[figure] for run in seeds] for figure in ("auc", "log_loss"))
                first = seeds[0]
                work = kflops(first.get("flops_before")), kflops(first.get("flops_after"))
                parameters = f"{first['dense_parameters'] / 1e3:,.0f}"
                rows.append(
                    [data, name, str(len(seeds)), mean_and_spread(auc), mean_and_spread(loss), parameters, *work]
                )
    return markdown(["data", "model", "seeds", "AUC", "log loss", "k parameters", "kFLOP before", "after"], rows)


def verdicts_table(content: Any, runs: Sequence[Run]) -> str:
    """What a context that never sees the candidate costs in quality, and saves in work."""
    rows = []
    for data in ("movietweetings", "coupon"):
        for name, variant in PAIRS:
            one, other = of_model(runs, data, name), of_model(runs, data, variant)
            if len(one) > 1 and len(other) > 1:
                base, after = one[0], other[0].get("flops_after")
                rows.append(
                    [
                        data,
                        f"{variant} for {name}",
                        difference(one, other, "auc", better=1),
                        difference(one, other, "log_loss", better=-1),
                        share(base.get("flops_before"), after),
                        share(base.get("flops_after"), after),
                    ]
                )
    head = ["data", "variant", "AUC", "log loss", "FLOPs saved, of the base as written", "of the base rewritten"]
    return markdown(head, rows)


def share(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{1 - after / before:.0%}"


def difference(base: Sequence[Run], variant: Sequence[Run], figure: str, better: int) -> str:
    """Of two means, against the standard deviation of a difference of two runs."""
    ours, theirs = [run[figure] for run in variant], [run[figure] for run in base]
    found = statistics.mean(ours) - statistics.mean(theirs)
    spread = (statistics.variance(ours) + statistics.variance(theirs)) ** 0.5
    verdict = "within the spread" if abs(found) <= spread else "better" if found * better > 0 else "worse"
    return f"{found:+.4f} (± {spread:.4f}): {verdict}"


def averaged(points: Sequence[Run]) -> list[Run]:
    """One point per place on an axis: the mean over the seeds, with the standard deviation in `spread`."""
    places = sorted({int(run["at"]) for run in points})
    found = []
    for at in places:
        seeds = [run for run in points if run["at"] == at]
        auc = [run["auc"] for run in seeds]
        spread = statistics.stdev(auc) if len(auc) > 1 else 0.0
        found.append(seeds[0] | {"auc": statistics.mean(auc), "spread": spread, "seeds": auc})
    return found


def decomposition_table(content: Any, runs: Sequence[Run]) -> str:
    """How much of each model, and of its interaction layer, is done once per request."""
    rows = []
    for run in content["counts"]:
        inner, whole = run.get("interaction"), run["whole"]
        cells = [kflops(inner["before"]), less(inner, "split"), less(inner, "least")] if inner else [""] * 3
        rows.append([run["model"], run["paper"], *cells, kflops(whole["before"])])
        rows[-1] += [less(whole, name) for name in ("split", "least", "served")]
    head = [
        "model",
        "the paper",
        "interaction kFLOP",
        "split",
        "all laws",
        "whole kFLOP",
        "split",
        "all laws",
        "served",
    ]
    return markdown(head, rows)


def less(work: dict[str, float], name: str) -> str:
    return f"{work[name] / work['before'] - 1:+.0%}"


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
            mean_and_spread(run["seeds"]),
            kflops(run.get("flops_before")),
            kflops(run.get("flops_after")),
        ]
        for axis, points in swept(runs).items()
        for run in averaged(points)
    ]
    return markdown(["axis", "value", "AUC", "kFLOP before", "after"], rows)


def identity_table(content: Any, runs: Sequence[Run]) -> str:
    """The worst of all trained models, against what is asked of them."""
    checked = [run for run in runs if "float64_error" in run]
    same = sum(run["top10"] == run["top100"] == 1 for run in checked)
    error, ratio = (max((run[name] for run in checked), default=0.0) for name in ("float64_error", "float32_ratio"))
    rows = [
        ["float64 error, relative", "1e-9 at most", f"{error:.0e}"],
        ["float32 error over the model's own", "2 at most", f"{ratio:.2f}"],
        ["top 10 and top 100 in the same order", "all", f"{same} of {len(checked)}"],
        ["models rankopt failed at", "none", str(sum("error" in run for run in content["runs"]))],
    ]
    return markdown(["over all trained models", "asked", "worst found"], rows)


def machine_table(content: Any, runs: Sequence[Run]) -> str:
    """Where the figures were measured."""
    machine = content["machine"]
    versions = [f"{name} {number}" for name, number in machine["versions"].items()]
    minutes = sum(run["cpu_seconds"] for run in content["runs"]) / 60
    cells = [machine["processor"], ", ".join([*versions, "one thread per model"]), f"{minutes:.0f}"]
    return markdown(["measured on", "with", "CPU minutes of training, all runs"], [cells])


def agreement(run: Run) -> tuple[str, str, str]:
    """Both errors, and the order of the best candidates."""
    order = "same" if run["top10"] == run["top100"] == 1 else f"{run['top10']:.0%}, {run['top100']:.0%}"
    return f"{run['float64_error']:.0e}", f"{run['float32_ratio']:.2f}", order


def named(run: Run) -> str:
    """The model, with a star where its budget ended the training."""
    histories = " (with histories)" if run["data"].endswith("history") else ""
    return f"{run['model']}{histories}{'' if run['complete'] else ' *'}"


def kflops(flops: float | None) -> str:
    """Empty for a run that is trained, and not measured yet."""
    return "" if flops is None else f"{flops / 1e3:,.1f}"


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
    "verdicts": verdicts_table,
    "decomposition": decomposition_table,
    "identity": identity_table,
    "sides": sides_table,
    "sweep": sweep_table,
    "machine": machine_table,
}
