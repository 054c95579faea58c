"""Do models that other people wrote come out the same, and faster? Every model of the corpus, checked and timed.

    python bench/corpus.py [--only DIN zoo/ ...] [--no-timings] [--compile 500] [--again] [--candidates 1 10 100]
    python bench/corpus.py --backends --compile 500 [--only zoo/]    torch.compile alone

The corpus is the zoo, deepctr-torch and the dense modules of torchrec, as far as they are installed. Results are
written to bench/results/corpus.json as each model finishes, and docs/corpus.md is generated from them. A run that was
interrupted goes on where it stopped: what was measured at this commit is not measured again, except with --again. The
exit code is 1 if a model failed or is not identical.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from corpus_checks import Outcome, check
from corpus_models import LIBRARIES, Entry, corpus, is_installed
from corpus_page import BACKENDS, page
from corpus_timings import CANDIDATES, Stopwatch
from harness import RESULTS, commit, write

Results = dict[str, dict[str, Any]]
"""What is known of each model, by its key."""

PAGE = Path(__file__).parents[1] / "docs" / "corpus.md"


def main() -> None:
    arguments = _arguments()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    everything = list(corpus())
    chosen = [entry for entry in everything if not arguments.only or any(text in entry.key for text in arguments.only)]
    results = _known(arguments.name, everything)
    for number, entry in enumerate(chosen, 1):
        before = results.get(entry.key)
        if before is not None and not arguments.again and _is_done(before, arguments):
            continue
        start = time.perf_counter()
        results[entry.key] = with_earlier(_run(entry, arguments), before or {})
        write(
            arguments.name, _ordered(results, everything), packages=[name for name in LIBRARIES if is_installed(name)]
        )
        seconds = time.perf_counter() - start
        print(f"[{number}/{len(chosen)}] {entry.key}: {_line(results[entry.key])} ({seconds:.0f} s)", flush=True)
    if arguments.name == "corpus":
        PAGE.write_text(page(json.loads((RESULTS / "corpus.json").read_text())))
        print(PAGE)
    wrong = [entry.key for entry in chosen if not _is_right(results[entry.key])]
    if wrong:
        raise SystemExit(f"not as they should be: {', '.join(wrong)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="MODEL", help="parts of the names of models")
    parser.add_argument("--no-timings", action="store_true", help="check and count, but measure nothing")
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=["eager", "onnxruntime"])
    parser.add_argument("--compile", nargs="*", type=int, default=[], help="and at these numbers torch.compile as well")
    parser.add_argument("--again", action="store_true", help="measure again what was measured at this commit")
    parser.add_argument("--candidates", nargs="*", type=int, default=list(CANDIDATES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="per backend and number of candidates")
    parser.add_argument("--name", default="corpus", help="of the file in bench/results")
    return parser.parse_args()


def _known(name: str, everything: Sequence[Entry]) -> Results:
    """What was measured before, without the models that their library no longer has."""
    path = RESULTS / f"{name}.json"
    results: Results = json.loads(path.read_text())["results"] if path.exists() else {}
    installed = {entry.library for entry in everything}
    keys = {entry.key for entry in everything}
    return {key: result for key, result in results.items() if key in keys or result["library"] not in installed}


def _ordered(results: Results, everything: Sequence[Entry]) -> Results:
    """In the order of the corpus; libraries that are not installed here come last."""
    order = {entry.key: place for place, entry in enumerate(everything)}
    return dict(sorted(results.items(), key=lambda item: order.get(item[0], len(order))))


def _is_done(result: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Whether there is all that is asked for, and of this commit."""
    if result["commit"] != commit():
        return False
    if arguments.no_timings or result["outcome"] != Outcome.CAPTURED.value:
        return True
    timings = result.get("timings", {})
    return all(
        "commit" not in timings.get(str(count), {}).get(backend, EARLIER)
        for count, backends in _wanted(arguments, result["most"]).items()
        for backend in backends
    )


EARLIER = {"commit": "none"}
"""What is known where nothing was measured."""


def _wanted(arguments: argparse.Namespace, most: int) -> dict[int, list[str]]:
    """The backends to measure, by number of candidates; torch.compile takes long, and has numbers of its own."""
    counts = [count for count in arguments.candidates if count <= most]
    compiled = {count: ["inductor"] if count in arguments.compile else [] for count in counts}
    return {count: list(dict.fromkeys([*arguments.backends, *compiled[count]])) for count in counts}


def _run(entry: Entry, arguments: argparse.Namespace) -> dict[str, Any]:
    facts, subject = check(entry)
    result = {"library": entry.library, "name": entry.name, "commit": commit(), "most": entry.most, **facts}
    if subject is None or arguments.no_timings:
        return result
    stopwatch = Stopwatch(subject, arguments.threads, arguments.seconds)
    wanted = _wanted(arguments, entry.most)
    return {**result, "timings": {str(count): stopwatch.measure(count, names) for count, names in wanted.items()}}


def with_earlier(result: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """A result with the figures that only an earlier run measured, which say at which commit."""
    for count, row in before.get("timings", {}).items():
        here = result.setdefault("timings", {}).setdefault(count, {})
        for backend, found in row.items():
            here.setdefault(backend, {"commit": before["commit"], **found})
    return result


def _is_right(result: dict[str, Any]) -> bool:
    return result["outcome"] == Outcome.REFUSED.value or bool(result.get("identical"))


def _line(result: dict[str, Any]) -> str:
    if result["outcome"] != Outcome.CAPTURED.value:
        return f"{result['outcome']}: {result['reason']}"
    same = "identical" if result["identical"] else "NOT IDENTICAL: " + "; ".join(result["differences"])
    mflop = result["mflop"]
    ratios = [
        f"{count}: " + " ".join(f"{name} {found['ratio']:.2f}x" for name, found in row.items() if "ratio" in found)
        for count, row in result.get("timings", {}).items()
    ]
    return ", ".join([same, f"{mflop['before']:.1f} -> {mflop['after']:.1f} MFLOP ({result['plan']})", *ratios])


if __name__ == "__main__":
    main()
