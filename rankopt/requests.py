"""Requests: drawn at random from example inputs, and turned into the rows that the original model reads.

A request is one context row and N target rows. The original model reads N rows in which the context is
repeated. A packed input has context and target columns in one tensor: it stands in both parts of a request
under the same name, each time with its own columns.

Drawn values stay in the range that the examples show, column by column, so that an id never leaves the table
that it looks up. Examples of a single row show no range: what is drawn from them is that row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rankopt.errors import InputError
from rankopt.selectors import InputRole, Role

COPIED = 0.5
"""The share of drawn rows that are copies of an example row, the same one in every input drawn. Padding,
masks and lengths fit each other there as in the examples."""


@dataclass(frozen=True, slots=True)
class Request:
    """One context and its candidates, by input name: context tensors [1, ...], target tensors [N, ...].

    An input without dimensions is the same for every row: it stands in the context as it is.
    """

    context: dict[str, Tensor]
    target: dict[str, Tensor]

    @property
    def candidates(self) -> int:
        """N. Raises InputError if the target inputs do not agree on it, or if there is none."""
        return _row_count(self.target, "the target inputs")


def draw_request(
    roles: Sequence[InputRole], examples: Mapping[str, Tensor], candidates: int, generator: torch.Generator
) -> Request:
    """A random request of N = `candidates` rows; `draw_rows` says what is drawn from the examples [R, ...].

    The same state of the generator gives the same request. Raises InputError if an example is missing or
    has no rows to draw from.
    """
    request = split_columns(roles, examples)
    return Request(context=_draw(request.context, 1, generator), target=_draw(request.target, candidates, generator))


def draw_rows(example: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """Random rows [rows, ...] like those of an example [R, ...], of its dtype and device.

    Half of them are example rows. In the other half every position is drawn for itself, from what the
    examples have there: integers (and floats that are whole numbers) uniformly between the smallest and the
    largest, bools with their frequency, other floats from a normal distribution with their mean and
    deviation, cut off at the smallest and the largest. Tensors with infinities or NaN (additive masks) have
    example rows only. Raises InputError if the example has no rows and some are asked for.
    """
    return _draw({"example": example}, rows, generator)["example"]


def tile(roles: Sequence[InputRole], request: Request) -> dict[str, Tensor]:
    """The rows [N, ...] that the original model reads for a request, by input name in the order of the roles.

    Raises InputError if an input is missing, the context does not have one row, the target inputs differ in
    their number of rows, or the parts of a packed input do not fit its columns.
    """
    rows = request.candidates
    return {role.name: _tile_input(role, request, rows) for role in roles}


def split_rows(roles: Sequence[InputRole], rows: Mapping[str, Tensor], check: bool = False) -> Request:
    """The request that rows [N, ...] with a common context were made of: the reverse of `tile`.

    The context is that of the first row; without rows it is zero, as there is nothing to score. With
    `check`, raises InputError if the context differs between rows. Raises InputError if an input is missing
    or the numbers of rows differ.
    """
    columns = split_columns(roles, rows)
    _row_count(rows, "the inputs")
    if check:
        for name, values in columns.context.items():
            _require_one_context(name, values)
    return Request({name: _first_row(values) for name, values in columns.context.items()}, columns.target)


def split_columns(roles: Sequence[InputRole], rows: Mapping[str, Tensor]) -> Request:
    """The context and the target part of rows, both still with all their rows [R, ...].

    Raises InputError if an input is missing.
    """
    context: dict[str, Tensor] = {}
    target: dict[str, Tensor] = {}
    for role in roles:
        values = _named(role.name, rows)
        if role.role is Role.PACKED:
            context[role.name] = _columns(values, role.context_columns)
            target[role.name] = _columns(values, role.target_columns)
        elif role.role is Role.CONTEXT or values.dim() == 0:
            context[role.name] = values
        else:
            target[role.name] = values
    return Request(context, target)


def _draw(examples: Mapping[str, Tensor], rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Random rows of several inputs, of which the copied ones come from the same example row in each."""
    device = generator.device
    position = torch.rand(rows, generator=generator, device=device, dtype=torch.float64)
    copied = torch.rand(rows, generator=generator, device=device) < COPIED
    drawn = {}
    for name, example in examples.items():
        if example.dim() == 0:
            drawn[name] = example
            continue
        if len(example) == 0 and rows > 0:
            raise InputError(
                f"the example of input '{name}' has no rows: there is nothing to draw a request from.\n"
                f"  fix: give at least one example row, better a hundred that show the range of its values"
            )
        observed = example.to(device)
        copies = observed[(position * len(observed)).long()]  # [rows, ...]
        fresh = _fresh(observed, copies, generator)
        chosen = copied.reshape(-1, *[1] * (example.dim() - 1))
        drawn[name] = torch.where(chosen, copies, fresh).to(example.device)
    return drawn


def _fresh(observed: Tensor, copies: Tensor, generator: torch.Generator) -> Tensor:
    """Rows in the shape of `copies`, every position drawn for itself; `copies` if there is no range."""
    if copies.numel() == 0:
        return copies
    if observed.dtype == torch.bool:
        share = torch.rand(copies.shape, generator=generator, device=copies.device)
        return share < observed.float().mean(0)
    if observed.is_floating_point():
        return _fresh_floats(observed, copies, generator)
    if observed.is_complex():
        return copies
    return _fresh_integers(observed, copies, generator)


def _fresh_integers(observed: Tensor, copies: Tensor, generator: torch.Generator) -> Tensor:
    low, high = observed.long().amin(0), observed.long().amax(0)
    span = high - low + 1
    if bool((span <= 0).any()):  # hashed ids over all of int64: their range does not fit in int64
        return copies
    steps = torch.randint(2**63 - 1, copies.shape, generator=generator, device=copies.device) % span
    return (low + steps).to(copies.dtype)


def _fresh_floats(observed: Tensor, copies: Tensor, generator: torch.Generator) -> Tensor:
    if not bool(observed.isfinite().all()):
        return copies
    values = observed.double()
    low, high = values.amin(0), values.amax(0)
    shape, device = copies.shape, copies.device
    uniform = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
    normal = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
    whole = low + (uniform * (high - low + 1)).floor()
    spread = values.mean(0) + values.std(0, correction=0) * normal
    drawn = torch.where((values == values.floor()).all(0), whole, spread)
    return drawn.clamp(low, high).to(copies.dtype)


def _tile_input(role: InputRole, request: Request, rows: int) -> Tensor:
    if role.role is Role.PACKED:
        return _pack(role, _one_row(role.name, request.context), _named(role.name, request.target))
    shared = request.context.get(role.name)
    if shared is not None and shared.dim() == 0:
        return shared
    if role.role is Role.TARGET:
        return _named(role.name, request.target)
    context = _one_row(role.name, request.context)
    return context.repeat(rows, *[1] * (context.dim() - 1))


def _pack(role: InputRole, context: Tensor, target: Tensor) -> Tensor:
    """Put both parts of a packed input in their columns: [1, c, ...] and [N, t, ...] -> [N, c + t, ...]."""
    found = [(context.dtype, *context.shape[1:]), (target.dtype, *target.shape[1:])]
    rest = target.shape[2:]
    expected = [
        (target.dtype, len(role.context_columns), *rest),
        (target.dtype, len(role.target_columns), *rest),
    ]
    if found != expected:
        raise InputError(
            f"the parts of the packed input '{role.name}' do not fit its columns.\n"
            f"  expected: context {list(expected[0])}, target {list(expected[1])}\n"
            f"  found: context {list(found[0])}, target {list(found[1])}, as dtype and shape of a row\n"
            f"  fix: give each part its own columns of the input, in one dtype"
        )
    packed = target.new_empty(len(target), len(role.context_columns) + len(role.target_columns), *rest)
    packed[:, list(role.context_columns)] = context
    packed[:, list(role.target_columns)] = target
    return packed


def _columns(values: Tensor, columns: tuple[int, ...]) -> Tensor:
    return values.index_select(1, torch.tensor(columns, dtype=torch.long, device=values.device))


def _first_row(values: Tensor) -> Tensor:
    if values.dim() == 0:
        return values
    return values[:1] if len(values) else values.new_zeros(1, *values.shape[1:])


def _one_row(name: str, context: Mapping[str, Tensor]) -> Tensor:
    values = _named(name, context)
    if values.dim() > 0 and len(values) == 1:
        return values
    raise InputError(
        f"context input '{name}' has shape {list(values.shape)}: expected one row, [1, ...].\n"
        f"  fix: give the context of one request; score requests one at a time"
    )


def _named(name: str, values: Mapping[str, Tensor]) -> Tensor:
    if name in values:
        return values[name]
    raise InputError(f"input '{name}' is missing.\n  given: {', '.join(values) or 'nothing'}\n  fix: add '{name}'")


def _row_count(values: Mapping[str, Tensor], which: str) -> int:
    counts = {name: len(value) for name, value in values.items() if value.dim() > 0}
    if len(set(counts.values())) == 1:
        return next(iter(counts.values()))
    found = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "no input with rows"
    raise InputError(
        f"{which} must have one number of rows.\n  found: {found}\n  fix: give every one of them a row per candidate"
    )


def _require_one_context(name: str, values: Tensor) -> None:
    """Raise InputError at the first row whose context is not that of row 0; NaN equals NaN."""
    if values.dim() == 0 or len(values) < 2:
        return
    same = (values == values[:1]) | ((values != values) & (values != values)[:1])
    same_rows = same.flatten(1).all(1) if values.dim() > 1 else same
    if bool(same_rows.all()):
        return
    row = int((~same_rows).nonzero()[0])
    raise InputError(
        f"context input '{name}' differs between the rows of one call: row {row} is not row 0.\n"
        f"  expected: one context, repeated in every row\n"
        f"  fix: call once per request, or declare '{name}', or the columns that differ, as target"
    )
