import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from rankopt.errors import InputError, RankoptError
from rankopt.float64 import run_float64

# torch's own decompositions use a name that torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

ROWS = 5


class Formula(nn.Module):
    """A little model: a formula over a few layers and the inputs ids [n, 6] and x [n, 4]."""

    def __init__(self, formula: Callable[..., Tensor], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.formula = formula
        self.table = nn.Embedding(50, 4, padding_idx=3)
        self.bag = nn.EmbeddingBag(50, 4, mode="mean")
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.register_buffer("constant", torch.tensor([-0.5, 0.25, 0.5, 1.0]))
        self.to(dtype)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        return self.formula(self, ids, x)


def export(model: nn.Module, args: tuple[Tensor, ...]) -> tuple[torch.export.ExportedProgram, dict[str, Tensor]]:
    """The exported program with dynamic rows, and the values of its weights by placeholder."""
    rows = tuple({0: torch.export.Dim("rows")} for _ in args)
    with torch.no_grad():
        program = torch.export.export(model.eval(), args, strict=False, dynamic_shapes=rows)
    return program, weights_of(program)


def weights_of(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    stored = {**program.state_dict, **program.constants}
    return {placeholder: stored[name] for placeholder, name in names.items()}


def rows_of(dtype: torch.dtype, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    torch.manual_seed(rows)
    return torch.randint(0, 50, (rows, 6)), torch.randn(rows, 4).to(dtype)


FORMULAS: dict[str, Callable[..., Tensor]] = {
    "embedding, linear": lambda m, ids, x: m.linear(m.table(ids).mean(1) + x),
    "index_select": lambda m, ids, x: torch.index_select(m.table.weight, 0, ids[:, 0]) * x,
    "index": lambda m, ids, x: m.table.weight[ids].sum(1) / 7,
    "gather": lambda m, ids, x: x.gather(1, ids[:, :2] % 4).exp(),
    "a slice of a table": lambda m, ids, x: F.embedding(ids % 20, m.table.weight[10:30]).sum(1) * x,
    "embedding bag, mean": lambda m, ids, x: m.bag(ids) + x,
    "embedding bag, padding": lambda m, ids, x: F.embedding_bag(ids % 4, m.table.weight, mode="sum", padding_idx=3),
    "embedding bag, padding from the end": lambda m, ids, x: F.embedding_bag(
        49 - ids % 2, m.table.weight, padding_idx=-1
    ),
    "embedding bag, padding not used": lambda m, ids, x: F.embedding_bag(ids % 3, m.table.weight, padding_idx=9),
    "embedding bag, max": lambda m, ids, x: F.embedding_bag(ids, m.table.weight, mode="max"),
    "embedding bag, weighted": lambda m, ids, x: F.embedding_bag(
        ids, m.table.weight, mode="sum", per_sample_weights=x[:, :1].expand(-1, 6)
    ),
    "casts back to the dtype served": lambda m, ids, x: (m.linear(x).to(x.dtype) / 3).float().to(x.dtype),
    "mask to float": lambda m, ids, x: (ids > 9).to(x.dtype).mean(1) * x[:, 0] / 3,
    "softmax with a dtype": lambda m, ids, x: (m.linear(x) / 3).softmax(-1, dtype=torch.float32),
    "sum with a dtype": lambda m, ids, x: (x / 3).sum(-1, dtype=torch.float32),
    "factories with a dtype": lambda m, ids, x: (
        torch.arange(4, dtype=x.dtype) / 3 + torch.full((4,), 0.1, dtype=x.dtype) * x + torch.ones(4)
    ),
    "factories without a dtype": lambda m, ids, x: torch.full((x.shape[0], 1), 0.1) / 3 + torch.zeros(4) + x,
    "constants": lambda m, ids, x: x * m.constant + torch.tensor([0.5, 2.0, 0.25, 1.0]) / 3,
    "type_as": lambda m, ids, x: (ids[:, :4] / 7).type_as(m.table.weight) * x,
    "new_zeros": lambda m, ids, x: m.table.weight.new_zeros(4) + x.new_full((4,), 0.1) / 3 + x,
    "a quotient of integers": lambda m, ids, x: ids[:, :4] / 7 + x,
    "integers times a float": lambda m, ids, x: ids * 0.1,
    "a function of integers": lambda m, ids, x: ids.sigmoid(),
    "row counts": lambda m, ids, x: (x * (x.shape[0] * 2)).view(-1, 2).sum(-1) / 3,
    "finfo": lambda m, ids, x: (
        x.unsqueeze(1).masked_fill((ids == 0).unsqueeze(-1), torch.finfo(x.dtype).min).softmax(1).sum(-1)
    ),
    "infinity": lambda m, ids, x: x.unsqueeze(1).masked_fill((ids > 9).unsqueeze(-1), float("-inf")).amax(1).sigmoid(),
    "attention": lambda m, ids, x: m.attention(m.table(ids), m.table(ids), m.table(ids))[0].sum(1),
    "scaled dot product": lambda m, ids, x: F.scaled_dot_product_attention(
        x.unsqueeze(1), m.table(ids), m.table(ids), attn_mask=(ids > 0).unsqueeze(1)
    ),
    "layer norm": lambda m, ids, x: m.norm(x),
    "searchsorted": lambda m, ids, x: torch.searchsorted(m.constant, x) * x,
    "an integer cast": lambda m, ids, x: (x * 10).to(torch.int64) + ids[:, :4],
    "complex": lambda m, ids, x: torch.view_as_real((x / 3).to(torch.complex64) * 0.1j).sum(-1),
    "no grad": lambda m, ids, x: torch.no_grad()(lambda: x.float().softmax(-1) / 3)() + x,
    "tied table": lambda m, ids, x: m.table(ids[:, 0]) @ m.table.weight.T,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_the_model_in_float64(name: str) -> None:
    model = Formula(FORMULAS[name])
    program, _ = export(model, rows_of(torch.float32))
    for form in (program, program.run_decompositions({})):
        for rows in (0, 1, ROWS, 17):
            ids, x = rows_of(torch.float32, rows)
            (scores,) = run_float64(form.graph_module, {**weights_of(form), "ids": ids, "x": x})
            expected = in_float64(model, ids, x)
            assert scores.dtype == expected.dtype
            torch.testing.assert_close(scores, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["embedding, linear", "embedding bag, mean", "casts back to the dtype served"])
def test_any_captured_dtype(name: str, dtype: torch.dtype) -> None:
    model = Formula(FORMULAS[name], dtype)
    program, weights = export(model, rows_of(dtype))
    ids, x = rows_of(dtype, 17)
    (scores,) = run_float64(program.graph_module, {**weights, "ids": ids, "x": x})
    torch.testing.assert_close(scores, in_float64(model, ids, x), rtol=1e-12, atol=1e-14)


def test_autocast_does_not_round() -> None:
    def formula(m: Formula, ids: Tensor, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.linear(m.table(ids).sum(1) + x)

    model = Formula(formula)
    program, _ = export(model, rows_of(torch.float32))
    ids, x = rows_of(torch.float32)
    plain = Formula(lambda m, ids, x: m.linear(m.table(ids).sum(1) + x))
    plain.load_state_dict(model.state_dict())
    for form in (program, program.run_decompositions({})):
        (scores,) = run_float64(form.graph_module, {**weights_of(form), "ids": ids, "x": x})
        torch.testing.assert_close(scores, in_float64(plain, ids, x), rtol=1e-12, atol=1e-14)


def test_several_outputs_come_in_order() -> None:
    model = Formula(lambda m, ids, x: {"click": m.linear(x), "parts": (ids[:, 0], x * 2)})
    program, weights = export(model, rows_of(torch.float32))
    ids, x = rows_of(torch.float32)
    click, first, doubled = run_float64(program.graph_module, {**weights, "ids": ids, "x": x})
    assert click.shape == (ROWS, 3)
    assert torch.equal(first, ids[:, 0])
    assert torch.equal(doubled, 2 * x.double())


def test_keep_sees_every_value_in_order_and_in_float64() -> None:
    program, weights = export(Formula(FORMULAS["embedding, linear"]), rows_of(torch.float32))
    ids, x = rows_of(torch.float32)
    kept: dict[str, Tensor] = {}
    (scores,) = run_float64(program.graph_module, {**weights, "ids": ids, "x": x}, keep=kept.__setitem__)
    assert list(kept) == ["embedding", "mean", "add", "linear"]
    assert {value.dtype for value in kept.values()} == {torch.float64}
    assert torch.equal(kept["linear"], scores)
    assert torch.equal(kept["embedding"], weights["p_table_weight"][ids].double())


def test_stored_values_are_not_changed() -> None:
    program, weights = export(Formula(FORMULAS["tied table"]), rows_of(torch.float32))
    ids, x = rows_of(torch.float32)
    values = {**weights, "ids": ids, "x": x}
    before = {name: value.clone() for name, value in values.items()}
    run_float64(program.graph_module, values)
    for name, value in values.items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_a_placeholder_without_value_is_named() -> None:
    program, weights = export(Formula(FORMULAS["embedding, linear"]), rows_of(torch.float32))
    with pytest.raises(InputError, match="reads 'x'") as refused:
        run_float64(program.graph_module, {**weights, "ids": rows_of(torch.float32)[0]})
    assert "p_table_weight" in str(refused.value)


def test_the_default_dtype_is_restored_after_a_failure() -> None:
    program, weights = export(Formula(FORMULAS["embedding, linear"]), rows_of(torch.float32))
    ids, x = rows_of(torch.float32)
    with pytest.raises(IndexError):
        run_float64(program.graph_module, {**weights, "ids": ids + 50, "x": x})
    assert torch.get_default_dtype() == torch.float32


def test_bits_are_read_from_stored_values_only() -> None:
    ids, x = rows_of(torch.float32)
    program, weights = export(Formula(lambda m, ids, x: x.view(torch.int32)), (ids, x))
    (bits,) = run_float64(program.graph_module, {**weights, "ids": ids, "x": x})
    assert torch.equal(bits, x.view(torch.int32))

    program, weights = export(Formula(lambda m, ids, x: (x * 2).view(torch.int32)), (ids, x))
    with pytest.raises(RankoptError, match="reads the bits of a computed value"):
        run_float64(program.graph_module, {**weights, "ids": ids, "x": x})


class _PeakStorage(TorchDispatchMode):
    """Sums the sizes of the live storages that operators made while the mode was on."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made_before = {leaf.untyped_storage()._cdata for leaf in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in made_before:
                self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: held for key, held in self._live.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


LOOK_UPS: dict[str, Callable[..., Tensor]] = {
    "embedding": lambda m, ids, x: m.table(ids).sum(1),
    "bag": lambda m, ids, x: F.embedding_bag(ids, m.table.weight, mode="sum"),
    "index": lambda m, ids, x: m.table.weight[ids[:, 0]],
    "index_select of a slice": lambda m, ids, x: m.table.weight[5:].index_select(0, ids[:, 0]),
    "a cast table": lambda m, ids, x: F.embedding(ids, m.table.weight.to(torch.float32)).sum(1),
    "new_zeros": lambda m, ids, x: m.table(ids).sum(1) + m.table.weight.new_zeros(50),
    "as type": lambda m, ids, x: (m.table(ids).sum(1) > 0).type_as(m.table.weight),
}


@pytest.mark.parametrize("name", LOOK_UPS)
def test_a_table_of_200_megabytes_is_not_copied(name: str) -> None:
    model = Formula(LOOK_UPS[name])
    model.table = nn.Embedding.from_pretrained(torch.zeros(1_000_000, 50))
    program, weights = export(model, rows_of(torch.float32))
    ids, x = rows_of(torch.float32, 500)
    with _PeakStorage() as memory:
        run_float64(program.graph_module, {**weights, "ids": ids, "x": x})
    assert 0 < memory.peak < 20e6


def test_a_widened_weight_is_freed_after_its_last_use() -> None:
    """Ten layers of 0.5 MB each, widened one at a time: never ten of them at once."""
    model = Formula(lambda m, ids, x: m.tower(x))
    model.tower = nn.Sequential(nn.Linear(4, 256), *(nn.Linear(256, 256) for _ in range(10)))
    program, weights = export(model, rows_of(torch.float32))
    ids, x = rows_of(torch.float32)
    with _PeakStorage() as memory:
        run_float64(program.graph_module, {**weights, "ids": ids, "x": x})
    assert 256 * 256 * 8 <= memory.peak < 2 * 256 * 256 * 8


def test_a_broadcast_is_not_widened() -> None:
    model = Formula(lambda m, ids, x: m.linear.weight.view(1, 12).expand(x.shape[0], 12) * x[:, :1])
    program, weights = export(model, rows_of(torch.float32))
    ids, x = rows_of(torch.float32, 20_000)
    with _PeakStorage() as memory:
        (scores,) = run_float64(program.graph_module, {**weights, "ids": ids, "x": x})
    assert scores.nbytes <= memory.peak < 1.5 * scores.nbytes


def in_float64(model: nn.Module, ids: Tensor, x: Tensor) -> Tensor:
    """What eager torch computes when whatever names float32 gets float64."""
    wide = copy.deepcopy(model).double()
    with torch.no_grad(), _Redirected():
        return wide(ids, x.double())


class _Redirected(TorchDispatchMode):
    """Independent of the interpreter: eager torch whose float32 requests are answered in float64."""

    def __enter__(self):
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *exc):
        torch.set_default_dtype(torch.float32)
        return super().__exit__(*exc)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        redirect = {torch.float32: torch.float64, torch.complex64: torch.complex128}
        args, kwargs = tree_map_only(torch.dtype, lambda named: redirect.get(named, named), (args, kwargs or {}))
        result = func(*args, **kwargs)
        return result.double() if isinstance(result, Tensor) and result.dtype == torch.float32 else result
