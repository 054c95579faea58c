"""What there is to say about a model before it is trained."""

import hashlib
import sys
from dataclasses import fields
from functools import cache

import torch
from torch import nn

from rankopt.zoo.fields import Field, Schema
from rankopt.zoo.registry import Entry

PUBLIC_SHAPES = {"Criteo": 39, "Avazu": 22, "TaobaoAds": 17}
"""Numbers of fields of the data sets of public benchmarks."""


def describe(entry: Entry) -> str:
    """The equations of a model, its configuration, and its parameters without the embedding tables."""
    config = entry.config
    lines = [(sys.modules[type(config).__module__].__doc__ or "").strip(), "", f"{entry.name}: {entry.paper}"]
    lines += [f"  {field.name} = {getattr(config, field.name)!r}" for field in fields(config)]
    lines += ["", "parameters beside the embedding tables"]
    lines += [f"  {name:10} {slots} fields  {parameters(entry, slots):>12,}" for name, slots in PUBLIC_SHAPES.items()]
    return "\n".join(lines)


def parameters(entry: Entry, slots: int) -> int:
    """Of a model over that many plain fields, half of them context; and a history of 20 items if it needs one."""
    names = [f"slot_{i}" for i in range(slots)]
    plain = [Field(name, 4) for name in names]
    history = [Field("history", 4, history=20, of=names[-1])] if entry.needs_history else []
    context = (*names[: slots // 2], *(field.name for field in history))
    with torch.random.fork_rng(devices=[]):
        model = entry.model(Schema((*plain, *history), context, tuple(names[slots // 2 :])))
    return dense_parameters(model)


def dense_parameters(model: nn.Module) -> int:
    """Parameters of a model without those of its embedding tables."""
    tables = sum(t.weight.numel() for t in model.modules() if isinstance(t, nn.Embedding))
    return sum(parameter.numel() for parameter in model.parameters()) - tables


PROBED = Schema(
    (Field("user", 7), Field("genres", 5, length=2), Field("item", 7), Field("seen", 7, history=3, of="item")),
    context=("user", "seen"),
    target=("genres", "item"),
)
"""Fields of every kind and of either role."""


@cache
def function(entry: Entry) -> str:
    """A short name of what a model computes, however it is spelt: made of its scores with weights that are not drawn.

    Another function has another name; a faster spelling of the same one, or another initialisation, has not.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = entry.model(PROBED).double().eval()
        for place, weight in enumerate(model.parameters()):
            weight.copy_(torch.arange(weight.numel()).add(place).sin().mul(0.3).view_as(weight))
        scores = model({field.name: probe(field) for field in PROBED.fields})
    return hashlib.sha256(" ".join(f"{score:.6g}" for score in scores.tolist()).encode()).hexdigest()[:12]


def probe(field: Field, rows: int = 5) -> torch.Tensor:
    """Some ids of a field, no two rows alike."""
    count = rows * torch.Size(field.shape).numel()
    return (torch.arange(count).view(rows, *field.shape) + len(field.name)) % field.vocabulary
