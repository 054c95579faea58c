"""Small models, and how a captured one is compared with them: shared by the tests of capture."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from rankopt.capture import CapturedModel

ROW_COUNTS = (2, 3, 8, 77)


class Small(nn.Module):
    """A linear layer over `a` [R, 6] and `b` [R, 6], then whatever the case is about."""

    def __init__(self, then: Callable[..., Any], **state: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        for name, value in state.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        self.then = then

    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.then(self, self.linear(a) + b)


def two_inputs(rows: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 6), torch.randn(rows, 6)


def small(then: Callable[..., Any], **state: Any) -> Small:
    return Small(then, **state).eval()


def operators(captured: CapturedModel) -> list[str]:
    """The operators called, without overloads: `linear`, `relu`."""
    nodes = captured.graph_module.graph.find_nodes
    calls = [node for node in captured.graph_module.graph.nodes if node.op == "call_function"]
    assert nodes(op="call_module") == [] == nodes(op="get_attr")
    return [getattr(node.target, "overloadpacket", node.target).__name__ for node in calls]


def assert_equal_to(model: Callable[..., Any], captured: CapturedModel, row_counts=ROW_COUNTS) -> None:
    """Runs the captured graph and the model on rows drawn from the example, and compares their tensors."""
    for rows in row_counts:
        pick = torch.randint(0, next(t.shape[0] for t in captured.examples.values() if t.dim()), (rows,))
        inputs = {name: t[pick] if t.dim() else t for name, t in captured.examples.items()}
        args, kwargs = captured.unflatten_call({name: tensor.clone() for name, tensor in inputs.items()})
        with torch.no_grad():
            expected = model(*args, **kwargs)
        found = captured.unflatten_output(captured.run(inputs))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def assert_functional(captured: CapturedModel) -> None:
    for node in captured.graph_module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        assert schema is None or not schema.is_mutable, node.format_node()


class Layers(nn.Module):
    """One of each layer that must stay a single operator."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.batch_norm = nn.BatchNorm1d(8)
        self.layer_norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)  # [R, 3, 8]
        x = self.layer_norm(self.dropout(x))
        x = F.scaled_dot_product_attention(x, x, x).softmax(-1)
        x = torch.einsum("rfd,rgd->rfg", x, self.linear(x)) @ x
        return self.batch_norm(x.sum(1))


def size_as_int(x: Tensor) -> int:
    return int(x.shape[0])


def exported(model: nn.Module, args=(), kwargs=None, rows: Any = None) -> torch.export.ExportedProgram:
    rows = Dim("rows") if rows is None else rows
    args, kwargs = tuple(args), kwargs or {}
    names = list(inspect.signature(model.forward).parameters)
    dynamic = {name: {0: rows} for name in names}
    return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
