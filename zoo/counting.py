"""How much of each model is done once per request: FLOPs of its interaction layer, and of all of it, on one shape.

Nothing is trained or timed: the work of the programs is counted, elementwise work included. A model is counted as it is
written, split (every sum and product into what the context does and the rest, the way of the paper on rank-aware
decomposition), and with all laws, of whose programs the one with the least work stands here.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor, nn

from rankopt.cost import Flops
from rankopt.pipeline import capture_with_roles
from rankopt.plan import SPLIT, Plan, alternatives, interpret
from rankopt.version import __version__
from rankopt.zoo.errors import ZooError
from rankopt.zoo.fields import Field, Schema
from rankopt.zoo.files import write_whole
from rankopt.zoo.registry import ENTRIES

CONTEXT, TARGET, CANDIDATES, HISTORY = 24, 8, 1000, 50
"""Fields of either role, every fourth one of the target; where a model needs histories there are two of them."""

VOCABULARY = 50
ROWS = 7


@dataclass(frozen=True, slots=True)
class Family:
    """Where the interaction layer of a model ends, and what the paper says of it (nothing, where it does not name it).

    `perceptron` is what reads the interaction layer, or stands beside it, and is then left out; a model without a name
    there is all interaction, or has none.
    """

    model: str
    perceptron: str = ""
    position: Literal["behind", "beside"] = "behind"
    paper: str = ""


FAMILIES = (
    Family("dnn", paper="all"),
    Family("wide_and_deep"),
    Family("two_tower"),
    Family("fm", paper="all"),
    Family("ffm"),
    Family("fwfm"),
    Family("afm"),
    Family("deepfm", "deep", "beside", paper="all"),
    Family("nfm", "deep"),
    Family("pnn_inner", "head"),
    Family("pnn_outer", "head"),
    Family("dlrm", "top", paper="all"),
    Family("dcn", "deep", "beside"),
    Family("dcnv2", "head", paper="first layer only"),
    Family("dcnv2_lowrank", "head", paper="first layer only"),
    Family("dcnv2_mix", "head"),
    Family("gdcn", "deep"),
    Family("rdcn", "head", paper="every layer"),
    Family("rdcn_target_stream", "head", paper="every layer"),
    Family("xdeepfm", "deep", "beside", paper="partial"),
    Family("fibinet", "head", paper="partial"),
    Family("masknet_serial", "head"),
    Family("masknet_parallel", "head"),
    Family("finalmlp"),
    Family("ppnet"),
    Family("lhuc"),
    Family("autoint", "output", paper="first layer only"),
    Family("rank_aware_attention", "output", paper="every layer"),
    Family("interhat", "head"),
    Family("dhen", "head", paper="module by module"),
    Family("wukong", "head"),
    Family("rankmixer", "head"),
    Family("infnet", "head"),
    Family("mlcc", "head"),
    Family("mc_mlcc", "head"),
    Family("din", "head", paper="no path of context alone"),
    Family("bst", "head"),
    Family("transact", "head"),
)


class Interaction(nn.Module):
    """A model without its perceptron: what that reads, or the logits without its own."""

    def __init__(self, model: nn.Module, family: Family) -> None:
        super().__init__()
        self.model, self.family = model, family

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """The logits [R] of the rest, or the input [R, ...] of the perceptron."""
        perceptron = self.model.get_submodule(self.family.perceptron)
        read: list[Tensor] = []
        # What the hooks leave unread is no part of the captured program.
        hooks = (
            perceptron.register_forward_pre_hook(lambda _, args: read.append(args[0])),
            perceptron.register_forward_hook(lambda _, args, out: args[0].new_zeros(out.shape)),
        )
        try:
            logits: Tensor = self.model(features)
        finally:
            for hook in hooks:
                hook.remove()
        return read[-1] if self.family.position == "behind" else logits


def run(models: Sequence[str], output: Path, echo: Callable[[str], None]) -> None:
    """Counts the models, all by default, and writes the file after each; others keep their entry."""
    runs: dict[str, Any] = {run["model"]: run for run in read(output)} if output.exists() else {}
    for family in FAMILIES:
        if models and family.model not in models:
            continue
        runs[family.model] = facts = count(family)
        shape = {"context": CONTEXT, "target": TARGET, "candidates": CANDIDATES, "history": HISTORY}
        ordered = [runs[other.model] for other in FAMILIES if other.model in runs]
        text = json.dumps({"rankopt": __version__, "shape": shape, "runs": ordered}, indent=1)
        write_whole(output, writing(text))
        echo(f"{family.model}: {facts['whole']['before'] / 1e3:,.1f} -> {facts['whole']['least'] / 1e3:,.1f} kFLOP")


def writing(text: str) -> Callable[[BinaryIO], object]:
    return lambda file: file.write(text.encode() + b"\n")


def count(family: Family) -> dict[str, Any]:
    """An entry: work per candidate of the whole model, and of its interaction layer where it has one."""
    schema = shape(ENTRIES[family.model].needs_history)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ENTRIES[family.model].model(schema).eval()
    facts: dict[str, Any] = {"model": family.model, "paper": family.paper, "whole": programs(model, schema)}
    if family.perceptron:
        facts["interaction"] = programs(Interaction(model, family).eval(), schema)
    return facts


def shape(histories: bool) -> Schema:
    """Fields of the one role among those of the other, as in real models."""
    every = (CONTEXT + TARGET) // TARGET
    plain = [Field(f"field_{place}", VOCABULARY) for place in range(CONTEXT + TARGET)]
    target = [field.name for place, field in enumerate(plain) if place % every == every - 1]
    past = [Field(f"past_{name}", VOCABULARY, history=HISTORY, of=name) for name in target[:2]] if histories else []
    fields = (*plain, *past)
    return Schema(fields, tuple(field.name for field in fields if field.name not in target), tuple(target))


def programs(model: nn.Module, schema: Schema) -> dict[str, Any]:
    """Work per candidate: as the model is written, split, the least of all programs, and as rankopt would serve it."""
    draw = torch.Generator().manual_seed(0)
    rows = {
        field.name: torch.randint(1, field.vocabulary, (ROWS, *field.shape), generator=draw) for field in schema.fields
    }
    context = [f"features.{name}" for name in schema.context]
    captured, roles = capture_with_roles(model, context, None, {"features": rows})
    plans = alternatives(captured, roles, CANDIDATES)
    return {
        "before": next(work(plan) for plan in plans if plan.policy.unchanged),
        "split": work(interpret(captured, roles, CANDIDATES, SPLIT)),
        "least": min(map(work, plans)),
        "served": work(plans[0]),
    }


def work(plan: Plan) -> float:
    """FLOPs per candidate, with elementwise work."""
    flops: Flops = plan.flops
    return (flops.at(CANDIDATES) + flops.elementwise_at(CANDIDATES)) / CANDIDATES


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of the file.

    Raises:
        ZooError: it is none of `run`.
    """
    try:
        return [run for run in json.loads(path.read_text())["runs"] if run["model"] and run["whole"]["before"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ZooError(
            f"expected counted models in {path}, found none: {error!r}.\n  fix: delete it, and run `rankopt zoo count`"
        ) from error
