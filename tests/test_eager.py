"""Eager execution: the same bits, fewer intermediates, arguments untouched."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from rankopt.eager import eager
from rankopt.emit import emit
from rankopt.program import Expr, Program, Stage, aten, reachable


def _two_layers() -> tuple[Program, Expr, Expr]:
    program = Program()
    x = program.input("x", (3, 4), torch.float32, Stage.CONTEXT)
    w = program.input("w", (4, 4), torch.float32, Stage.CONTEXT)
    return program, x, w


def _emitted(arguments: dict[str, Expr], *results: Expr) -> fx.GraphModule:
    body = [expr for expr in reachable(list(results)) if expr not in arguments.values()]
    return emit(arguments, body, results, "Stage")


def _methods(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_method"]


def _mm(program: Program, x: Expr, w: Expr) -> Expr:
    return program.call(aten.mm.default, x, w, shape=(x.dims[0], w.dims[1]), out=x.dtype)


def _run(module: fx.GraphModule) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    arguments = [torch.randn(3, 4), torch.randn(4, 4)]
    kept = [argument.clone() for argument in arguments]
    expected: tuple[Tensor, ...] = module(*arguments)
    found: tuple[Tensor, ...] = eager(module)(*arguments)
    assert all(map(torch.equal, found, expected))
    assert all(map(torch.equal, arguments, kept))
    return found


def test_a_dead_intermediate_is_overwritten() -> None:
    program, x, w = _two_layers()
    module = _emitted({"x": x, "w": w}, program.pointwise(aten.relu.default, program.add(x, _mm(program, x, w))))
    assert _methods(eager(module)) == ["add_", "relu_"]
    _run(module)


def test_an_argument_is_not_overwritten() -> None:
    program, x, w = _two_layers()
    module = _emitted({"x": x, "w": w}, program.pointwise(aten.relu.default, program.view(x, (12,))), w)
    assert _methods(eager(module)) == ["reshape"]
    _run(module)


def test_what_is_read_later_is_not_overwritten_not_even_through_a_view() -> None:
    program, x, w = _two_layers()
    product = _mm(program, x, w)
    flat = program.view(product, (12,))
    module = _emitted(
        {"x": x, "w": w}, program.pointwise(aten.relu.default, product), program.pointwise(aten.exp.default, flat)
    )
    assert "relu_" not in _methods(eager(module))
    _run(module)


def test_an_operand_that_meets_a_view_of_itself_is_not_overwritten() -> None:
    program = Program()
    x = program.input("x", (4, 4), torch.float32, Stage.CONTEXT)
    product = _mm(program, x, x)
    module = _emitted({"x": x}, program.add(product, program.permute(product, [1, 0])))
    assert "add_" not in _methods(eager(module))


def test_a_product_does_not_overwrite_its_factor() -> None:
    """`y + y W`: the sum may not be written into y while rows of y are still to be multiplied. `y * y` may be."""
    program, x, w = _two_layers()
    y = program.view(_mm(program, x, w), (1, 3, 4))
    weights = program.view(w, (1, 4, 4))
    product = program.call(aten.baddbmm.default, y, y, weights, shape=(1, 3, 4), out=x.dtype)
    module = _emitted({"x": x, "w": w}, product)
    assert "baddbmm_" not in _methods(eager(module))
    _run(module)
    square = _mm(program, x, w)
    module = _emitted({"x": x, "w": w}, program.mul(square, square))
    assert _methods(eager(module)) == ["mul_"]
    _run(module)


def test_an_expanded_tensor_is_not_overwritten() -> None:
    program, x, w = _two_layers()
    row = program.reduce(aten.sum.dim_IntList, _mm(program, x, w), [0])
    wide = program.expand(program.view(row, (1, 4)), (3, 4))
    module = _emitted({"x": x, "w": w}, program.pointwise(aten.relu.default, wide))
    assert "relu_" not in _methods(eager(module))
    _run(module)
