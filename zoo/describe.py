"""What there is to say about a model before it is trained."""

import sys
from dataclasses import fields

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
