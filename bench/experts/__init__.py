"""What an expert writes by hand: five models whose context part runs once per request, in plain torch.

Each is a module `expert(context, target)` over the same inputs as a ranker, made from a model of the zoo and its
weights, which are permuted, split and added up beforehand. They are the bar for what rankopt emits: no fold, layout or
order of operations that we know of is left out, and no second copy of an embedding table is made. Everywhere K and M
are the numbers of context and target fields, D their width, N the number of candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from experts.autoint import ExpertAutoInt
from experts.base import PREFIX, Expert
from experts.dcnv2 import ExpertDCNv2
from experts.din import ExpertDIN
from experts.dlrm import ExpertDLRM
from experts.mlcc import ExpertMLCC
from rankopt.zoo.autoint import AutoInt
from rankopt.zoo.dcnv2 import DCNv2
from rankopt.zoo.din import DIN
from rankopt.zoo.dlrm import DLRM
from rankopt.zoo.mlcc import MLCC

__all__ = ["PREFIX", "Expert", "expert"]

EXPERTS: dict[type[nn.Module], Callable[[Any, Sequence[str], int], Expert]] = {
    DLRM: ExpertDLRM,
    DCNv2: ExpertDCNv2,
    AutoInt: ExpertAutoInt,
    MLCC: ExpertMLCC,
    DIN: ExpertDIN,
}


def expert(model: nn.Module, context: Sequence[str], candidates: int) -> Expert | None:
    """The hand-written version for these context inputs; None where nobody has written one."""
    written = EXPERTS.get(type(model))
    if written is None:
        return None
    try:
        return written(model, context, candidates).eval().requires_grad_(False)
    except ValueError:  # another form of the model
        return None
