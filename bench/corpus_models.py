"""The corpus: models that other people wrote, and the zoo's, at one realistic size.

20 context and 6 target fields that interleave, width 16, vocabularies of 100 to 1,000 ids, histories of 20 items. With
every model come random rows for it and the selectors that say which of its inputs belong to the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from models import field_order
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CONTEXT = tuple(f"c{i}" for i in range(20))
TARGET = tuple(f"t{i}" for i in range(6))
FIELDS = tuple(field_order(CONTEXT, TARGET))
WIDTH = 16
HISTORY = 20

LIBRARIES = {"deepctr-torch": ("deepctr_torch",), "torchrec": ("torchrec", "fbgemm_gpu")}
"""Other people's libraries, and the modules without which they cannot be imported."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model: how it is built, random rows for it, and what of them is context."""

    library: str
    name: str
    build: Callable[[], nn.Module]
    rows: Callable[[int], dict[str, Any]]
    """The keywords of a call on that many rows, drawn at random."""
    context: tuple[str, ...]
    """Selectors."""
    most: int = 1 << 20
    """Candidates beyond which it is not measured."""

    @property
    def key(self) -> str:
        """The name by which the corpus knows it."""
        return f"{self.library}/{self.name}"

    def model(self) -> nn.Module:
        """The model in eval mode with weights that make all of its parts matter; the same at every call."""
        torch.manual_seed(0)
        model = self.build().eval()
        spread_weights(model)
        return model


def vocabulary(field: str) -> int:
    """The number of ids of a field: between 100 and 1,000."""
    return 100 + 36 * FIELDS.index(field)


def draw_ids(fields: tuple[str, ...], rows: int) -> Tensor:
    """Random ids [rows, fields], each within its vocabulary. 0 is left out: it is padding in some models."""
    return torch.stack([torch.randint(1, vocabulary(field), (rows,)) for field in fields], dim=1)


def columns(name: str, wanted: list[int]) -> str:
    """The selector of these columns of a packed input."""
    return f"{name}[:, {wanted}]"


@torch.no_grad()
def spread_weights(model: nn.Module) -> None:
    """Draws all weights at the scale of trained ones: some libraries initialise them so small that scores are equal."""
    norms = {id(weight) for m in model.modules() if isinstance(m, (_BatchNorm, nn.LayerNorm)) for weight in [m.weight]}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
    for weight in model.parameters():
        if id(weight) in norms:
            weight.uniform_(0.5, 1.5)
        elif id(weight) in tables:
            weight.normal_(std=0.3)
        else:
            weight.normal_(std=max(weight.shape[-2:]) ** -0.5 if weight.dim() > 1 else 0.1)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_var is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)


def is_installed(library: str) -> bool:
    """Whether a library can be imported."""
    return all(find_spec(module) is not None for module in LIBRARIES[library])


def corpus() -> Iterator[Entry]:
    """All entries whose library is installed."""
    from corpus_zoo import entries as zoo_entries

    yield from zoo_entries()
    if is_installed("deepctr-torch"):
        from corpus_deepctr import entries as deepctr_entries

        yield from deepctr_entries()
    if is_installed("torchrec"):
        from corpus_torchrec import entries as torchrec_entries

        yield from torchrec_entries()
