"""deepctr-torch: every model, in every form that its options give.

All features of a row stand in one float tensor X [R, columns]; a field is a column of it, a history a few columns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from corpus_models import FIELDS, HISTORY, TARGET, WIDTH, Entry, columns, draw_ids, vocabulary
from torch import Tensor, nn

# Importing the package would ask the package index for a newer version, which `requests` would have to be there for.
_without_version_check = ModuleType("deepctr_torch.utils")
_without_version_check.check_version = lambda version: None
sys.modules.setdefault("deepctr_torch.utils", _without_version_check)

from deepctr_torch import models  # noqa: E402
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat, build_input_features  # noqa: E402

DENSE_CONTEXT, DENSE_TARGET = ("n0", "n1"), ("n2",)
ITEM, CATEGORY = "t0", "t1"  # the fields whose past values are the history

IDS = [SparseFeat(name, vocabulary(name), WIDTH) for name in FIELDS]
NUMBERS = [DenseFeat(name) for name in (*DENSE_CONTEXT, *DENSE_TARGET)]


def _history(field: str, combiner: str = "mean", length_name: str | None = "length") -> VarLenSparseFeat:
    past = SparseFeat(f"hist_{field}", vocabulary(field), WIDTH, embedding_name=field)
    return VarLenSparseFeat(past, HISTORY, combiner, length_name)


HISTORIES = [_history(ITEM), _history(CATEGORY)]
POOLED = [_history("t0", "mean"), _history("t1", "sum", None), _history("t2", "max", None)]

Build = Callable[[list[Any]], nn.Module]


def entries() -> Iterator[Entry]:
    """Every model, with the features that it takes."""
    for name, build in _FIELD_MODELS.items():
        yield _entry(name, build, IDS if name in _IDS_ALONE else [*IDS, *NUMBERS])
    yield _entry("WDL:pooled histories", _wide_and_deep(models.WDL), [*IDS, *NUMBERS, *POOLED])
    for name, build in _HISTORY_MODELS.items():
        yield _entry(name, build, [*IDS, *NUMBERS, *HISTORIES])


def _wide_and_deep(model: Callable[..., nn.Module], **options: Any) -> Build:
    """Models with a linear part beside the deep one, which both read all features."""
    return lambda features: model(features, features, **options)


def _deep(model: Callable[..., nn.Module], *arguments: Any, **options: Any) -> Build:
    return lambda features: model(features, *arguments, **options)


_FIELD_MODELS: dict[str, Build] = {
    "WDL": _wide_and_deep(models.WDL),
    "WDL:batch norm": _wide_and_deep(models.WDL, dnn_use_bn=True),
    "DeepFM": _wide_and_deep(models.DeepFM),
    "xDeepFM": _wide_and_deep(models.xDeepFM),
    "AFM": _wide_and_deep(models.AFM),
    "DIFM": _wide_and_deep(models.DIFM),
    "IFM": _wide_and_deep(models.IFM),
    "AutoInt": _wide_and_deep(models.AutoInt),
    "DCN:vector": _wide_and_deep(models.DCN, cross_parameterization="vector"),
    "DCN:matrix": _wide_and_deep(models.DCN, cross_parameterization="matrix"),
    "DCNMix": _wide_and_deep(models.DCNMix),
    "FiBiNET:all": _wide_and_deep(models.FiBiNET, bilinear_type="all"),
    "FiBiNET:each": _wide_and_deep(models.FiBiNET, bilinear_type="each"),
    "FiBiNET:interaction": _wide_and_deep(models.FiBiNET, bilinear_type="interaction"),
    "NFM": _wide_and_deep(models.NFM),
    "MLR": _deep(models.MLR),
    "ONN": _wide_and_deep(models.ONN),
    "PNN:inner": _deep(models.PNN),
    "PNN:outer mat": _deep(models.PNN, use_inner=False, use_outter=True, kernel_type="mat"),
    "PNN:outer vec": _deep(models.PNN, use_inner=False, use_outter=True, kernel_type="vec"),
    "PNN:outer num": _deep(models.PNN, use_inner=False, use_outter=True, kernel_type="num"),
    "PNN:both": _deep(models.PNN, use_inner=True, use_outter=True),
    "CCPM": _wide_and_deep(models.CCPM),
    "AFN": _wide_and_deep(models.AFN),
    "SharedBottom": _deep(models.SharedBottom),
    "ESMM": _deep(models.ESMM),
    "MMOE": _deep(models.MMOE),
    "PLE": _deep(models.PLE),
}

_IDS_ALONE = ("AFM", "CCPM")
"""The models that refuse features without an embedding."""

_HISTORY_MODELS: dict[str, Build] = {
    "DIN": _deep(models.DIN, [ITEM, CATEGORY]),
    "DIN:sigmoid": _deep(models.DIN, [ITEM, CATEGORY], att_activation="sigmoid"),
    "DIN:softmax": _deep(models.DIN, [ITEM, CATEGORY], att_weight_normalization=True),
    "DIEN:GRU": _deep(models.DIEN, [ITEM, CATEGORY], gru_type="GRU"),
    "DIEN:AIGRU": _deep(models.DIEN, [ITEM, CATEGORY], gru_type="AIGRU"),
    "DIEN:AGRU": _deep(models.DIEN, [ITEM, CATEGORY], gru_type="AGRU"),
    "DIEN:AUGRU": _deep(models.DIEN, [ITEM, CATEGORY], gru_type="AUGRU"),
}


def _entry(name: str, build: Build, features: list[Any]) -> Entry:
    places = build_input_features(features)
    of_target = {*TARGET, *DENSE_TARGET}
    context = [i for field, (start, end) in places.items() if field not in of_target for i in range(start, end)]
    return Entry("deepctr-torch", name, partial(build, features), partial(_rows, features), (columns("X", context),))


def _rows(features: list[Any], count: int) -> dict[str, Tensor]:
    """Random rows of the packed tensor; a history is filled up to its length, 0 stands behind it."""
    length = torch.randint(1, HISTORY + 1, (count, 1))
    values: list[Tensor] = []
    named: set[str] = set()
    for feature in features:
        if isinstance(feature, SparseFeat):
            values.append(draw_ids((feature.name,), count))
        elif isinstance(feature, DenseFeat):
            values.append(torch.rand(count, feature.dimension))
        else:
            past = torch.randint(1, feature.vocabulary_size, (count, feature.maxlen))
            values.append(past * (torch.arange(feature.maxlen) < length))
            if feature.length_name is not None and feature.length_name not in named:
                named.add(feature.length_name)
                values.append(length)
    return {"X": torch.cat([value.float() for value in values], dim=1)}
