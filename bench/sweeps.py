"""Where does it pay, and where not? Over candidates, fields, width, and requests.

    python bench/sweeps.py [--only "candidates, headline/dlrm" ...] [--threads 2 1] [--seconds 900]

- candidates: 1 to 5,000, each ranker optimised for the number at which it is measured, and one for 512 at all of them;
  eager and ONNX Runtime;
- fields of context, fields of target, width: one at a time, from 20, 6 and 16, at 512 candidates, eager;
- requests: 1, 4 and 16 of 100 candidates each. The original scores them as one batch of rows, or one by one; a ranker
  takes one request per call.

One process per model and axis, warm heap. Writes bench/results/sweeps.json.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from contenders import Scene, Scores, as_entry, entries
from headline import ratios_of
from models import subject
from running import Clock, Run, heap_of, warm_heap
from serving import OnnxCall

CANDIDATES = (1, 10, 50, 100, 200, 500, 1000, 2000, 5000)
MODELS = ("headline/dlrm", "headline/dcnv2", "headline/autoint", "headline/mlcc", "zoo/din", "zoo/dnn", "zoo/deepfm")
SWEPT = ("dlrm", "dcnv2", "autoint", "mlcc")
AXES = {"context": (2, 6, 12, 20, 40, 80), "target": (1, 2, 6, 12, 24, 48), "width": (4, 8, 16, 32, 64, 128)}
REQUESTS, OF_EACH = (1, 4, 16), 100
WHO = ("original", "rankopt")


def candidates(key: str, counts: Sequence[int], clock: Clock) -> dict[str, Any]:
    """Times by number of candidates."""
    entry, threads = entries()[key], torch.get_num_threads()
    fixed = Scene.of(entry, 512).ranker("rankopt")
    sessions: dict[str, OnnxCall] = {}
    found: dict[str, Any] = {}
    warm_heap()
    for number, count in enumerate(counts):
        scene = Scene.of(entry, count)
        share = clock.share(len(counts) - number, 0.5) / 2
        calls = who(scene) | {"rankopt for 512": partial(fixed, scene.context, scene.target)}
        with torch.no_grad():
            times = {"eager": heap_of(calls, share, least=3)}
            times["onnxruntime"] = heap_of(onnxruntime(scene, sessions, threads), share, least=3)
        found[str(count)] = {"milliseconds": times, "ratios": ratios_of(times), "plan": scene.plans[0].policy.name}
    return {"axis": "candidates", "model": key, "at": found, "sentence": in_short(found)}


def onnxruntime(scene: Scene, sessions: dict[str, OnnxCall], threads: int) -> dict[str, Scores]:
    """Both under ONNX Runtime; what was exported for another number of candidates is used again where it fits."""
    found: dict[str, Scores] = {}
    for name in WHO:
        module, inputs = scene.exported(name)
        assert module is not None
        code = name if name == "original" else module.ranker.stages.whole.code
        if code not in sessions:
            sessions[code] = scene.session(module, inputs, threads)
        found[name] = partial(sessions[code], inputs)
    return found


def who(scene: Scene) -> dict[str, Scores]:
    """The two that are compared in eager calls."""
    return {
        "original": partial(scene.model, scene.features),
        "rankopt": partial(scene.ranker("rankopt"), scene.context, scene.target),
    }


def shape(model: str, axis: str, values: Sequence[int], count: int, clock: Clock) -> dict[str, Any]:
    """Times by one of the sizes of a model."""
    found: dict[str, Any] = {}
    warm_heap()
    for number, value in enumerate(values):
        size = {"context": 20, "target": 6, "width": 16} | {axis: value}
        made = subject(f"{model} {axis}={value}", model, size["context"], size["target"], embedding_dim=size["width"])
        scene = Scene.of(as_entry(made), count)
        with torch.no_grad():
            times = {"eager": heap_of(who(scene), clock.share(len(values) - number, 0.5), least=3)}
        found[str(value)] = {"milliseconds": times, "ratios": ratios_of(times), "plan": scene.plans[0].policy.name}
    return {"axis": axis, "model": model, "at": found, "sentence": in_short(found)}


def requests(key: str, counts: Sequence[int], each: int, clock: Clock) -> dict[str, Any]:
    """Times of several requests together."""
    entry = entries()[key]
    first = Scene.of(entry, each)
    ranker = first.ranker("rankopt")
    found: dict[str, Any] = {}
    warm_heap()
    for number, count in enumerate(counts):
        scenes = [first, *(Scene.of(entry, each, seed) for seed in range(1, count))]
        batch = {name: torch.cat([scene.features[name] for scene in scenes]) for name in first.features}
        calls: dict[str, Scores] = {
            "original": partial(first.model, batch),
            "original, one by one": partial(one_by_one, [partial(first.model, scene.features) for scene in scenes]),
            "rankopt": partial(one_by_one, [partial(ranker, scene.context, scene.target) for scene in scenes]),
        }
        with torch.no_grad():
            times = {"eager": heap_of(calls, clock.share(len(counts) - number, 0.5), least=3)}
        found[str(count)] = {"milliseconds": times, "ratios": ratios_of(times)}
    return {"axis": "requests", "model": key, "candidates of each": each, "at": found, "sentence": in_short(found)}


def one_by_one(calls: Sequence[Scores]) -> list[Any]:
    """Several requests, a call each."""
    return [call() for call in calls]


def in_short(found: dict[str, Any]) -> str:
    """The ratios of a sweep in one line."""
    ratios = {value: {b: r["rankopt"] for b, r in at["ratios"].items()} for value, at in found.items()}
    return ", ".join(f"{value}: " + "/".join(f"{r:.2f}" for r in of.values()) for value, of in ratios.items())


def main(arguments: Sequence[str] | None = None) -> None:
    run = Run.of("sweeps", __doc__, arguments)
    quick = run.options.quick
    subjects: dict[str, tuple[int, Callable[[Clock], dict[str, Any]]]] = {}
    for threads in run.options.threads[:1] if quick else run.options.threads:
        for key in ("zoo/dnn",) if quick else MODELS:
            measure = partial(candidates, key, (1, 10) if quick else CANDIDATES)
            subjects[f"candidates, {key}, threads={threads}"] = threads, measure
        for key in ("zoo/dnn",) if quick else MODELS[:5]:
            measure = partial(requests, key, REQUESTS[:2] if quick else REQUESTS, 10 if quick else OF_EACH)
            subjects[f"requests, {key}, threads={threads}"] = threads, measure
        for axis, values in AXES.items():
            for model in ("dlrm",) if quick else SWEPT:
                measure = partial(shape, model, axis, values[:1] if quick else values, 16 if quick else 512)
                subjects[f"{axis}, {model}, threads={threads}"] = threads, measure
    run.measure(subjects)


if __name__ == "__main__":
    main()
