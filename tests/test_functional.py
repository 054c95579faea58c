"""In-place operators: the functional graph computes what the model does, and changes nothing."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from capturing import assert_equal_to, assert_functional, operators, small, two_inputs
from rankopt.capture import capture


def set_column(self, x):
    y = x * 2
    y[:, 0] = 0
    return y


def through_a_view(self, x):
    y = x * 2
    first = y[:, :3]
    first.add_(1)
    return y


def seen_before_and_after(self, x):
    y = x * 2
    before = y.sum(1)
    y.add_(x).mul_(0.5)
    return before + y.sum(1)


def alias_read_later(self, x):
    y = x * 2
    flat = y.view(-1)
    y.relu_()
    return y + flat.view(-1, 6)


def input_changed(self, x):
    return self.linear(x.clamp_(0, 1))


def masked_fill(self, x):
    return x.sigmoid().masked_fill_(x > 0, -1.0)


def mixed_dtypes(self, x):
    return x.clone().add_(x.double())


IN_PLACE = [set_column, through_a_view, seen_before_and_after, alias_read_later, masked_fill, mixed_dtypes]


@pytest.mark.parametrize("then", [*IN_PLACE, input_changed], ids=lambda then: then.__name__)
def test_in_place_operators_become_functional(then):
    model = small(then)
    captured = capture(model, two_inputs())
    assert_functional(captured)
    assert_equal_to(model, captured)


def test_simple_in_place_operators_need_no_second_trace(monkeypatch):
    monkeypatch.delattr(torch.export.ExportedProgram, "run_decompositions")
    model = small(lambda self, x: F.relu(self.linear(x), inplace=True).add_(x) * torch.tensor([2.0]))
    captured = capture(model, two_inputs())
    assert operators(captured) == ["linear", "add", "linear", "relu", "add", "mul"]
    assert_equal_to(model, captured)


@pytest.mark.parametrize("squeeze", [torch.squeeze, lambda x: x.squeeze(0).squeeze(-1), lambda x: x.squeeze((0, 1, 2))])
def test_squeeze_drops_no_rows_at_one_row(squeeze):
    model = small(lambda self, x: torch.cat([squeeze(x.unsqueeze(2)), x.sum(1, keepdim=True)], 1))
    captured = capture(model, two_inputs())
    assert_equal_to(model, captured)  # at two rows and more; at one, the model itself fails
    (scores,) = captured.run({"a": torch.randn(1, 6), "b": torch.randn(1, 6)})
    assert scores.shape == (1, 7)


def test_a_mutated_input_is_left_alone():
    class Clamps(nn.Module):
        def forward(self, x):
            return x.clamp_(0, 1) * 2

    captured = capture(Clamps().eval(), (torch.randn(5, 3),))
    x = torch.randn(4, 3)
    before = x.clone()
    captured.run({"x": x})
    assert torch.equal(x, before)


def test_autocast_regions_are_inlined():
    def then(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.linear(x).float()

    model = small(then)
    captured = capture(model, two_inputs())
    with torch.no_grad():
        a, b = two_inputs(9)
        torch.testing.assert_close(captured.run({"a": a, "b": b})[0], model(a, b), rtol=1e-2, atol=1e-2)


BY_ONE = [
    pytest.param(lambda self, x: x * 1.0, [], id="times one"),
    pytest.param(lambda self, x: x / 1, [], id="over one"),
    pytest.param(lambda self, x: x**1, [], id="to the power of one"),
    pytest.param(lambda self, x: x * 1.5, ["mul"], id="times another number"),
    pytest.param(lambda self, x: (x > 0) * 1.0, ["gt", "mul"], id="times one, to another dtype"),
]


@pytest.mark.parametrize(("then", "left"), BY_ONE)
def test_a_factor_of_one_is_no_call(then, left):
    model = small(then)
    captured = capture(model, two_inputs())
    assert operators(captured) == ["linear", "add", *left]
    assert_equal_to(model, captured)
