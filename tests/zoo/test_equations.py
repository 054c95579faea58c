"""Models of the zoo against their equations, computed one pair, one field or one token at a time."""

from itertools import combinations

import torch
from torch import Tensor, nn

from rankopt.zoo.autoint import InteractingLayer
from rankopt.zoo.dcn import VectorCross
from rankopt.zoo.dcnv2 import FullRankCross
from rankopt.zoo.dhen import CrossInteraction, DHENConfig, DotInteraction
from rankopt.zoo.ffm import FFM, FFMConfig
from rankopt.zoo.fibinet import BilinearPairs, SENet
from rankopt.zoo.fields import Field, Schema
from rankopt.zoo.finalmlp import BilinearFusion, FeatureGate
from rankopt.zoo.fm import FM, FMConfig
from rankopt.zoo.fwfm import FwFM, FwFMConfig
from rankopt.zoo.gdcn import GatedCross
from rankopt.zoo.infnet import CrossAttention, INFNet, INFNetConfig
from rankopt.zoo.interhat import FieldAttention
from rankopt.zoo.masknet import MaskBlock
from rankopt.zoo.pnn import InnerProducts, OuterProduct
from rankopt.zoo.ppnet import PPNet, PPNetConfig
from rankopt.zoo.rank_aware_attention import TargetLayer
from rankopt.zoo.rankmixer import MixerLayer, RankMixerConfig
from rankopt.zoo.rdcn import ContextCross, TargetCross
from rankopt.zoo.two_tower import TwoTower, TwoTowerConfig
from rankopt.zoo.wide_and_deep import CrossedFeatures
from rankopt.zoo.wukong import FactorizationMachineBlock
from rankopt.zoo.xdeepfm import CIN

FIELDS = tuple(Field(name, 9) for name in "abcd")
SCHEMA = Schema(FIELDS, context=("a", "c"), target=("b", "d"))
PAIRS = list(combinations(range(4), 2))


def ids(rows: int = 5) -> dict[str, Tensor]:
    return {field.name: torch.randint(1, field.vocabulary, (rows,)) for field in FIELDS}


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def spread(model: nn.Module) -> nn.Module:
    """In float64, with parameters that are none of them zero or nearly so."""
    model.double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def test_factorization_machines_sum_over_pairs() -> None:
    features = ids()
    fm, fwfm, ffm = (
        spread(m) for m in (FM(FIELDS, FMConfig(3)), FwFM(FIELDS, FwFMConfig(3)), FFM(FIELDS, FFMConfig(2)))
    )
    x = fm.embedding(features)
    expected = fm.first_order(features) + sum((x[:, i] * x[:, j]).sum(dim=1) for i, j in PAIRS)
    torch.testing.assert_close(fm(features), expected)

    x = fwfm.embedding(features)
    dots = torch.stack([(x[:, i] * x[:, j]).sum(dim=1) for i, j in PAIRS], dim=1)
    expected = dots @ fwfm.strength.weight[0] + fwfm.by_field(x.flatten(1))[:, 0]
    torch.testing.assert_close(fwfm(features), expected)

    v = ffm.embedding(features).view(5, 4, 4, 2)
    expected = ffm.first_order(features) + sum((v[:, i, j] * v[:, j, i]).sum(dim=1) for i, j in PAIRS)
    torch.testing.assert_close(ffm(features), expected)


def test_products_of_pnn() -> None:
    x = draw(2, 4, 3)
    dots = torch.stack([(x[:, i] * x[:, j]).sum(dim=1) for i, j in PAIRS], dim=1)
    torch.testing.assert_close(InnerProducts(4)(x), dots)
    outer = sum(x[:, i, :, None] * x[:, j, None, :] for i in range(4) for j in range(4))
    torch.testing.assert_close(OuterProduct(3)(x), outer.flatten(1))


def test_crossed_features_have_a_weight_per_pair_of_ids() -> None:
    crossed = CrossedFeatures([*FIELDS, Field("tags", 9, length=2)], buckets=16)
    assert crossed.weights.num_embeddings == 6 * 16
    nn.init.zeros_(crossed.weights.weight)
    features = {name: torch.tensor([3]) for name in "abcd"} | {"tags": torch.tensor([[1, 2]])}
    with torch.no_grad():
        crossed.weights.weight[5 * 16 + (3 * 1_000_003 + 3) % 16] = 7.0  # the pair (c, d)
    assert crossed(features).item() == 7.0
    assert crossed(features | {"b": torch.tensor([4])}).item() == 7.0
    assert crossed(features | {"d": torch.tensor([4])}).item() == 0.0


def test_cross_layers() -> None:
    x0, x = draw(2, 5, 6)
    vector, gated = spread(VectorCross(6)), spread(GatedCross(6))
    torch.testing.assert_close(vector(x0, x), x0 * (x @ vector.weight) + vector.bias + x)
    linear = x @ gated.weight.weight.T + gated.weight.bias
    torch.testing.assert_close(gated(x0, x), x0 * linear * torch.sigmoid(x @ gated.gate.weight.T) + x)


def test_rdcn_is_dcnv2_without_the_block_from_target_to_context() -> None:
    context, target = spread(ContextCross(3)), spread(TargetCross(3, 2))
    whole = FullRankCross(5, bias_inside=True).double()
    with torch.no_grad():
        whole.weight.weight.zero_()
        whole.weight.weight[:3, :3] = context.from_context.weight
        whole.weight.weight[3:, :3] = target.from_context.weight
        whole.weight.weight[3:, 3:] = target.from_target.weight
        whole.bias[:] = torch.cat([context.from_context.bias, target.from_target.bias])
    (c0, c), (t0, t) = draw(2, 4, 3), draw(2, 4, 2)
    streams = torch.cat([context(c0, c), target(t0, t, c)], dim=1)
    torch.testing.assert_close(streams, whole(torch.cat([c0, t0], dim=1), torch.cat([c, t], dim=1)))


def test_rank_aware_attention_is_attention_with_masked_scores() -> None:
    """With the weights of both streams tied, as one AutoInt layer whose context queries see no target key."""
    layer, target = spread(InteractingLayer(4, 6, 2, scaled=True)), spread(TargetLayer(4, 6, 2, scaled=True))
    key_value = torch.cat([layer.key.weight, layer.value.weight])
    with torch.no_grad():
        target.query.weight.copy_(layer.query.weight)
        target.residual.weight.copy_(layer.residual.weight)
        target.context_key_value.weight.copy_(key_value)
        target.target_key_value.weight.copy_(key_value)
    c, t = draw(5, 3, 4), draw(5, 2, 4)
    x = torch.cat([c, t], dim=1)
    query, key, value = (layer.split_heads(part(x)) for part in (layer.query, layer.key, layer.value))
    scores = query @ key.mT * layer.scale
    scores[:, :, :3, 3:] = -torch.inf
    mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    expected = torch.relu(mixed + layer.residual(x))
    torch.testing.assert_close(torch.cat([layer(c), target(t, c)], dim=1), expected)


def test_cin_one_feature_map_at_a_time() -> None:
    cin, x = spread(CIN(3, (2, 4))), draw(5, 3, 6)
    maps, pooled = x, []
    for layer in cin.layers:
        weight = layer.weight.view(layer.out_channels, maps.shape[1], 3)
        crossed = [
            sum(w[i, j] * maps[:, i] * x[:, j] for i in range(maps.shape[1]) for j in range(3)) + b
            for w, b in zip(weight, layer.bias, strict=True)
        ]
        maps = torch.stack(crossed, dim=1)
        pooled.append(maps.sum(dim=-1))
    torch.testing.assert_close(cin(x), torch.cat(pooled, dim=1))


def test_bilinear_pairs_of_all_kinds() -> None:
    x = draw(5, 4, 3)
    for kind, matrix in (("all", lambda p, i: 0), ("each", lambda p, i: i), ("interaction", lambda p, i: p)):
        pairs = spread(BilinearPairs(4, 3, kind))
        expected = [x[:, i] @ pairs.weight[matrix(p, i)] * x[:, j] for p, (i, j) in enumerate(PAIRS)]
        torch.testing.assert_close(pairs(x), torch.stack(expected, dim=1), msg=kind)
    senet = spread(SENet(4, reduction=2))
    reduce, widen = senet.excitation[0].weight, senet.excitation[2].weight
    gates = torch.relu(torch.relu(x.mean(-1) @ reduce.T) @ widen.T)
    torch.testing.assert_close(senet(x), gates[:, :, None] * x)


def test_masks_and_gates() -> None:
    block, row, v = spread(MaskBlock(6, 4, 3, ratio=2.0, dropout=0.0)), draw(5, 6), draw(5, 4)
    narrow, widen = block.mask[0], block.mask[2]
    assert narrow.out_features == 8
    hidden = (widen(torch.relu(narrow(row))) * v) @ block.hidden[0].weight.T
    torch.testing.assert_close(block(row, v), torch.relu(block.hidden[1](hidden)))

    gate, x = spread(FeatureGate((0, 2), fields=4, dim=3, hidden=5)), draw(5, 4, 3)
    scale = 2 * torch.sigmoid(gate.gate(torch.cat([x[:, 0], x[:, 2]], dim=1)))
    torch.testing.assert_close(gate(x), scale * x.flatten(1))


def test_fusion_of_two_streams() -> None:
    fusion, left, right = spread(BilinearFusion(4, 6, heads=2)), draw(5, 4), draw(5, 6)
    halves = zip(left.split(2, dim=1), fusion.weight, right.split(3, dim=1), strict=True)
    bilinear = sum(((a @ w) * b).sum(dim=1) for a, w, b in halves)
    expected = fusion.linear_left(left)[:, 0] + right @ fusion.linear_right.weight[0] + bilinear
    torch.testing.assert_close(fusion(left, right), expected)


def test_attention_of_interhat_one_head_at_a_time() -> None:
    attention, x = spread(FieldAttention(4, heads=2, width=6)), draw(5, 3, 4)
    heads = []
    for head in (slice(0, 3), slice(3, 6)):
        query, key, value = (x @ part.weight[head].T for part in (attention.query, attention.key, attention.value))
        heads.append(torch.softmax(query @ key.mT / 3**0.5, dim=-1) @ value)
    torch.testing.assert_close(attention(x), torch.cat(heads, dim=2) @ attention.output.weight.T)


def test_interactions_of_dhen_and_wukong() -> None:
    x = draw(5, 4, 3)
    config = DHENConfig(embedding_dim=3, tokens=2, dot_hidden=())
    dot, cross = spread(DotInteraction(4, config)), spread(CrossInteraction(4, config))
    dots = torch.stack([(x[:, i] * x[:, j]).sum(dim=1) for i, j in PAIRS], dim=1)
    torch.testing.assert_close(dot(x), torch.relu(dot.mlp[0](dots)).view(5, 2, 3))
    torch.testing.assert_close(cross(x), cross.linear.weight @ (x.mT @ x) + cross.bias)

    block = spread(FactorizationMachineBlock(4, dim=3, out=2, rank=2))
    products = ((x @ x.mT) @ block.weight).flatten(1)
    torch.testing.assert_close(block(x), torch.relu(block.linear(block.norm(products))).view(5, 2, 3))


def test_mixer_layer_one_token_at_a_time() -> None:
    layer, x = spread(MixerLayer(3, 6, RankMixerConfig())), draw(5, 3, 6)
    expected = []
    for t in range(3):
        mixed = torch.cat([x[:, other, 2 * t : 2 * t + 2] for other in range(3)], dim=1)
        s = nn.functional.layer_norm(mixed + x[:, t], (6,))
        hidden = nn.functional.gelu(s @ layer.widen.weight[t] + layer.widen.bias[t])
        expected.append(hidden @ layer.narrow.weight[t] + layer.narrow.bias[t])
    torch.testing.assert_close(layer(x), torch.stack(expected, dim=1))


def test_cross_attention_ignores_padding() -> None:
    attention, queries, x = spread(CrossAttention(4)), draw(5, 2, 4), draw(5, 3, 4)
    present = torch.tensor([True, True, False]).expand(5, 3)
    torch.testing.assert_close(attention(queries, x, present), attention(queries, x[:, :2], None))


def test_infnet_ignores_padding_and_bears_a_row_without_behaviours() -> None:
    fields = [*FIELDS, Field("seen", 9, history=2, of="b"), Field("tags", 9, length=2, history=2)]
    torch.manual_seed(0)
    model = INFNet(fields, INFNetConfig(embedding_dim=4)).double().eval()
    features = ids(3)
    seen = torch.tensor([[4, 0], [0, 0], [5, 6]])
    tags = torch.stack([seen, seen], dim=-1)
    scores = model(features | {"seen": seen, "tags": tags})
    assert scores.isfinite().all()
    longer = {"seen": nn.functional.pad(seen, (0, 3)), "tags": nn.functional.pad(tags, (0, 0, 0, 3))}
    torch.testing.assert_close(model(features | longer), scores)
    assert INFNet(FIELDS, INFNetConfig()).eval()(features).isfinite().all()


def test_towers_meet_in_their_cosine() -> None:
    model, features = spread(TwoTower(SCHEMA, TwoTowerConfig(embedding_dim=3))), ids()
    x = model.embedding(features)
    vectors = [
        tower.output(tower.hidden(x[:, places].flatten(1)))
        for tower, places in ((model.context_tower, [0, 2]), (model.target_tower, [1, 3]))
    ]
    expected = torch.cosine_similarity(*vectors) * model.scale + model.bias
    torch.testing.assert_close(model(features), expected)


def test_gates_of_ppnet_send_no_gradient_into_the_row() -> None:
    for sees_row in (True, False):
        model = spread(PPNet(SCHEMA, PPNetConfig(embedding_dim=3, hidden=(4,), sees_row=sees_row)))
        layer, gate, output = model.layers[0], model.gates[0], model.output
        features = ids()
        x = model.embedding(features).detach()
        z = torch.cat([x[:, [0, 2]].flatten(1), x.flatten(1)], dim=1) if sees_row else x[:, [0, 2]].flatten(1)
        first, second = gate.layers[0], gate.layers[2]
        scale = 2 * torch.sigmoid(second(torch.relu(first(z))))
        torch.testing.assert_close(model(features), output(scale * torch.relu(layer(x.flatten(1))))[:, 0])

        with torch.no_grad():
            layer.weight.zero_()  # then the row acts through the gates alone
        model(features).sum().backward()
        reached = [name for name in "abcd" if model.embedding.tables[name].weight.grad.any()]
        assert reached == ["a", "c"]
