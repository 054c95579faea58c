"""Linear compression on a GPU, at the shape on which in-kernel broadcast (IKBO) was published.

    python bench/gpu/ikbo.py [--device cuda] [--quick]

    Y[b] = W_user E_user[user of b] + W_cand E_cand[b]      M = 433, N = 256, K_user = 1178, K_cand = 866,
                                                            1,024 candidates, 70 per user, 15 users

in fp16 and bf16: on tiled rows; split, at these odd widths; split, with the inner widths padded to a multiple of 8, as
the quick kernels want them; the same under torch.compile; and rankopt, a call per user, as a call serves one request. A
contender counts if its error against fp32 is not above that of the tiled product in the same type, or 1e-4.

Without a CUDA device this says so and does nothing. Writes bench/results/gpu_ikbo.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import RESULTS, write
from mari import Compression
from running import QUICK

import rankopt

FLOOR = 1e-4
ALIGNED = 8
"""Elements of two bytes to which the inner width of a product is padded."""

Call = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Batch:
    """Embeddings of users and of their candidates, and whose each candidate is; weights of both sides."""

    weight: Tensor
    user: Tensor
    candidate: Tensor
    owner: Tensor

    @classmethod
    def draw(cls, shape: tuple[int, int, int, int], rows: int, per_user: int, device: str) -> Batch:
        out, width, k_user, k_candidate = shape
        draw = torch.Generator(device).manual_seed(0)
        random = partial(torch.randn, generator=draw, device=device)
        owner = torch.arange(rows, device=device) // per_user
        return cls(
            random(out, k_user + k_candidate) / (k_user + k_candidate) ** 0.5,
            random(int(owner[-1]) + 1, k_user, width),
            random(rows, k_candidate, width),
            owner,
        )

    def to(self, dtype: torch.dtype) -> Batch:
        return Batch(self.weight.to(dtype), self.user.to(dtype), self.candidate.to(dtype), self.owner)

    def padded(self) -> Batch:
        """The same function with inner widths that are multiples of ALIGNED."""
        of_user, of_candidate = self.split()
        pads = [-side.shape[1] % ALIGNED for side in (of_user, of_candidate)]
        weights = [
            torch.nn.functional.pad(side, (0, pad)) for side, pad in zip((of_user, of_candidate), pads, strict=True)
        ]
        user, candidate = (
            torch.nn.functional.pad(side, (0, 0, 0, pad))
            for side, pad in zip((self.user, self.candidate), pads, strict=True)
        )
        return Batch(torch.cat(weights, dim=1), user, candidate, self.owner)

    def split(self) -> tuple[Tensor, Tensor]:
        """Weights of either side, each contiguous."""
        k_user = self.user.shape[1]
        return self.weight[:, :k_user].contiguous(), self.weight[:, k_user:].contiguous()

    def tiled(self) -> Tensor:
        return self.weight @ torch.cat([self.user[self.owner], self.candidate], dim=1)


def decomposed(of_user: Tensor, of_candidate: Tensor, batch: Batch) -> Tensor:
    """Both products apart, and the smaller one added where it belongs."""
    once = of_user @ batch.user
    return (of_candidate @ batch.candidate).add_(once[batch.owner])


def rankers(batch: Batch) -> Call:
    """rankopt, a call for every user's candidates."""
    out, k_user, k_candidate = batch.weight.shape[0], batch.user.shape[1], batch.candidate.shape[1]
    model = Compression(out, k_user, k_candidate).to(batch.weight).eval().requires_grad_(False)
    model.weight.copy_(batch.weight)
    parts = [batch.candidate[batch.owner == user] for user in range(len(batch.user))]
    requests = [({"user": u[None]}, {"candidate": c}) for u, c in zip(batch.user, parts, strict=True)]
    ranker = rankopt.optimize(model, *requests[0], candidates=len(parts[0]), verification=False)
    return lambda: torch.cat([ranker(*request) for request in requests])


def contenders(batch: Batch, compiled: bool) -> dict[str, Call]:
    padded = batch.padded()
    found: dict[str, Call] = {
        "tiled": batch.tiled,
        "split": partial(decomposed, *batch.split(), batch),
        "split, padded": partial(decomposed, *padded.split(), padded),
        "rankopt, a call per user": rankers(batch),
    }
    if compiled:
        found["split, padded, compiled"] = partial(torch.compile(decomposed), *padded.split(), padded)
    return found


def milliseconds(call: Call, device: str, seconds: float) -> dict[str, float]:
    """Median and quartiles of calls that are waited for."""
    times: list[float] = []
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(3):
        call()
    end = time.perf_counter() + seconds
    while len(times) < 8 or time.perf_counter() < end:
        wait()
        begin = time.perf_counter()
        call()
        wait()
        times.append((time.perf_counter() - begin) * 1e3)
    low, median, high = statistics.quantiles(times, n=4)
    return {"median": median, "low": low, "high": high}


def measure(shape: tuple[int, int, int, int], rows: int, per_user: int, device: str, seconds: float) -> dict[str, Any]:
    """Times and errors in both types."""
    exact = Batch.draw(shape, rows, per_user, device)
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    truth = exact.tiled()
    torch.backends.cuda.matmul.allow_tf32 = allowed
    found: dict[str, Any] = {}
    for dtype in (torch.float16, torch.bfloat16):
        batch = exact.to(dtype)
        calls = contenders(batch, device == "cuda")
        errors = {name: float((call().float() - truth).abs().max() / truth.abs().max()) for name, call in calls.items()}
        found[str(dtype).removeprefix("torch.")] = {
            name: {
                "error": errors[name],
                "accepted": errors[name] <= max(errors["tiled"], FLOOR),
                "milliseconds": milliseconds(call, device, seconds),
            }
            for name, call in calls.items()
        }
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=3.0, help="per contender and type")
    parser.add_argument("--quick", action="store_true", help="a small shape, written to build/bench")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is at hand: nothing is measured (torch.cuda.is_available() is false)")
        return
    shape = (8, 16, 21, 13) if options.quick else (433, 256, 1178, 866)
    rows, per_user = (10, 4) if options.quick else (1024, 70)
    with torch.no_grad():
        found = measure(shape, rows, per_user, options.device, 0.01 if options.quick else options.seconds)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "none"
    for dtype, of_type in found.items():
        for contender, facts in of_type.items():
            note = "" if facts["accepted"] else "  NOT ACCEPTED"
            took = facts["milliseconds"]["median"]
            print(f"{dtype:<9} {contender:<26} {took:8.3f} ms  error {facts['error']:.1e}{note}")
    folder = options.folder or (QUICK if options.quick else RESULTS)
    print(
        write(
            "gpu_ikbo",
            {"device": name, "shape": shape, "candidates": rows, "per user": per_user, "types": found},
            folder,
        )
    )


if __name__ == "__main__":
    main()
