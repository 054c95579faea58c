"""Programs that the rewriting once got wrong, as the fuzzer printed them when it had shrunk them."""

from __future__ import annotations

from collections.abc import Callable

from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows

Program = Callable[[Recorder], list[Handle]]


def packed_columns(r: Recorder) -> list[Handle]:
    """The context part of a packed input was taken for the whole of it."""
    x0 = r.packed([0, 1, 2], 4, 3)
    v1 = r.call(aten.sub.Tensor, x0, x0)
    return [v1]


def rows_by_rows(r: Recorder) -> list[Handle]:
    """`[N, 2, 3] * [N, 1, 2, 3]` is `[N, N, 2, 3]`, not one product per row."""
    x0 = r.packed([0], 2, 3)
    v1 = r.call(aten.reshape.default, x0, [Rows(1), 1, 2, 3])
    v2 = r.call(aten.mul.Tensor, x0, v1)
    return [v2]


def cat_of_one_place(r: Recorder) -> list[Handle]:
    """A concatenation with one place left an axis of size one, which squeeze did not find."""
    x0 = r.context()
    x1 = r.target()
    v2 = r.call(aten.stack.default, [x0], -1)
    v3 = r.call(aten.squeeze.dim, v2, 1)
    v4 = r.call(aten.add.Tensor, v3, x1)
    return [v4]


def factored_four_ways(r: Recorder) -> list[Handle]:
    """Refining one pair of dims merged axes that an earlier pair had agreed on."""
    x0 = r.context(3, 4)
    x1 = r.target(4, 3)
    left = [r.call(aten.transpose.int, x, 1, 2) for x in (x0, x1)]
    v4, v5, v6 = (r.call(aten.reshape.default, x, [Rows(), 1, 12]) for x in (*left, x1))
    v7 = r.call(aten.cat.default, [v4, v5, v6, v6], 1)
    return [v7]


def power_of_integers(r: Recorder) -> list[Handle]:
    """An integer to the power of 1.0 is a float."""
    x0 = r.context(2, high=8)
    x1 = r.target(2)
    v2 = r.call(aten.pow.Tensor_Scalar, x0, 1.0)
    v3 = r.call(aten.add.Tensor, v2, x1)
    return [v3]


def large_mask(r: Recorder) -> list[Handle]:
    """`s + (1 - mask) * -1e9`: adding the large terms one by one lost the digits of `s`."""
    x0 = r.context(4)
    x1 = r.target(4)
    v2 = r.call(aten.gt.Scalar, x1, 0.0)
    v3 = r.call(aten._to_copy.default, v2, dtype=x1.dtype)
    v4 = r.call(aten.rsub.Scalar, v3, 1)
    v5 = r.call(aten.mul.Tensor, v4, -1e9)
    v6 = r.call(aten.add.Tensor, r.call(aten.mul.Tensor, x0, x1), v5)
    v7 = r.call(aten.softmax.int, v6, -1)
    return [v7]


def mask_of_attention(r: Recorder) -> list[Handle]:
    """A boolean mask was promoted to the type of the scores."""
    x0 = r.context(3, 4)
    x1 = r.target(2, 4)
    v2 = r.call(aten.select.int, x0, -1, 0)
    v3 = r.call(aten.unsqueeze.default, r.call(aten.gt.Scalar, v2, -9.0), 1)
    v4 = r.call(aten.scaled_dot_product_attention.default, x1, x0, x0, v3)
    return [v4]


def number_of_rows(r: Recorder) -> list[Handle]:
    """The number of rows as a number: no law computes with it."""
    x0 = r.context(4)
    x1 = r.target(4)
    v2 = r.call(aten.div.Tensor, r.call(aten.add.Tensor, x0, x1), Rows())
    v3 = r.call(aten.full.default, [Rows(), 4], Rows())
    return [v2, r.call(aten.add.Tensor, v2, v3)]


def view_of_tiled_rows(r: Recorder) -> list[Handle]:
    """A view that the model may take of its rows, and that tiled rows do not allow."""
    x0 = r.context(4)
    x1 = r.target(4)
    v2 = r.call(aten.view.default, x0, [Rows(2), 2])
    v3 = r.call(aten.view.default, r.call(aten.relu.default, v2), [Rows(), 4])
    return [r.call(aten.add.Tensor, v3, x1)]


def mean_of_nothing(r: Recorder) -> list[Handle]:
    """The mean of no elements is NaN; the law divided by zero when compiling."""
    x0 = r.context(4)
    x1 = r.target(4)
    v2 = r.call(aten.mean.dim, r.call(aten.slice.Tensor, x0, 1, 0, 0), [1], True)
    return [r.call(aten.add.Tensor, v2, x1)]


def permute_from_the_back(r: Recorder) -> list[Handle]:
    """A permutation that counts from the back composed to one that looked like the identity."""
    x0 = r.context(3, 4)
    x1 = r.target(3, 4)
    v2 = r.call(aten.permute.default, r.call(aten.add.Tensor, x0, x1), [-1, 0, 1])
    return [v2]


def masked_write(r: Recorder) -> list[Handle]:
    """`x[mask] = number`, left as it is, could not be computed for many requests at once."""
    x0 = r.context(4, 3)
    x1 = r.target(4, 3)
    v2 = r.call(aten.add.Tensor, x0, x1)
    v3 = r.call(aten.gt.Scalar, r.call(aten.select.int, v2, -1, 0), 0.0)
    v4 = r.call(aten.gt.Scalar, r.call(aten.select.int, x0, -1, 0), 0.0)
    return [r.call(aten.index_put.default, v2, [mask], r.weight()) for mask in (v3, v4)]


def sum_that_is_a_factor(r: Recorder) -> list[Handle]:
    """`q + q k^T / 2` was written into q while q was still to be multiplied, where no gradient is recorded."""
    x0 = r.target(4, 4)
    x1 = r.context(4, 4)
    v2 = r.call(aten.mul.Tensor, x0, x0)
    v3 = r.call(aten.add.Tensor, x0, x1)
    return [r.call(aten.scaled_dot_product_attention.default, v2, v3, v3, v2)]


def reshape_of_mixed_rows(r: Recorder) -> list[Handle]:
    """A reshape that mixes rows was taken in by one that does not, and taken for one in calls with many requests."""
    x0 = r.context(4)
    x1 = r.target(3)
    v2 = r.call(aten.reshape.default, r.call(aten.cat.default, [x0, x1], -1), [7, Rows(1)])
    return [r.call(aten.reshape.default, v2, [1, 7, Rows(1)])]


REGRESSIONS: tuple[Program, ...] = (
    packed_columns,
    rows_by_rows,
    cat_of_one_place,
    factored_four_ways,
    power_of_integers,
    large_mask,
    mask_of_attention,
    number_of_rows,
    view_of_tiled_rows,
    mean_of_nothing,
    permute_from_the_back,
    masked_write,
    sum_that_is_a_factor,
    reshape_of_mixed_rows,
)
