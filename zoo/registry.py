"""The models by name: what they are called, where they come from, how they are built and trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from rankopt.zoo.autoint import AutoInt, AutoIntConfig
from rankopt.zoo.bst import BST, BSTConfig
from rankopt.zoo.dcnv2 import DCNv2, DCNv2Config
from rankopt.zoo.din import DIN, DINConfig
from rankopt.zoo.dlrm import DLRM, DLRMConfig
from rankopt.zoo.dnn import DNN, DNNConfig
from rankopt.zoo.fields import Schema
from rankopt.zoo.mc_mlcc import MCMLCC, MCMLCCConfig
from rankopt.zoo.mlcc import MLCC, MLCCConfig
from rankopt.zoo.transact import TransAct, TransActConfig


@dataclass(frozen=True, slots=True)
class Recipe:
    """How Adam trains a model; how long depends on the data and is found on its validation part.

    `embedding_l2` weighs the squared norm of the embeddings that a row looks up.
    """

    learning_rate: float = 2e-3
    embedding_l2: float = 1e-3


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the zoo; `config` is what it is built with where the caller has no wish.

    `build` is given the fields, or the whole schema where the model treats context and target apart (`sees_roles`).
    With `needs_history` it can only be built where some of the fields are a history.
    """

    name: str
    paper: str
    config: Any
    build: Callable[[Any, Any], nn.Module]
    recipe: Recipe = Recipe()
    sees_roles: bool = False
    needs_history: bool = False

    def model(self, schema: Schema, config: Any = None) -> nn.Module:
        """A freshly initialised model over these fields, with the default configuration unless another is given."""
        return self.build(schema if self.sees_roles else schema.fields, config or self.config)


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("dnn", "Covington et al., RecSys 2016", DNNConfig(), DNN, Recipe(1e-3)),
        Entry("dlrm", "Naumov et al., arXiv:1906.00091", DLRMConfig(), DLRM, Recipe(3e-3, 3e-4)),
        Entry("dcnv2", "Wang et al., arXiv:2008.13535", DCNv2Config(), DCNv2),
        Entry("dcnv2_lowrank", "Wang et al., arXiv:2008.13535", DCNv2Config(rank=32), DCNv2),
        Entry("dcnv2_mix", "Wang et al., arXiv:2008.13535", DCNv2Config(rank=32, experts=4), DCNv2),
        Entry("autoint", "Song et al., arXiv:1810.11921", AutoIntConfig(), AutoInt, Recipe(3e-3)),
        Entry("mlcc", "Yu et al., arXiv:2602.12041", MLCCConfig(), MLCC, Recipe(3e-3)),
        Entry("mc_mlcc", "Yu et al., arXiv:2602.12041", MCMLCCConfig(), MCMLCC),
        Entry("din", "Zhou et al., arXiv:1706.06978", DINConfig(), DIN, needs_history=True),
        Entry("bst", "Chen et al., arXiv:1905.06874", BSTConfig(), BST, Recipe(1e-3), needs_history=True),
        Entry("transact", "Xia et al., arXiv:2306.00248", TransActConfig(), TransAct, needs_history=True),
    )
}
