"""What cannot be captured is refused with the user's line, the cause and the fix."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from capturing import (
    Layers,
    Small,
    exported,
    size_as_int,
    small,
    two_inputs,
)
from rankopt.capture import capture
from rankopt.errors import CaptureError


def lines_of(function: Callable[..., Any]) -> list[str]:
    source, first = inspect.getsourcelines(function)
    return [f"{function.__code__.co_filename}:{line}\n" for line in range(first, first + len(source))]


def branch_on_data(self, x):
    if x.sum() > 0:
        return x
    return x * 2


def item_of_data(self, x):
    return x * x.sum().item()


def list_of_data(self, x):
    return x * torch.tensor(x.sum(0).tolist())


def list_of_data_and_int(self, x):
    return x * torch.tensor(x[0].tolist()) + torch.zeros(size_as_int(x), 6)


def numpy_of_data(self, x):
    return x + torch.from_numpy(x.numpy())


def boolean_rows(self, x):
    return x[x[:, 0] > 0].sum(0)


def nonzero_of_data(self, x):
    return x.sum() + (x > 0).nonzero().shape[0]


def masked_select_of_data(self, x):
    return x.masked_select(x > 0).sum() + x


def square_of_rows(self, x):
    b = size_as_int(x)
    return x + torch.zeros(b * b).sum() + torch.zeros(b * b)[:b, None]


def half_of_rows(self, x):
    return x[: size_as_int(x) // 2]


def loop_over_rows(self, x):
    return torch.stack([row * 2 for row in x.unbind(0)[: size_as_int(x)]])


def ramp_constant(self, x):
    return x * torch.tensor([float(i * i) for i in range(size_as_int(x))]).unsqueeze(1)


def counts_calls(self, x):
    self.calls.add_(1)
    return x * self.calls


def random_numbers(self, x):
    return x + torch.rand_like(x)


def always_drops(self, x):
    return F.dropout(x, 0.5, training=True)


REFUSED = {
    branch_on_data: "branch depends on the value",
    item_of_data: "read into Python",
    list_of_data: "read into Python",
    list_of_data_and_int: "read into Python",
    numpy_of_data: "read into Python",
    boolean_rows: "size depends on the data",
    nonzero_of_data: "size depends on the data",
    masked_select_of_data: "size depends on the data",
    square_of_rows: "number of rows is used as a Python int",
    half_of_rows: "number of rows is used as a Python int",
    loop_over_rows: "number of rows is used as a Python int",
    ramp_constant: "number of rows is used as a Python int",
    counts_calls: "changes the model's own state",
    random_numbers: "draws random numbers",
    always_drops: "in training mode",
}


@pytest.mark.parametrize(("then", "cause"), REFUSED.items(), ids=lambda value: getattr(value, "__name__", None))
def test_refused_with_line_cause_and_fix(then, cause):
    model = small(then, calls=torch.zeros(6))
    with pytest.raises(CaptureError, match=cause) as caught:
        capture(model, two_inputs())
    # The line of the refused operator, or where only `forward` was recorded, the line there.
    lines = [line for part in (then, Small.forward) for line in lines_of(part)]
    assert any(line in str(caught.value) for line in lines), caught.value
    assert "fix: " in str(caught.value)
    assert torch.equal(model.calls, torch.zeros(6))


def test_training_mode_is_refused():
    model = Layers()
    ids = (torch.randint(0, 20, (5, 3)),)
    with pytest.raises(CaptureError, match=r"training mode(.|\n)*Layers(.|\n)*eval\(\)"):
        capture(model, ids)
    model.eval()
    model.dropout.train()
    with pytest.raises(CaptureError, match="Dropout 'dropout'"):
        capture(model, ids)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(6)])
def test_programs_exported_in_training_mode_are_refused(layer):
    model = small(lambda self, x: self.layer(x), layer=layer)
    model.train()
    with pytest.raises(CaptureError, match="training mode"):
        capture(exported(model, two_inputs(7)))


def test_a_model_that_fails_is_told_where():
    def wrong_shape(self, x):
        return x @ torch.ones(7, 2)

    with pytest.raises(CaptureError, match=r"cannot be traced(.|\n)*test_refusals\.py"):
        capture(small(wrong_shape), two_inputs())


@pytest.mark.parametrize("limit", [3, 1000])
def test_another_path_at_other_row_counts_is_refused(limit):
    """The branch not taken for the example would be wrong, in silence, for fewer or for more rows."""

    class Branches(nn.Module):
        def forward(self, x):
            return x if x.shape[0] < limit else x * 2

    with pytest.raises(CaptureError, match=r"holds from \d+ rows(.|\n)*test_refusals\.py"):
        capture(Branches().eval(), two_inputs()[:1])


def test_a_weight_is_never_changed_by_capture():
    def counts_and_zeros(self, x):
        self.calls += 1
        return x * self.calls + torch.zeros(size_as_int(x), 6)

    model = small(counts_and_zeros, calls=torch.zeros(6))
    with pytest.raises(CaptureError, match="changes the model's own state"):
        capture(model, two_inputs())
    assert torch.equal(model.calls, torch.zeros(6))


def test_torchscript_is_refused():
    with pytest.warns(DeprecationWarning, match="trace"):
        traced = torch.jit.trace(nn.Linear(6, 6).eval(), two_inputs()[0])
    with pytest.raises(CaptureError, match="TorchScript"):
        capture(traced, two_inputs()[:1])
