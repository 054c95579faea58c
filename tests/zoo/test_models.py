"""What holds for every model of the zoo, and a few sums done by hand."""

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import rankopt.zoo
from rankopt.zoo import ENTRIES, Entry, Field, Schema
from rankopt.zoo.autoint import AutoInt, AutoIntConfig
from rankopt.zoo.dcnv2 import BASELINE, DCNv2, DCNv2Config, FullRankCross, LowRankCross, MixtureCross
from rankopt.zoo.dhen import DHEN, DHENConfig
from rankopt.zoo.dlrm import DLRM, DLRMConfig
from rankopt.zoo.dnn import DNN, DNNConfig
from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fibinet import FiBiNET, FiBiNETConfig
from rankopt.zoo.fwfm import FwFM, FwFMConfig
from rankopt.zoo.gdcn import GDCN, GDCNConfig
from rankopt.zoo.infnet import INFNet, INFNetConfig
from rankopt.zoo.mc_mlcc import MCMLCC, MCMLCCConfig
from rankopt.zoo.mlcc import MLCC, CompressionCrossing, MLCCConfig
from rankopt.zoo.rank_aware_attention import RankAwareAttention, RankAwareAttentionConfig
from rankopt.zoo.rankmixer import RankMixer, RankMixerConfig
from rankopt.zoo.wukong import Wukong, WukongConfig

ROWS = 64
DrawRows = Callable[..., dict[str, Tensor]]

Build = Callable[[Schema], nn.Module]

VARIANTS: dict[str, Build] = {
    "dcnv2_baseline": lambda schema: DCNv2(schema.fields, BASELINE),
    "autoint_plus": lambda schema: AutoInt(schema.fields, AutoIntConfig(scaled=True, deep=(16, 8))),
    "mlcc_last_layer_only": lambda schema: MLCC(schema.fields, MLCCConfig(keep=())),
    "mlcc_three_layers": lambda schema: MLCC(schema.fields, MLCCConfig(dynamic=(4, 2, 1), keep=(0, 2))),
    "fwfm_weight_per_id": lambda schema: FwFM(schema.fields, FwFMConfig(linear="ids")),
    "gdcn_parallel": lambda schema: GDCN(schema.fields, GDCNConfig(structure="parallel")),
    "fibinet_all": lambda schema: FiBiNET(schema.fields, FiBiNETConfig(bilinear="all")),
    "fibinet_each": lambda schema: FiBiNET(schema.fields, FiBiNETConfig(bilinear="each")),
    "dhen_sum": lambda schema: DHEN(schema.fields, DHENConfig(ensemble="sum")),
    "rankmixer_of_the_paper": lambda schema: RankMixer(
        schema.fields, RankMixerConfig(ffn_residual=True, pooling="mean")
    ),
    "infnet_three_blocks": lambda schema: INFNet(schema.fields, INFNetConfig(blocks=3)),
    "rank_aware_attention_deep": lambda schema: RankAwareAttention(schema, RankAwareAttentionConfig(deep=(8,))),
    "mc_mlcc_four": lambda schema: MCMLCC(schema.fields, MCMLCCConfig(channels=4)),
}

CONFIGURATIONS: dict[str, Build] = {name: entry.model for name, entry in ENTRIES.items()} | VARIANTS


@pytest.fixture(params=CONFIGURATIONS)
def model(request: pytest.FixtureRequest, schema: Schema) -> nn.Module:
    torch.manual_seed(0)
    return CONFIGURATIONS[request.param](schema).double().eval()


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_one_logit_per_row(model: nn.Module, schema: Schema, draw_rows: DrawRows, rows: int) -> None:
    logits = model(draw_rows(schema.fields, rows))
    assert logits.shape == (rows,)
    assert logits.isfinite().all()


def test_a_row_is_scored_alone(model: nn.Module, schema: Schema, draw_rows: DrawRows) -> None:
    features = draw_rows(schema.fields, ROWS)
    alone = torch.cat([model({name: ids[[row]] for name, ids in features.items()}) for row in range(4)])
    torch.testing.assert_close(model(features)[:4], alone)


def test_gradient_reaches_every_parameter(model: nn.Module, schema: Schema, draw_rows: DrawRows) -> None:
    model(draw_rows(schema.fields, ROWS)).sum().backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


def test_every_field_matters(model: nn.Module, schema: Schema, draw_rows: DrawRows) -> None:
    features, others = draw_rows(schema.fields, ROWS), draw_rows(schema.fields, ROWS, seed=1)
    before = model(features)
    for field in schema.fields:
        assert not torch.equal(before, model(features | {field.name: others[field.name]})), field.name


def test_order_of_the_dictionary_is_irrelevant(model: nn.Module, schema: Schema, draw_rows: DrawRows) -> None:
    features = draw_rows(schema.fields, ROWS)
    assert torch.equal(model(features), model(dict(reversed(features.items()))))


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_seed_fixes_the_model(entry: Entry, schema: Schema, draw_rows: DrawRows) -> None:
    features = draw_rows(schema.fields, ROWS)
    scores = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        scores.append(entry.model(schema).eval()(features))
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


@pytest.mark.parametrize("build", VARIANTS.values(), ids=VARIANTS)
def test_variants_export_with_any_number_of_rows(build: Build, schema: Schema, draw_rows: DrawRows) -> None:
    """The models under their names are exported in test_identity_of_zoo.py."""
    model = build(schema).double().eval()
    rows = torch.export.Dim("R")
    shapes = ({field.name: {0: rows} for field in schema.fields},)
    program = torch.export.export(model, (draw_rows(schema.fields, 8),), dynamic_shapes=shapes, strict=False)
    for count in (1, 5, 33):
        features = draw_rows(schema.fields, count)
        torch.testing.assert_close(program.module()(features), model(features))


def test_a_second_copy_of_the_package_is_refused() -> None:
    spec = importlib.util.spec_from_file_location("zoo", rankopt.zoo.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"import rankopt\.zoo, not zoo"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def non_embedding_parameters(model: nn.Module) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("embedding."))


SMALL = MLCCConfig(dynamic=(2, 1))
COUNTS = [  # published configurations over 39 (Criteo), 22 (Avazu) and 17 (TaobaoAds) fields
    ("dnn", DNN, (DNNConfig(),) * 3, (203_265, 133_633, 113_153)),
    ("wukong", Wukong, (WukongConfig(),) * 3, (766_001, 624_289, 582_609)),
    ("rankmixer", RankMixer, (RankMixerConfig(),) * 3, (4_700_823, 998_937, 521_527)),
    ("dcnv2", DCNv2, (BASELINE,) * 3, (1_087_905, 451_969, 321_249)),
    ("mlcc", MLCC, (MLCCConfig(), MLCCConfig(), SMALL), (305_893, 191_174, 119_434)),
    *(
        (f"mc_mlcc_{z}", MCMLCC, (MCMLCCConfig(z), MCMLCCConfig(z), MCMLCCConfig(z, SMALL)), counts)
        for z, counts in (
            (2, (486_853, 293_254, 160_234)),
            (3, (667_813, 395_334, 201_034)),
            (4, (848_773, 497_414, 241_834)),
        )
    ),
]


@pytest.mark.parametrize(("build", "configs", "counts"), [c[1:] for c in COUNTS], ids=[c[0] for c in COUNTS])
def test_published_parameter_counts(
    build: Callable[..., nn.Module], configs: tuple[object, ...], counts: tuple[int, ...]
) -> None:
    for slots, config, count in zip((39, 22, 17), configs, counts, strict=True):
        fields = [Field(f"slot_{i}", 4) for i in range(slots)]
        assert non_embedding_parameters(build(fields, config)) == count


def test_stacked_cross_network_of_the_paper_has_its_own_count(schema: Schema) -> None:
    d = len(schema.fields) * 16
    head = non_embedding_parameters(DNN(schema.fields, DNNConfig()))
    assert non_embedding_parameters(DCNv2(schema.fields, DCNv2Config())) == 3 * (d * d + d) + head
    assert non_embedding_parameters(DCNv2(schema.fields, DCNv2Config(rank=8))) == 3 * (2 * d * 8 + d) + head


@pytest.mark.parametrize("config", [DCNv2Config(experts=2), DCNv2Config(rank=4, bias_inside=False)])
def test_cross_layers_that_no_paper_has_are_refused(schema: Schema, config: DCNv2Config) -> None:
    with pytest.raises(ValueError, match="rank"):
        DCNv2(schema.fields, config)


def test_multi_valued_field_is_the_mean_of_what_is_there() -> None:
    embedding = FieldEmbedding([Field("genres", 5, length=3)], 4)
    table = embedding.tables["genres"].weight
    ids = torch.tensor([[2, 4, 0], [3, 0, 0], [0, 0, 0]])
    expected = torch.stack([(table[2] + table[4]) / 2, table[3], torch.zeros(4)]).unsqueeze(1)
    torch.testing.assert_close(embedding({"genres": ids}), expected)


def test_dlrm_takes_the_pairs_below_the_diagonal() -> None:
    model = DLRM([Field(name, 3) for name in "abc"], DLRMConfig(embedding_dim=2))
    a, b, c = torch.randn(3, 2)
    pairs = torch.stack([b @ a, c @ a, c @ b])
    torch.testing.assert_close(model.dots(torch.stack([a, b, c]).unsqueeze(0))[0], pairs)


def test_dlrm_with_numeric_features(schema: Schema, draw_rows: DrawRows) -> None:
    torch.manual_seed(0)
    model = DLRM(schema.fields, DLRMConfig(dense=("age", "distance"))).eval()
    features = draw_rows(schema.fields, 5) | {"age": torch.rand(5), "distance": torch.rand(5)}
    vectors = 1 + len(schema.fields)
    assert model.top.hidden[0].in_features == 16 + vectors * (vectors - 1) // 2
    scores = model(features)
    scores.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not torch.equal(scores, model(features | {"age": features["age"] + 1}))


def test_cross_layers_compute_their_equations() -> None:
    x0, x = torch.randn(2, 5, 6, dtype=torch.float64)
    inside, outside = (FullRankCross(6, bias_inside).double() for bias_inside in (True, False))
    low, mixture = LowRankCross(6, 2).double(), MixtureCross(6, 2, 3).double()
    for layer in (inside, outside, mixture):
        nn.init.normal_(layer.bias)
    experts = [
        x0 * (torch.tanh(torch.tanh(x @ v) @ c) @ u + mixture.bias)
        for v, c, u in zip(mixture.v, mixture.c, mixture.u, strict=True)
    ]
    weights = mixture.gate(x).softmax(dim=1)
    mixed = sum(weights[:, [i]] * expert for i, expert in enumerate(experts))
    for layer, expected in (
        (inside, x0 * (x @ inside.weight.weight.T + inside.bias) + x),
        (outside, x0 * (x @ outside.weight.weight.T) + outside.bias + x),
        (low, x0 * (x @ low.v.weight.T @ low.u.weight.T + low.u.bias) + x),
        (mixture, mixed + x),
    ):
        torch.testing.assert_close(layer(x0, x), expected)


def test_compression_crossing_one_token_and_head_at_a_time() -> None:
    config = MLCCConfig(heads=3, dynamic=(4, 2), keep=(0, 1))
    crossing = CompressionCrossing(tokens=5, width=6, config=config)
    x = torch.randn(5, 6)
    generated = (x.flatten() @ crossing.generator).view(3, 6 * 4 + 4 * 2)
    expected = []
    for token in x:
        for weights in generated:
            h1 = token @ weights[:24].view(6, 4)
            expected += [h1, h1 @ weights[24:].view(4, 2)]
    torch.testing.assert_close(crossing(x.unsqueeze(0))[0].flatten(), torch.cat(expected))
    assert crossing.out_width == 3 * (4 + 2)


def test_places_of_the_roles(schema: Schema) -> None:
    assert schema.places() == ([0, 2, 4, 6, 7, 8], [1, 3, 5])
    with pytest.raises(ValueError, match="fields of either role"):
        schema.only(schema.context).places()
