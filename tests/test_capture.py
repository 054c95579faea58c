"""Capture: ways to call a model, what is kept of it, and the kinds of model there are."""

import pytest
import torch
from torch import fx, nn
from torch.export import Dim
from torch.nn import functional as F

import rankopt
from capturing import Layers, assert_equal_to, assert_functional, exported, operators, small, two_inputs
from rankopt.capture import capture, name_inputs
from rankopt.errors import CaptureError, InputError


class Calls(nn.Module):
    """Positional, keyword, nested and optional arguments in one signature."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)

    def forward(self, features, history, *extra, mask=None, scale=1.0, **named):
        x = self.table(features["user"]) + self.table(features["item"]["id"]) + self.table(history[0]).sum(1)
        for tensor in (*extra, *named.values()):
            x = x + tensor
        x = x if mask is None else x * mask
        return x.sum(1) * scale


def test_inputs_are_named_by_their_path():
    ids = torch.randint(0, 50, (5,))
    args = ({"user": ids, "item": {"id": ids}}, [torch.randint(0, 50, (5, 3))], torch.randn(5, 4))
    kwargs = {"scale": 2.0, "price": torch.randn(5, 4), "mask": torch.ones(5, 4)}
    expected = ["features.user", "features.item.id", "history.0", "extra.0", "mask", "price"]
    model = Calls().eval()
    assert list(name_inputs(model, args, kwargs)) == expected
    captured = capture(model, args, kwargs)
    assert [item.name for item in captured.inputs] == expected
    assert captured.inputs[2].shape == (5, 3)
    assert captured.inputs[2].dtype == torch.int64
    assert_equal_to(model, captured)


def test_position_or_keyword_does_not_matter():
    model = small(lambda self, x: x.relu())
    a, b = two_inputs()
    captured = capture(model, (a,), {"b": b})
    assert list(captured.flatten_call((), {"b": b, "a": a})) == ["a", "b"]
    assert captured.flatten_call((a, b))["b"] is b


def test_what_does_not_fit_is_an_input_error():
    model = small(lambda self, x: x.relu())
    a, b = two_inputs()
    with pytest.raises(InputError, match="missing a required argument: 'b'"):
        capture(model, (a,))
    with pytest.raises(InputError, match="'a' has 5, 'b' has 4"):
        capture(model, (a, b[:4]))
    with pytest.raises(InputError, match="no rows"):
        capture(model, (a[:0], b[:0]))
    captured = capture(model, (a, b))
    with pytest.raises(InputError, match="'b' is missing or no tensor"):
        captured.flatten_call((a, None))


def test_plain_values_are_part_of_the_program():
    ids = torch.randint(0, 50, (5,))
    args = ({"user": ids, "item": {"id": ids}}, [torch.randint(0, 50, (5, 3))])
    captured = capture(Calls().eval(), args, {"scale": 3.0})
    assert [item.name for item in captured.inputs] == ["features.user", "features.item.id", "history.0"]
    captured.flatten_call(args, {"scale": 3.0})
    with pytest.raises(InputError, match=r"'scale' is 4.0, but the model was captured with 3.0"):
        captured.flatten_call(args, {"scale": 4.0})


def test_an_object_that_hides_its_tensors_is_refused():
    class Batch:
        x = torch.randn(5, 6)

    model = small(lambda self, x: x)
    with pytest.raises(InputError, match=r"'b' is a Batch(.|\n)*register_dataclass"):
        capture(model, (torch.randn(5, 6), Batch()))
    with pytest.raises(InputError, match="'b' is a ndarray"):
        capture(model, (torch.randn(5, 6), torch.randn(5, 6).numpy()))


def test_scalar_tensors_are_shared_by_all_rows():
    class Tempered(nn.Module):
        def forward(self, x, temperature):
            return (x / temperature).softmax(1)

    captured = capture(Tempered().eval(), (torch.randn(5, 3), torch.tensor(2.0)))
    assert captured.inputs[1].shape == ()
    assert_equal_to(Tempered(), captured)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_packed_inputs(dtype):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables = nn.ModuleList([nn.Embedding(9, 4) for _ in range(3)])

        def forward(self, x):
            ids = x.long()
            return torch.stack([table(ids[:, i]) for i, table in enumerate(self.tables)], dim=1).sum(2)

    model = Packed().eval()
    captured = capture(model, (torch.randint(0, 9, (5, 3)).to(dtype),))
    assert captured.inputs[0].name == "x"
    assert operators(captured).count("embedding") == 3
    assert_equal_to(model, captured)


def test_one_example_row_is_enough():
    model = small(lambda self, x: x * x.sum(1, keepdim=True))
    captured = capture(model, two_inputs(1))
    assert captured.inputs[0].shape == (2, 6)
    assert_equal_to(model, captured, (1, 2, 77))


@pytest.mark.parametrize(
    "output",
    [
        lambda self, x: x,
        lambda self, x: (x, x.sum(1)),
        lambda self, x: {"click": x.sum(1), "more": [x.mean(1), None], "version": 3},
    ],
)
def test_outputs_are_nested_as_they_were(output):
    model = small(output)
    assert_equal_to(model, capture(model, two_inputs()))


# ------------------------------------------------------------------------- what is kept


def test_layers_stay_single_operators():
    model = Layers().eval()
    captured = capture(model, (torch.randint(0, 20, (5, 3)),))
    kept = [
        "embedding",
        "layer_norm",
        "scaled_dot_product_attention",
        "softmax",
        "linear",
        "einsum",
        "matmul",
    ]
    assert operators(captured) == [*kept, "sum", "batch_norm"]
    assert_equal_to(model, captured)


def test_weights_are_the_models_own_tensors():
    model = Layers().eval()
    model.constant = torch.arange(8.0)
    captured = capture(model, (torch.randint(0, 20, (5, 3)),))
    found = {weight.name: weight for weight in captured.weights}
    for name, parameter in model.named_parameters():
        assert found[name].tensor is parameter
        assert found[name].is_parameter
        assert parameter.requires_grad
    for name, buffer in model.named_buffers():
        assert found[name].tensor is buffer
        assert not found[name].is_parameter


def test_shared_parameters_keep_both_names():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.second.weight = self.first.weight

        def forward(self, a):
            return self.second(self.first(a).relu())

    model = Tied().eval()
    captured = capture(model, two_inputs()[:1])
    assert_equal_to(model, captured)
    found = {weight.name: weight.tensor for weight in captured.weights}
    assert found["first.weight"] is found["second.weight"] is model.first.weight


def test_nodes_know_the_line_they_came_from():
    model = Layers().eval()
    captured = capture(model, (torch.randint(0, 20, (5, 3)),))
    (einsum,) = [n for n in captured.graph_module.graph.nodes if n.name == "einsum"]
    assert "capturing.py" in einsum.meta["stack_trace"]
    assert "exporting.py" not in einsum.meta["stack_trace"]
    assert einsum.meta["val"].shape[0].node.expr == captured.rows


def test_the_same_model_gives_the_same_graph():
    texts = {str(capture(Layers().eval(), (torch.randint(0, 20, (5, 3)),)).graph_module.graph) for _ in range(2)}
    assert len(texts) == 1


def test_nothing_of_the_process_is_changed():
    model = Layers().eval()
    before = torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled()
    capture(model, (torch.randint(0, 20, (5, 3)),))
    assert (torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled()) == before
    assert not model.training


@pytest.mark.parametrize(
    "attention",
    [
        lambda: nn.TransformerEncoderLayer(6, 2, 12, batch_first=True),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), 1),
    ],
)
def test_transformers_are_captured_as_written(attention):
    class History(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = attention()

        def forward(self, history):
            return self.encoder(history).mean(1)

    model = History().eval()
    captured = capture(model, (torch.randn(5, 4, 6),))
    assert not [name for name in operators(captured) if "native" in name or "_fwd" in name]
    assert "layer_norm" in operators(captured)
    assert_equal_to(model, captured)


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention(need_weights):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=need_weights)[0].sum(1)

    model = Attention().eval()
    captured = capture(model, (torch.randn(5, 4, 8),))
    assert "linear" in operators(captured)
    assert_equal_to(model, captured)


# ------------------------------------------------------------------------- other kinds of model


def test_graph_module():
    class Traceable(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.dropout = nn.Linear(6, 6), nn.Dropout(0.5)

        def forward(self, a, b):
            return self.dropout(self.linear(a)) * b

    model = Traceable().eval()
    captured = capture(fx.symbolic_trace(model), two_inputs())
    assert operators(captured) == ["linear", "mul"]
    assert {weight.name for weight in captured.weights} == {"linear.weight", "linear.bias"}
    assert_equal_to(model, captured)


@pytest.mark.parametrize("saved", [False, True])
def test_exported_program(saved, tmp_path):
    model = small(lambda self, x: {"score": F.relu(self.linear(x), inplace=True).sum(1)})
    a, b = two_inputs(7)
    program = exported(model, (a,), {"b": b})
    if saved:
        torch.export.save(program, tmp_path / "model.pt2")
        program = torch.export.load(tmp_path / "model.pt2")
    before = str(program.graph)
    assert list(name_inputs(program, (a,), {"b": b})) == ["a", "b"]
    calls = [((), {}), ((a[:1],), {"b": b[:1]}), ((), {"b": b, "a": a})]
    for captured in [capture(program, *call) for call in calls]:
        assert [item.name for item in captured.inputs] == ["a", "b"]
        assert {weight.name for weight in captured.weights} == {"linear.weight", "linear.bias"}
        assert_functional(captured)
        assert_equal_to(model, captured)
    assert str(program.graph) == before


def test_exported_program_without_example():
    model = Layers().eval()
    program = exported(model, (torch.randint(0, 20, (7, 3)),))
    program._example_inputs = None
    captured = capture(program)
    assert captured.examples["ids"].shape == (2, 3)
    assert_equal_to(model, captured)


def test_exported_program_with_a_submodule_called_model():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(6, 1)

        def forward(self, a):
            return self.model(a)

    for outer in (Outer().eval(), exported(Outer().eval(), two_inputs(7)[:1])):
        captured = capture(outer, two_inputs(7)[:1])
        assert {weight.name for weight in captured.weights} == {"model.weight", "model.bias"}


def test_exported_program_with_arguments_named_like_functions_of_python(tmp_path):
    class Model(nn.Module):
        def forward(self, input, type, input_1):
            return (input * type + input_1).sum(1)

    rows = tuple(torch.randn(5, 3) for _ in range(3))
    program = exported(Model(), rows)
    captured = capture(program)
    assert [item.name for item in captured.inputs] == ["input", "type", "input_1"]
    assert_equal_to(Model(), captured)
    ranker = rankopt.optimize(program, ["input"])
    ranker.save(tmp_path / "ranker.pt2")
    request = {"input": rows[0][:1]}, {"type": rows[1], "input_1": rows[2]}
    expected = Model()(rows[0][:1].expand(5, 3), *rows[1:])
    torch.testing.assert_close(ranker(*request), expected)
    torch.testing.assert_close(rankopt.load(tmp_path / "ranker.pt2")(*request), expected)


def test_exported_program_for_a_limited_number_of_rows():
    model = small(lambda self, x: x.relu())
    assert capture(exported(model, two_inputs(7))).max_rows is None
    assert capture(exported(model, two_inputs(7), rows=Dim("rows", max=4096))).max_rows == 4096


def test_a_compiled_module_is_captured_as_the_module_inside():
    model = small(lambda self, x: x.relu())
    captured = capture(torch.compile(model, backend="eager"), two_inputs())
    assert {weight.name for weight in captured.weights} == {"linear.weight", "linear.bias"}


@pytest.mark.parametrize("rows", [Dim.STATIC, Dim.AUTO])
def test_exported_program_without_shared_rows_is_refused(rows):
    model = small(lambda self, x: x)
    model.forward = lambda a, b: {"a": a * 2, "b": b * 2}
    with pytest.raises(CaptureError, match=r"do not share one dynamic leading dimension(.|\n)*dynamic_shapes"):
        capture(exported(model, two_inputs(7), rows=rows))
