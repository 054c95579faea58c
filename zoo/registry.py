"""The models by name: what they are called, where they come from, how they are built and trained."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from rankopt.zoo.afm import AFM, AFMConfig
from rankopt.zoo.autoint import AutoInt, AutoIntConfig
from rankopt.zoo.bst import BST, BSTConfig
from rankopt.zoo.dataset import Recipe
from rankopt.zoo.dcn import DCN, DCNConfig
from rankopt.zoo.dcnv2 import DCNv2, DCNv2Config
from rankopt.zoo.deepfm import DeepFM, DeepFMConfig
from rankopt.zoo.dhen import DHEN, DHENConfig
from rankopt.zoo.din import DIN, DINConfig
from rankopt.zoo.dlrm import DLRM, DLRMConfig
from rankopt.zoo.dnn import DNN, DNNConfig
from rankopt.zoo.ffm import FFM, FFMConfig
from rankopt.zoo.fibinet import FiBiNET, FiBiNETConfig
from rankopt.zoo.fields import Schema
from rankopt.zoo.finalmlp import FinalMLP, FinalMLPConfig
from rankopt.zoo.fm import FM, FMConfig
from rankopt.zoo.fwfm import FwFM, FwFMConfig
from rankopt.zoo.gdcn import GDCN, GDCNConfig
from rankopt.zoo.infnet import INFNet, INFNetConfig
from rankopt.zoo.interhat import InterHAt, InterHAtConfig
from rankopt.zoo.masknet import MaskNet, MaskNetConfig
from rankopt.zoo.mc_mlcc import MCMLCC, MCMLCCConfig
from rankopt.zoo.mlcc import MLCC, MLCCConfig
from rankopt.zoo.nfm import NFM, NFMConfig
from rankopt.zoo.pnn import PNN, PNNConfig
from rankopt.zoo.ppnet import PPNet, PPNetConfig
from rankopt.zoo.rank_aware_attention import RankAwareAttention, RankAwareAttentionConfig
from rankopt.zoo.rankmixer import RankMixer, RankMixerConfig
from rankopt.zoo.rdcn import RDCN, RDCNConfig
from rankopt.zoo.transact import TransAct, TransActConfig
from rankopt.zoo.two_tower import TwoTower, TwoTowerConfig
from rankopt.zoo.wide_and_deep import WideAndDeep, WideAndDeepConfig
from rankopt.zoo.wukong import Wukong, WukongConfig
from rankopt.zoo.xdeepfm import XDeepFM, XDeepFMConfig


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
    recipe: Recipe = field(default_factory=Recipe)
    sees_roles: bool = False
    needs_history: bool = False

    def model(self, schema: Schema, config: Any = None) -> nn.Module:
        """A freshly initialised model over these fields, with the default configuration unless another is given."""
        return self.build(schema if self.sees_roles else schema.fields, config or self.config)


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("dnn", "Covington et al., RecSys 2016", DNNConfig(), DNN, Recipe(1e-3)),
        Entry("wide_and_deep", "Cheng et al., arXiv:1606.07792", WideAndDeepConfig(), WideAndDeep),
        Entry("two_tower", "Yi et al., RecSys 2019", TwoTowerConfig(), TwoTower, sees_roles=True),
        Entry("fm", "Rendle, ICDM 2010", FMConfig(), FM, Recipe(5e-3)),
        Entry("ffm", "Juan et al., RecSys 2016", FFMConfig(), FFM, Recipe(5e-3)),
        Entry("fwfm", "Pan et al., arXiv:1806.03514", FwFMConfig(), FwFM, Recipe(5e-3)),
        Entry("afm", "Xiao et al., arXiv:1708.04617", AFMConfig(), AFM, Recipe(5e-3)),
        Entry("deepfm", "Guo et al., arXiv:1703.04247", DeepFMConfig(), DeepFM),
        Entry("nfm", "He and Chua, arXiv:1708.05027", NFMConfig(), NFM),
        Entry("pnn_inner", "Qu et al., arXiv:1611.00144", PNNConfig(), PNN),
        Entry("pnn_outer", "Qu et al., arXiv:1611.00144", PNNConfig(product="outer"), PNN),
        Entry("dlrm", "Naumov et al., arXiv:1906.00091", DLRMConfig(), DLRM, Recipe(3e-3, 3e-4)),
        Entry("dcn", "Wang et al., arXiv:1708.05123", DCNConfig(), DCN),
        Entry("dcnv2", "Wang et al., arXiv:2008.13535", DCNv2Config(), DCNv2),
        Entry("dcnv2_lowrank", "Wang et al., arXiv:2008.13535", DCNv2Config(rank=32), DCNv2),
        Entry("dcnv2_mix", "Wang et al., arXiv:2008.13535", DCNv2Config(rank=32, experts=4), DCNv2),
        Entry("gdcn", "Wang et al., arXiv:2311.04635", GDCNConfig(), GDCN),
        Entry("rdcn", "Tkach, Context Features Are Cheap", RDCNConfig(), RDCN, sees_roles=True),
        Entry(
            "rdcn_target_stream",
            "Tkach, Context Features Are Cheap",
            RDCNConfig(context_stream=False),
            RDCN,
            sees_roles=True,
        ),
        Entry("xdeepfm", "Lian et al., arXiv:1803.05170", XDeepFMConfig(), XDeepFM),
        Entry("fibinet", "Huang et al., arXiv:1905.09433", FiBiNETConfig(), FiBiNET, Recipe(5e-3, 1e-4)),
        Entry("masknet_serial", "Wang et al., arXiv:2102.07619", MaskNetConfig(), MaskNet),
        Entry("masknet_parallel", "Wang et al., arXiv:2102.07619", MaskNetConfig(structure="parallel"), MaskNet),
        Entry("finalmlp", "Mao et al., arXiv:2304.00902", FinalMLPConfig(), FinalMLP, sees_roles=True),
        Entry("ppnet", "Chang et al., arXiv:2302.01115", PPNetConfig(), PPNet, sees_roles=True),
        Entry("lhuc", "Swietojanski et al., arXiv:1601.02828", PPNetConfig(sees_row=False), PPNet, sees_roles=True),
        Entry("autoint", "Song et al., arXiv:1810.11921", AutoIntConfig(), AutoInt, Recipe(3e-3)),
        Entry(
            "rank_aware_attention",
            "Tkach, Context Features Are Cheap",
            RankAwareAttentionConfig(),
            RankAwareAttention,
            Recipe(3e-3),
            sees_roles=True,
        ),
        Entry("interhat", "Li et al., WSDM 2020", InterHAtConfig(), InterHAt),
        Entry("dhen", "Zhang et al., arXiv:2203.11014", DHENConfig(), DHEN),
        Entry("wukong", "Zhang et al., arXiv:2403.02545", WukongConfig(), Wukong),
        Entry("rankmixer", "Zhu et al., arXiv:2507.15551", RankMixerConfig(), RankMixer),
        Entry("infnet", "arXiv:2508.11565", INFNetConfig(), INFNet, Recipe(5e-3)),
        Entry("mlcc", "Yu et al., arXiv:2602.12041", MLCCConfig(), MLCC, Recipe(3e-3)),
        Entry("mc_mlcc", "Yu et al., arXiv:2602.12041", MCMLCCConfig(), MCMLCC),
        Entry("din", "Zhou et al., arXiv:1706.06978", DINConfig(), DIN, needs_history=True),
        Entry("bst", "Chen et al., arXiv:1905.06874", BSTConfig(), BST, Recipe(1e-3), needs_history=True),
        Entry("transact", "Xia et al., arXiv:2306.00248", TransActConfig(), TransAct, needs_history=True),
    )
}
