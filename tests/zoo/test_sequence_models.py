"""Models of user behaviour: what their equations say, one row and one item at a time."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rankopt.zoo import ENTRIES, Entry, Field, Schema
from rankopt.zoo.bst import BST, BSTConfig
from rankopt.zoo.din import DIN, ActivationUnit, Dice, DINConfig
from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.sequence import Behaviour, BehaviourEmbedding
from rankopt.zoo.transact import EncoderLayer, TransActConfig

DrawRows = Callable[..., dict[str, Tensor]]
SEQUENCE = [entry for entry in ENTRIES.values() if entry.needs_history]


@pytest.fixture(params=SEQUENCE, ids=lambda entry: entry.name)
def model(request: pytest.FixtureRequest, schema: Schema) -> nn.Module:
    torch.manual_seed(0)
    model = request.param.model(schema).double().eval()
    for table in model.modules():
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight, std=0.5)
    return model


@pytest.mark.parametrize("entry", SEQUENCE, ids=lambda entry: entry.name)
def test_a_history_is_needed(entry: Entry, schema: Schema) -> None:
    without = [field for field in schema.fields if not field.is_history]
    with pytest.raises(ValueError, match="expected a history"):
        entry.build(without, entry.config)
    orphan = Field("watched", 5, history=3, of="film")
    with pytest.raises(ValueError, match="watched"):
        entry.build([*without, orphan], entry.config)


def test_what_is_padded_is_not_seen(model: nn.Module, schema: Schema, draw_rows: DrawRows) -> None:
    features = draw_rows(schema.fields, 6)
    before = model(features)
    table = model.embedding.tables["item"].weight
    with torch.no_grad():
        table[0] += 1.0  # the vector of PADDING
    torch.testing.assert_close(model(features), before)


def test_newest_items_come_first(schema: Schema, draw_rows: DrawRows) -> None:
    torch.manual_seed(0)
    features = draw_rows(schema.fields, 6, seed=2)
    full = features | {f.name: torch.randint(1, f.vocabulary, (6, *f.shape)) for f in schema.fields if f.is_history}
    flipped = full | {f.name: full[f.name].flip(1) for f in schema.fields if f.is_history}
    for entry in SEQUENCE:
        model = entry.model(schema).double().eval()
        has_order = entry.name != "din"  # whose interest is a sum
        assert torch.allclose(model(full), model(flipped), rtol=1e-9) != has_order, entry.name


def test_history_and_candidate_share_a_table(schema: Schema, draw_rows: DrawRows) -> None:
    embedding = BehaviourEmbedding(schema.fields, 8)
    assert set(embedding.tables) == {"user", "item", "hour", "genres", "city", "price", "liked"}
    features = draw_rows(schema.fields, 5)
    plain, behaviour = embedding(features)
    assert plain.shape == (5, 6, 8)
    assert behaviour.items.shape == (5, 4, 24)
    item, genres = embedding.tables["item"].weight, embedding.tables["genres"].weight
    assert torch.equal(behaviour.target[:, :8], item[features["item"]])
    assert torch.equal(behaviour.items[:, :, :8], item[features["seen"]])
    of_second = [id_ for id_ in features["seen_genres"][2, 0].tolist() if id_]
    torch.testing.assert_close(behaviour.items[2, 0, 8:16], genres[of_second].mean(dim=0))
    assert torch.equal(behaviour.target[:, 16:], embedding.unknown_action.expand(5, -1))
    assert torch.equal(behaviour.mask, features["seen"] != 0)


def test_other_models_see_the_mean_of_a_history() -> None:
    fields = [Field("item", 5), Field("seen", 5, history=3, of="item")]
    embedding = FieldEmbedding(fields, 4)
    table = embedding.tables["item"].weight
    found = embedding({"item": torch.tensor([1, 2]), "seen": torch.tensor([[4, 2, 0], [0, 0, 0]])})
    torch.testing.assert_close(found[0], torch.stack([table[1], (table[4] + table[2]) / 2]))
    torch.testing.assert_close(found[1], torch.stack([table[2], torch.zeros(4)]))


@pytest.mark.parametrize("softmax", [False, True])
def test_din_attends_to_one_item_at_a_time(softmax: bool) -> None:
    unit = ActivationUnit(6, DINConfig(activation="prelu", softmax=softmax)).eval()
    items, target = torch.randn(2, 3, 6), torch.randn(2, 6)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = torch.zeros(2, 3)
    for row, length in enumerate((2, 1)):
        t = target[row]
        scores = torch.stack([unit.unit(torch.cat([t, h, t - h, t * h])[None])[0, 0] for h in items[row, :length]])
        expected[row, :length] = scores.softmax(dim=0) if softmax else scores
    torch.testing.assert_close(unit(Behaviour(items, target, mask)), expected)


def test_dice_is_its_equation() -> None:
    dice = Dice(4).eval()
    nn.init.normal_(dice.alpha)
    dice.norm.running_mean.normal_()
    dice.norm.running_var.uniform_(0.5, 2.0)
    s = torch.randn(7, 4)
    p = torch.sigmoid((s - dice.norm.running_mean) / (dice.norm.running_var + 1e-8).sqrt())
    torch.testing.assert_close(dice(s), p * s + (1 - p) * dice.alpha * s)


def test_din_with_the_other_options(schema: Schema, draw_rows: DrawRows) -> None:
    features = draw_rows(schema.fields, 5)
    for config in (DINConfig(activation="prelu"), DINConfig(softmax=True), DINConfig(dropout=0.0)):
        model = DIN(schema.fields, config).double()
        model(features).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_bst_heads_attend_apart(schema: Schema, draw_rows: DrawRows) -> None:
    model = BST(schema.fields, BSTConfig(heads=3, layers=2)).double().eval()
    layer, x = model.layers[0], torch.randn(2, 5, 48, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    mixed = torch.zeros_like(x)
    for head in range(3):
        cut = slice(16 * head, 16 * (head + 1))
        for row in range(2):
            kept = mask[row]
            weights = (q[row, :, cut] @ k[row, kept, cut].T / 4).softmax(dim=-1)
            mixed[row, :, cut] = weights @ v[row, kept, cut]
    hidden = layer.norms[0](x + layer.out(mixed))
    torch.testing.assert_close(layer(x, mask), layer.norms[1](hidden + layer.feed_forward(hidden)))


def test_transact_survives_a_user_without_history(schema: Schema, draw_rows: DrawRows) -> None:
    layer = EncoderLayer(TransActConfig(width=8, feed_forward=8)).eval()
    x = torch.randn(2, 4, 8)
    assert layer(x, torch.zeros(2, 4, dtype=torch.bool)).isfinite().all()
    kept = torch.tensor([True, True, False, False]).expand(2, -1)
    torch.testing.assert_close(layer(x, kept)[:, :2], layer(x[:, :2], kept[:, :2]))
    model = ENTRIES["transact"].build(schema.fields, replace(ENTRIES["transact"].config, newest=99))
    assert model(draw_rows(schema.fields, 3)).isfinite().all()
