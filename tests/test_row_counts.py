"""Models that use the number of rows as a Python int."""

import pytest
import torch
from torch.nn import functional as F

from capturing import assert_equal_to, assert_functional, size_as_int, small, two_inputs
from rankopt.capture import capture

PYTHON_INT = {
    "zeros": lambda self, x: x + torch.zeros(size_as_int(x), 6),
    "reshape": lambda self, x: x.reshape(size_as_int(x), 2, 3).transpose(1, 2).reshape(size_as_int(x), -1),
    "folded": lambda self, x: (
        self.linear(x.repeat(3, 1)).reshape(3, size_as_int(x), 6).sum(0)
        + x.reshape(2 * size_as_int(x), 3).reshape(-1, 6)
    ),
    "arange": lambda self, x: x[torch.arange(size_as_int(x))],
    "slice": lambda self, x: torch.cat([x[: size_as_int(x) - 1], x[-1:] * 2]),
    "constant": lambda self, x: x * torch.tensor([2.0] * size_as_int(x)).unsqueeze(1),
    "constant_table": lambda self, x: x + torch.tensor([[1.0, 2, 3, 4, 5, 6]] * size_as_int(x)),
    "mean": lambda self, x: x - x.sum(0) / size_as_int(x),
    "in_place": lambda self, x: F.relu(self.linear(x), inplace=True) + torch.zeros(size_as_int(x), 6),
}


@pytest.mark.parametrize("spelling", PYTHON_INT)
def test_row_count_as_python_int(spelling):
    model = small(PYTHON_INT[spelling])
    captured = capture(model, two_inputs())
    assert_functional(captured)
    assert_equal_to(model, captured)
    found = {weight.name: weight.tensor for weight in captured.weights}
    assert found["linear.weight"] is model.linear.weight
    assert any("capturing.py" in (node.meta.get("stack_trace") or "") for node in captured.graph_module.graph.nodes)
