"""torchrec: every dense module, over embedding tables of ours; and its whole models, over jagged tensors of ids.

A row is two tensors: numbers `dense` [R, 8] and ids `ids` [R, 26]; of both, some columns are context.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from corpus_models import CONTEXT, FIELDS, WIDTH, Entry, columns, draw_ids, vocabulary
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchrec.models import deepfm, dlrm
    from torchrec.models.experimental.transformerdlrm import InteractionTransformerArch
    from torchrec.modules.activation import SwishLayerNorm
    from torchrec.modules.crossnet import CrossNet, LowRankCrossNet, LowRankMixtureCrossNet, VectorCrossNet
    from torchrec.modules.deepfm import DeepFM, FactorizationMachine
    from torchrec.modules.embedding_configs import EmbeddingBagConfig
    from torchrec.modules.embedding_modules import EmbeddingBagCollection
    from torchrec.modules.mlp import MLP
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

NUMBERS, CONTEXT_NUMBERS = 8, 6
Build = Callable[..., nn.Module]

FLAT = (len(FIELDS) + 1) * WIDTH
SELECTORS = (
    columns("ids", [FIELDS.index(name) for name in CONTEXT]),
    columns("dense", list(range(CONTEXT_NUMBERS))),
)


class Assembled(nn.Module):
    """Embedding tables and a bottom MLP as in DLRM, an interaction, a top MLP."""

    def __init__(self, interaction: nn.Module, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(vocabulary(field), WIDTH) for field in FIELDS])
        self.bottom = dlrm.DenseArch(NUMBERS, [64, WIDTH])
        self.interaction = interaction
        self.top = dlrm.OverArch(width, [256, 128, 1])

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        sparse = torch.stack([table(ids[:, i]) for i, table in enumerate(self.tables)], dim=1)  # [R, F, D]
        scores: Tensor = self.top(self.interaction(self.bottom(dense), sparse))
        return scores


class Flat(nn.Module):
    """An interaction of one flat vector [R, (F + 1) * D]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        result: Tensor = self.module(torch.cat([dense, sparse.flatten(1)], dim=1))
        return result


class Listed(nn.Module):
    """An interaction of a list of embeddings, as torchrec's DeepFM takes them; its input beside its results."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        return torch.cat([dense, *(module([dense.unsqueeze(1), sparse]) for module in self.parts)], dim=1)


class Keyed(nn.Module):
    """An interaction that finds each embedding by the name of its field."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        result: Tensor = self.module(dense, dict(zip(FIELDS, sparse.unbind(1), strict=True)))
        return result


class Jagged(nn.Module):
    """A whole model, which takes its ids as a KeyedJaggedTensor: field by field, one id per row."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        lengths = torch.ones(ids.numel(), dtype=torch.int32, device=ids.device)
        features = KeyedJaggedTensor(list(FIELDS), ids.t().reshape(-1), lengths=lengths)
        scores: Tensor = self.model(dense, features)
        return scores


def entries() -> Iterator[Entry]:
    """Every dense module in a ranker of its own, then the whole models."""
    for name, build in _MODELS.items():
        yield Entry("torchrec", name, build, _rows, SELECTORS)
    # Its encoder is not batch_first, so that rows attend to rows: its cost grows with their square.
    yield Entry("torchrec", "InteractionTransformerArch", _transformer, _rows, SELECTORS, most=500)


def _rows(count: int) -> dict[str, Any]:
    return {"dense": torch.rand(count, NUMBERS), "ids": draw_ids(FIELDS, count)}


def _tables() -> EmbeddingBagCollection:
    return EmbeddingBagCollection(
        [
            EmbeddingBagConfig(name=name, feature_names=[name], num_embeddings=vocabulary(name), embedding_dim=WIDTH)
            for name in FIELDS
        ]
    )


def _pairs() -> nn.Module:
    fields = len(FIELDS)
    return Assembled(dlrm.InteractionArch(fields), WIDTH + fields * (fields + 1) // 2)


def _projections() -> nn.Module:
    left, right = (MLP(FLAT, [64, count * WIDTH]) for count in (8, 4))
    return Assembled(dlrm.InteractionProjectionArch(len(FIELDS), left, right), WIDTH + 8 * 4)


def _factorisation() -> nn.Module:
    deep = DeepFM(nn.Sequential(nn.Linear(FLAT, 64), nn.ReLU()))
    return Assembled(Listed(FactorizationMachine(), deep), WIDTH + 1 + 64)


def _keyed_factorisation() -> nn.Module:
    return Assembled(Keyed(deepfm.FMInteractionArch(FLAT, list(FIELDS), 64)), WIDTH + 64 + 1)


def _transformer() -> nn.Module:
    return Assembled(InteractionTransformerArch(len(FIELDS), WIDTH, nhead=4, ntransformer_layers=1), FLAT)


def _flat(module: Build, *arguments: Any, width: int = FLAT, **options: Any) -> Build:
    return lambda: Assembled(Flat(module(FLAT, *arguments, **options)), width)


def _whole(model: Build, *arguments: Any, **options: Any) -> Build:
    return lambda: Jagged(model(_tables(), NUMBERS, *arguments, **options))


_MODELS: dict[str, Build] = {
    "CrossNet": _flat(CrossNet, 3),
    "LowRankCrossNet": _flat(LowRankCrossNet, 3, 32),
    "VectorCrossNet": _flat(VectorCrossNet, 3),
    "LowRankMixtureCrossNet": _flat(LowRankMixtureCrossNet, 3, num_experts=4, low_rank=16),
    "InteractionArch": _pairs,
    "InteractionDCNArch": lambda: Assembled(
        dlrm.InteractionDCNArch(len(FIELDS), LowRankCrossNet(FLAT, 3, low_rank=32)), FLAT
    ),
    "InteractionProjectionArch": _projections,
    "DeepFM, FactorizationMachine": _factorisation,
    "FMInteractionArch": _keyed_factorisation,
    "MLP": _flat(MLP, [256, 128], width=128),
    "MLP:SwishLayerNorm": _flat(
        lambda width: nn.Sequential(MLP(width, [256], activation="swish_layernorm"), SwishLayerNorm([256])), width=256
    ),
    "DLRM": _whole(dlrm.DLRM, [64, WIDTH], [256, 128, 1]),
    "DLRM_DCN": _whole(dlrm.DLRM_DCN, [64, WIDTH], [256, 128, 1], 3, 32),
    "DLRM_Projection": _whole(
        dlrm.DLRM_Projection, [64, WIDTH], [256, 128, 1],
        interaction_branch1_layer_sizes=[64, 8 * WIDTH], interaction_branch2_layer_sizes=[64, 4 * WIDTH],
    ),
    "SimpleDeepFMNN": lambda: Jagged(deepfm.SimpleDeepFMNN(NUMBERS, _tables(), 64, 64)),
}  # fmt: skip
