"""The experiments of others with linear layers: MaRI's single layer, and the shape of IKBO, in-kernel broadcast.

    python bench/mari.py [--only mari ikbo] [--threads 2 1] [--seconds 300]

MaRI: one fused layer over user and item columns, of which the user has ten times as many (r = 10), up to 2,000
candidates; once with all columns of a side together ("neat") and once with fields of both that alternate
("fragmented"). Against it the layer split by hand: neat, and fragment by fragment as a rewrite without a permutation of
the weights has to do it. MaRI reports 1.58x for the layer, 10.95x fewer FLOPs, and a loss of 38% from fragments; ours
must lose at most 5%.

IKBO: Y[b] = W_user E_user[user of b] + W_cand E_cand[b], with M = 433, N = 256, K_user = 1178, K_cand = 866. Of its
1,024 candidates of 15 users, 70 of one user: a call serves one request. `make bench-gpu` has the whole batch.

Writes bench/results/mari.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from contenders import Scores, mflop
from headline import ratios_of
from running import Clock, Run, heap_of, warm_heap
from torch import Tensor, nn

import rankopt

COUNTS = (50, 100, 200, 500, 1000, 2000)
RATIO, FIELDS = 10, 10
M, N, K_USER, K_CAND, PER_USER = 433, 256, 1178, 866, 70


class Fused(nn.Module):
    """One linear layer over the columns of both sides, in this order of equal pieces of either."""

    def __init__(self, user: int, item: int, out: int, fragments: int) -> None:
        super().__init__()
        self.fragments = fragments
        self.layer = nn.Linear(user + item, out)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        pieces = zip(user.chunk(self.fragments, dim=1), item.chunk(self.fragments, dim=1), strict=True)
        return self.layer(torch.cat([piece for pair in pieces for piece in pair], dim=1))


def by_hand(model: Fused, user: Tensor, item: Tensor) -> Tensor:
    """The same, split; with several fragments, a product for each."""
    widths = user.shape[1] // model.fragments, item.shape[1] // model.fragments
    once, hidden, start = model.layer.bias, None, 0
    for u, i in zip(user.chunk(model.fragments, dim=1), item.chunk(model.fragments, dim=1), strict=True):
        of_user = model.layer.weight[:, start : start + widths[0]]
        of_item = model.layer.weight[:, start + widths[0] : start + sum(widths)]
        start += sum(widths)
        once = torch.addmm(once, u, of_user.t())
        hidden = i @ of_item.t() if hidden is None else hidden.addmm_(i, of_item.t())
    assert hidden is not None
    return hidden.add_(once)


def mari(item: int, out: int, counts: Sequence[int], clock: Clock) -> dict[str, Any]:
    """Times by number of candidates, neat and fragmented."""
    found: dict[str, Any] = {}
    warm_heap()
    for number, count in enumerate(counts):
        torch.manual_seed(0)
        calls: dict[str, Scores] = {}
        flops: dict[str, float] = {}
        user, items = torch.randn(1, RATIO * item), torch.randn(count, item)
        tiled = user.expand(count, -1).contiguous()
        for layout, fragments in (("neat", 1), ("fragmented", FIELDS)):
            model = Fused(RATIO * item, item, out, fragments).eval().requires_grad_(False)
            ranker = rankopt.optimize(
                model, {"user": user}, {"item": items}, candidates=count, threads=torch.get_num_threads()
            )
            torch.testing.assert_close(
                ranker({"user": user}, {"item": items}), model(tiled, items), rtol=1e-3, atol=1e-4
            )
            torch.testing.assert_close(by_hand(model, user, items), model(tiled, items), rtol=1e-3, atol=1e-4)
            calls[f"{layout}, original"] = partial(model, tiled, items)
            calls[f"{layout}, by hand"] = partial(by_hand, model, user, items)
            calls[f"{layout}, rankopt"] = partial(ranker, {"user": user}, {"item": items})
            flops |= {name: mflop(call) for name, call in calls.items() if name.startswith(layout)}
        with torch.no_grad():
            times = heap_of(calls, clock.share(len(counts) - number, 0.5))
        median = {name: timing.median for name, timing in times.items()}
        found[str(count)] = {
            "milliseconds": times,
            "mflop": flops,
            "gain": {name: median[f"{name}, original"] / median[f"{name}, rankopt"] for name in ("neat", "fragmented")},
            "loss": {
                name: median[f"fragmented, {name}"] / median[f"neat, {name}"] - 1
                for name in ("original", "by hand", "rankopt")
            },
        }
    last = list(found.values())[-1]
    return {"at": found, "sentence": f"gain {last['gain']['neat']:.2f}x, fragments cost {last['loss']['rankopt']:+.1%}"}


class Compression(nn.Module):
    """Linear compression of embeddings: the features of user and candidate, [R, K, N], mixed to [R, M, N]."""

    def __init__(self, out: int, user: int, candidate: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, user + candidate) / (user + candidate) ** 0.5)

    def forward(self, user: Tensor, candidate: Tensor) -> Tensor:
        return self.weight @ torch.cat([user, candidate], dim=1)


def ikbo(shape: tuple[int, int, int, int], count: int, clock: Clock) -> dict[str, Any]:
    """One user's candidates."""
    out, width, k_user, k_candidate = shape
    torch.manual_seed(0)
    model = Compression(out, k_user, k_candidate).eval().requires_grad_(False)
    user, candidate = torch.randn(1, k_user, width), torch.randn(count, k_candidate, width)
    tiled = user.expand(count, -1, -1).contiguous()
    ranker = rankopt.optimize(
        model, {"user": user}, {"candidate": candidate}, candidates=count, threads=torch.get_num_threads()
    )
    weights = model.weight[:, :k_user].contiguous(), model.weight[:, k_user:].contiguous()
    calls: dict[str, Scores] = {
        "original": partial(model, tiled, candidate),
        "by hand": lambda: (weights[1] @ candidate).add_(weights[0] @ user),
        "rankopt": partial(ranker, {"user": user}, {"candidate": candidate}),
    }
    for name, call in calls.items():
        torch.testing.assert_close(call(), calls["original"](), rtol=1e-3, atol=1e-3, msg=name)
    with torch.no_grad():
        times = {"eager": heap_of(calls, clock.share(1), least=3)}
    ratios = ratios_of(times)
    return {
        "candidates": count,
        "mflop": {name: mflop(call) for name, call in calls.items()},
        "milliseconds": times,
        "ratios": ratios,
        "sentence": ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios["eager"].items()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    run = Run.of("mari", __doc__, arguments)
    quick = run.options.quick
    subjects: dict[str, Any] = {}
    for threads in run.options.threads[:1] if quick else run.options.threads:
        for item, out in ((20, 16),) if quick else ((100, 256), (200, 512)):
            measure = partial(mari, item, out, COUNTS[:1] if quick else COUNTS)
            subjects[f"mari, {RATIO * item}+{item} -> {out}, threads={threads}"] = threads, measure
        shape = (8, 16, 24, 16) if quick else (M, N, K_USER, K_CAND)
        subjects[f"ikbo, threads={threads}"] = threads, partial(ikbo, shape, 4 if quick else PER_USER)
    run.measure(subjects)


if __name__ == "__main__":
    main()
