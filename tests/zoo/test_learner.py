"""One step of training: what it moves, what it costs for large tables, and what it computes in."""

import copy
import math

import pytest
import torch
from torch import nn

from rankopt.zoo.dataset import Recipe, Rows
from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.learner import SPARSE_ROWS, Hardware, Learner, Precision, make_optimizers

FIELDS = (Field("user", 40), Field("item", 30), Field("tags", 20, length=3))


class Tiny(nn.Module):
    def __init__(self, fields: tuple[Field, ...] = FIELDS) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, 4)
        self.out = nn.Linear(4 * len(fields), 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.out(self.dropout(self.embedding(features).flatten(1))).squeeze(-1)


def batch(rows: int = 16, seed: int = 0) -> Rows:
    draw = torch.Generator().manual_seed(seed)
    features = {f.name: torch.randint(1, f.vocabulary, (rows, *f.shape), generator=draw) for f in FIELDS}
    return Rows(features, torch.randint(0, 2, (rows,), generator=draw).float())


def learner(recipe: Recipe, hardware: Hardware | None = None, seed: int = 0) -> Learner:
    torch.manual_seed(0)
    return Learner(Tiny(), recipe, hardware or Hardware(), seed)


def test_the_penalty_is_on_what_a_row_looks_up() -> None:
    recipe = Recipe(learning_rate=0.1, embedding_l2=0.5)
    rows = batch()
    with_penalty, without = learner(recipe), learner(Recipe(0.1, 0.0))
    weights = {name: table.weight.detach().clone() for name, table in with_penalty.model.embedding.tables.items()}
    gradients = []
    for given in (with_penalty, without):
        given.run_batch(rows)
        gradients.append({name: table.weight.grad for name, table in given.model.embedding.tables.items()})
    for field in FIELDS:
        ids = rows.features[field.name]
        count = torch.bincount(ids.flatten(), minlength=field.vocabulary).unsqueeze(1) / ids.numel()
        difference = gradients[0][field.name] - gradients[1][field.name]
        torch.testing.assert_close(difference, 2 * 0.5 * count * weights[field.name])


def test_evaluation_leaves_no_trace() -> None:
    given = learner(Recipe())
    given.model.eval()
    given.model(batch().features)
    assert given._looked_up == []


def test_a_seed_fixes_dropout_whatever_was_drawn_before() -> None:
    found = []
    for seed, drawn in ((1, 0), (1, 5), (2, 0)):
        given = learner(Recipe(), seed=seed)
        torch.rand(drawn)
        given.run_batch(batch())
        found.append(given.model.out.weight.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_large_tables_are_updated_row_by_row() -> None:
    torch.manual_seed(0)
    tables = nn.ModuleDict({"small": nn.Embedding(10, 4), "large": nn.Embedding(30, 4)})
    optimizers = make_optimizers(tables, 0.1, sparse_rows=30)
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Adam", "SparseAdam"]
    before = tables["large"].weight.detach().clone()
    for ids in ([3, 3, 7], [3]):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = sum(table(torch.tensor(ids)).square().sum() for table in tables.values())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    moved = (tables["large"].weight.detach() != before).any(dim=1).nonzero().flatten().tolist()
    assert moved == [3, 7]
    assert tables["large"].weight.grad.is_sparse
    assert not tables["small"].weight.grad.is_sparse
    assert len(make_optimizers(Tiny(), 0.1)) == 1


def test_a_learner_has_sparse_gradients_from_the_limit_on() -> None:
    fields = (Field("user", SPARSE_ROWS), Field("item", SPARSE_ROWS - 1), FIELDS[2])
    given = Learner(Tiny(fields), Recipe(), Hardware(), seed=0)
    given.run_batch(batch())
    is_sparse = {name: table.weight.grad.is_sparse for name, table in given.model.embedding.tables.items()}
    assert is_sparse == {"user": True, "item": False, "tags": False}
    state = copy.deepcopy(given.state_dict())
    other = Learner(Tiny(fields), Recipe(), Hardware(), seed=0)
    other.load_state_dict(state)
    for one in (given, other):
        one.run_batch(batch(seed=1))
    pairs = zip(given.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_mixed_precision_trains_to_about_the_same() -> None:
    losses = []
    for precision in Precision:
        given = learner(Recipe(0.05, 0.0), Hardware("cpu", precision))
        for step in range(60):
            given.run_batch(batch(seed=step % 3))
        with torch.no_grad():
            logits = given.model.eval()(batch().features)
        assert logits.dtype == torch.float32
        assert all(weight.dtype == torch.float32 for weight in given.model.parameters())
        losses.append(float(nn.functional.binary_cross_entropy_with_logits(logits, batch().labels)))
    assert losses[0] != losses[1]
    assert math.isclose(*losses, rel_tol=0.2)


def test_hardware_by_device() -> None:
    assert Hardware.best("cpu") == Hardware("cpu", Precision.FLOAT32)
    assert Hardware.best("cuda").precision is Precision.BFLOAT16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_with_autocast() -> None:
    given = learner(Recipe(), Hardware.best("cuda"))
    for step in range(5):
        given.run_batch(batch(seed=step))
    assert all(weight.is_cuda and weight.isfinite().all() for weight in given.model.parameters())
