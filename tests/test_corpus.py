"""A slice of the corpus, without timings; and the page that is written from its results."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.filterwarnings("ignore")  # what other people's models warn of is theirs


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a module of bench/."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module


@pytest.fixture
def check(bench: Callable[[str], Any]) -> Callable[[str], Any]:
    """The facts of the corpus about one model."""

    def checked(key: str) -> dict[str, Any]:
        models = bench("corpus_models")
        if not models.is_installed(key.partition("/")[0]):
            pytest.skip("the library is not installed: `make corpus` does it")
        (entry,) = [entry for entry in models.corpus() if entry.key == key]
        facts, _ = bench("corpus_checks").check(entry)
        return facts

    return checked


@pytest.mark.parametrize(
    ("key", "left"),
    [("deepctr-torch/DIN", 0.45), ("deepctr-torch/DCNMix", 0.75), ("torchrec/InteractionDCNArch", 0.6)],
)
def test_models_of_others_come_out_the_same_and_cheaper(key, left, check):
    facts = check(key)
    assert facts["outcome"] == "captured", facts
    assert facts["identical"], facts
    assert facts["mflop"]["after"] < left * facts["mflop"]["before"]


def test_a_model_that_branches_on_data_is_refused_with_its_line(check):
    facts = check("deepctr-torch/DIEN:GRU")
    assert facts["outcome"] == "refused"
    assert "branch depends on the value" in facts["reason"]
    assert facts["line"].startswith("deepctr_torch/models/dien.py:")


def test_the_page_is_that_of_the_results(bench):
    document = json.loads((ROOT / "bench/results/corpus.json").read_text())
    assert (ROOT / "docs/corpus.md").read_text() == bench("corpus_page").page(document)


def test_a_page_names_what_is_slower_and_what_went_wrong(bench):
    ratios = {"1": {"plan": "full", "eager": {"ratio": 0.5}}, "500": {"plan": "full", "eager": {"none": "it broke"}}}
    common = {"library": "lib", "commit": "abc", "most": 2000}
    same = {"identical": True, "float64_error": 1e-16, "float32_ratio": 1.0, "differences": []}
    captured = {**common, **same, "outcome": "captured", "mflop": {"before": 8.0, "after": 2.0}, "plan": "full"}
    results = {
        "lib/slow": {**captured, "name": "slow", "timings": ratios},
        "lib/wrong": {**captured, "name": "wrong", "identical": False},
        "lib/jagged": {**common, "outcome": "refused", "name": "jagged", "reason": "a size", "line": "lib/a.py:3"},
        "lib/broken": {**common, "outcome": "failed", "name": "broken", "reason": "KeyError: x"},
    }
    machine = {"processor": "a processor", "threads": 2, "python": "3.11", "versions": {"torch": "2.13"}}
    page = bench("corpus_page").page({"machine": machine, "results": results})
    assert "4 models: 2 captured, 1 refused for a documented reason, 1 failed. Identical: 1 of 2." in page
    assert "eager: 1 of 1 ratios are below 0.97, the lowest is 0.50." in page
    assert "| slow | 1e-16 | 1.0x | 8.0 -> 2.0 | **0.50** / - |" in page
    assert "| wrong **not identical** |" in page
    assert "| lib/jagged | a size | `lib/a.py:3` |" in page
    assert "| lib/broken | KeyError: x |" in page


def test_what_only_an_earlier_run_measured_is_kept_and_says_when(bench):
    earlier = {"commit": "old", "timings": {"1": {"eager": {"ratio": 1.0}, "inductor": {"ratio": 2.0}}}}
    earlier["timings"]["500"] = {"eager": {"ratio": 3.0}}
    result = {"commit": "new", "timings": {"1": {"eager": {"ratio": 1.5}}, "10": {"eager": {"ratio": 1.5}}}}
    timings = bench("corpus").with_earlier(result, earlier)["timings"]
    assert timings["1"] == {"eager": {"ratio": 1.5}, "inductor": {"ratio": 2.0, "commit": "old"}}
    assert timings["10"] == {"eager": {"ratio": 1.5}}
    assert timings["500"] == {"eager": {"ratio": 3.0, "commit": "old"}}
