"""What must hold for every rewritten ranker, checked on one captured model.

Its scores are those of the model, under every policy and at any number of candidates: in float64 to rounding, in the
served type no further from the float64 truth than twice the original. And what follows from the definition, whatever
the model computes: candidates permuted are scores permuted; one by one, in chunks, all at once are the same; a NaN of
one candidate stays with it; a context input declared as target changes nothing.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from properties.checking import Mismatch
from rankers.drawing import RUNS
from rankers.model import EXAMPLES, Description, RandomRanker
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

import rankopt
from rankopt.agreement import MASKED
from rankopt.backends import profile_of
from rankopt.capture import CapturedModel, capture
from rankopt.errors import CaptureError, ExportError
from rankopt.float64 import run_float64
from rankopt.pipeline import build
from rankopt.plan import FULL, POLICIES, UNSHARED, Plan, interpret, other_forms
from rankopt.ranker import Ranker
from rankopt.requests import Request, split_columns, tile
from rankopt.selectors import InputRole, Role
from rankopt.verify import placeholders
from rankopt.workspace import Policy

EVERY_POLICY = (*POLICIES, UNSHARED, *other_forms(FULL))
ROW_COUNTS = (33, 1, 2)
TOLERANCE = 1e-9
"""In float64, of the largest number that the model computes along the way."""

ROUNDINGS = 16
"""Sums in another order round some intermediate values differently: so many units in the last place of the largest of
them are no error. The original may be right by luck, and twice nothing is nothing."""


@dataclass
class Case:
    """A captured ranker: everything that the checks share."""

    given: Description
    model: RandomRanker
    captured: CapturedModel
    roles: tuple[InputRole, ...]
    candidates: int
    backend: str
    truths: dict[int, tuple[list[Tensor], list[Tensor]] | None] = field(default_factory=dict)
    scale: float = 1.0

    @property
    def floor(self) -> float:
        """The error in the served type that rounding excuses."""
        casts = [step.options.get("form") == "half" for step in self.given.steps if step.block == "cast"]
        dtype = torch.bfloat16 if any(casts) else self.given.dtype
        if dtype == torch.float64 and any(item.kind == "float ids" for item in self.given.inputs):
            dtype = torch.float32  # as which ids come, whatever the model is, and are computed with
        return ROUNDINGS * torch.finfo(dtype).eps * self.scale

    def floor_of(self, expected: Tensor) -> float:
        """The same, where a result is larger than what counts as an ordinary number along the way."""
        return self.floor * self.reach(expected) / self.scale

    def reach(self, expected: Tensor) -> float:
        """The largest of the ordinary numbers along the way, or of the results."""
        finite = expected.double().abs()[expected.isfinite()]
        return max(self.scale, float(finite.max())) if finite.numel() else self.scale

    def request(self, count: int) -> Request:
        """The request of so many candidates. With two, everything that is masked or padded is so for the request."""
        rows = self.given.rows(max(count, 1), seed=count)
        if count == 2:
            rows = {k: v if v.is_floating_point() else torch.zeros_like(v) for k, v in rows.items()}
        split = split_columns(self.roles, rows)
        first = {name: value[:1] if value.ndim else value for name, value in split.context.items()}
        return Request(first, {name: value[:count] for name, value in split.target.items()})

    def features(self, request: Request) -> dict[str, Tensor]:
        """The rows that the model reads."""
        return {name.removeprefix("features."): rows for name, rows in tile(self.roles, request).items()}

    def original(self, request: Request) -> list[Tensor]:
        """The outputs of the model itself."""
        with torch.no_grad(), slow_path():
            return tensors_of(self.model(self.features(request)))

    def both(self, request: Request) -> tuple[list[Tensor], list[Tensor]] | None:
        """What the model gives and what is true; None where the model itself fails, as `view(0, -1)` does."""
        try:
            return self.original(request), self.truth(request)
        except (RuntimeError, IndexError):
            return None

    def truth(self, request: Request) -> list[Tensor]:
        """The outputs in float64."""
        return run_float64(
            self.captured.graph_module, placeholders(self.captured, tile(self.roles, request)), keep=self._note
        )

    def _note(self, _: str, value: Tensor) -> None:
        if value.is_floating_point() and value.numel():
            ordinary = value.double().abs()
            ordinary = ordinary[ordinary <= MASKED]
            self.scale = max(self.scale, float(ordinary.max())) if ordinary.numel() else self.scale

    def ranker(self, plan: Plan, roles: Sequence[InputRole] | None = None) -> Ranker:
        return build(self.captured, self.roles if roles is None else roles, plan)

    def plan(self, policy: Policy, roles: Sequence[InputRole] | None = None) -> Plan:
        profile = profile_of(self.backend)
        return interpret(self.captured, self.roles if roles is None else roles, self.candidates, policy, None, profile)


@contextmanager
def slow_path() -> Iterator[None]:
    """Attention as it is written: the fused kernel of eager torch treats histories that are masked whole otherwise."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def as_target(roles: Sequence[InputRole], names: Sequence[str]) -> tuple[InputRole, ...]:
    """The same roles, but for inputs that are the candidates' now."""
    return tuple(InputRole(role.name, Role.TARGET) if role.name in names else role for role in roles)


def tensors_of(output: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def check(given: Description, turn: int = 0) -> str:
    """Raises Mismatch where a rewritten ranker is not the model.

    Returns `rewritten` where something is computed once per request, else `unchanged`, and `refused` where the model
    cannot be captured.

    `turn` says which policy besides the full one, and which of the expensive checks, is due.
    """
    model = RandomRanker(given, RUNS)
    rows = {name.removeprefix("features."): value for name, value in given.rows(EXAMPLES).items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        captured = capture(model, (), {"features": rows})
    except CaptureError:
        return "refused"
    case = Case(
        given, model, captured, given.roles(), (512, 2, 50, 2000)[turn % 4], ("eager", "onnxruntime")[turn // 4 % 2]
    )
    plan = case.plan(FULL)
    others = [policy for policy in EVERY_POLICY if policy is not FULL]
    other = others[turn % len(others)]
    same_scores(case, FULL, plan)
    captured_rightly(case)
    same_scores(case, other, case.plan(other))
    for count in (3, 5):  # the numbers that the other checks meet
        case.both(case.request(count))
    ranker = case.ranker(plan)
    for i, metamorphic in enumerate(METAMORPHIC):
        if i < CHEAP or turn % len(METAMORPHIC) == i:
            metamorphic(case, ranker)
    for name, value in model.state_dict().items():
        if not torch.equal(value, before[name]):
            raise Mismatch(f"state: '{name}' of the model has changed")
    shared = any(node.op == "call_function" for node in ranker.stages.context_stage.graph.nodes)
    return "rewritten" if shared else "unchanged"


def captured_rightly(case: Case) -> None:
    """In float64 the captured graph, which is the truth of all else, is the model. Not where the model casts itself."""
    if case.truths[ROW_COUNTS[0]] is None or any(step.block == "cast" for step in case.given.steps):
        return
    model = copy.deepcopy(case.model).double()
    model.given = replace(case.given, dtype=torch.float64)
    request = case.request(ROW_COUNTS[0])
    features = {k: v.double() if v.is_floating_point() else v for k, v in case.features(request).items()}
    with torch.no_grad(), slow_path():
        found = tensors_of(model(features))
    for i, (one, other) in enumerate(zip(case.truth(request), found, strict=True)):
        require_close("capture", one, other, TOLERANCE * case.reach(other), f"output {i}")


def same_scores(case: Case, policy: Policy, plan: Plan) -> None:
    """At every number of candidates, in float64 and as served."""
    unshared = as_target(case.roles, [item.name for item in case.captured.inputs if item.shape])
    roles = case.roles if policy.share else unshared
    ranker = case.ranker(plan, roles)
    worst, allowed = 0.0, 0.0
    for count in ROW_COUNTS:
        request = case.request(count)
        given = split_columns(roles, tile(case.roles, request)) if not policy.share else request
        if count not in case.truths:
            case.truths[count] = case.both(request)
        if case.truths[count] is None:
            continue
        original, truth = case.truths[count]
        with torch.no_grad():
            found = list(ranker.outputs(ranker.context_stage(given.context), given.target))
        wide = run_float64(ranker.stages.whole, ranker.arguments(given))
        for i, (old, new, exact, new64) in enumerate(zip(original, found, truth, wide, strict=True)):
            where = f"output {i} of {count} candidates under '{policy.name}'"
            if old.shape != new.shape or old.dtype != new.dtype:
                raise Mismatch(f"form: {where} is {new.dtype} {list(new.shape)}, not {old.dtype} {list(old.shape)}")
            require_close("float64", new64, exact, TOLERANCE * case.reach(exact), where)
            if (overflowing(old, new) & ~at_the_brink(exact, old.dtype)).any():
                raise Mismatch(f"finite: {where} is {new.flatten()[:5].tolist()}, not {old.flatten()[:5].tolist()}")
            allowed = max(allowed, distance(old, exact))
            worst = max(worst, distance(new, exact))
    times = 2 if case.given.dtype != torch.float64 else 4  # there the truth is rounded as well, about as much
    if worst > times * allowed + case.floor:
        raise Mismatch(
            f"rounding: {worst:.1e} from the truth under '{policy.name}', the original {allowed:.1e}, "
            f"floor {case.floor:.1e}"
        )


def overflowing(one: Tensor, other: Tensor) -> Tensor:
    """Where one of them is infinite or NaN, and the other is not the like."""
    return (one.isfinite() != other.isfinite()) | (one.isnan() != other.isnan())


def at_the_brink(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """Where rounding decides whether the type can hold the number."""
    largest = torch.finfo(dtype).max if dtype.is_floating_point else float("inf")
    return exact.double().abs() > largest / 4


def distance(found: Tensor, truth: Tensor) -> float:
    both = found.isfinite() & truth.isfinite()
    return float((found.double() - truth.double())[both].abs().max()) if both.any() else 0.0


def require_close(kind: str, found: Tensor, expected: Tensor, tolerance: float, where: str) -> None:
    """Raises Mismatch where two tensors differ by more than the tolerance, or in where they are NaN."""
    if found.shape != expected.shape:
        raise Mismatch(f"{kind}: {where} has the shape {list(found.shape)}, not {list(expected.shape)}")
    close = torch.isclose(found.double(), expected.double(), rtol=0.0, atol=tolerance, equal_nan=True)
    if not close.all():
        raise Mismatch(
            f"{kind}: {where} is off by {distance(found, expected):.1e} of {tolerance:.1e} allowed: "
            f"{found[~close][:4].tolist()}, not {expected[~close][:4].tolist()}"
        )


# ------------------------------------------------------------------------------------------------------ metamorphic


def scores(ranker: Ranker, context: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return list(ranker.outputs(ranker.context_stage(context), target))


def _all_close(
    case: Case, kind: str, found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float | None = None
) -> None:
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        allowed = case.floor_of(other) if tolerance is None else tolerance
        require_close(kind, one, other, allowed, f"output {i}")


def permuted(case: Case, ranker: Ranker) -> None:
    """Candidates permuted: scores permuted."""
    request = case.request(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    found = scores(ranker, request.context, {name: value[order] for name, value in request.target.items()})
    _all_close(case, "permuted", found, [each[order] for each in scores(ranker, request.context, request.target)])


def in_pieces(case: Case, ranker: Ranker) -> None:
    """One state, candidates one by one and in chunks: the same as all at once."""
    request = case.request(5)
    whole = scores(ranker, request.context, request.target)
    with torch.no_grad():
        state = ranker.context_stage(request.context)
        for cuts in ((0, 1, 2, 3, 4, 5), (0, 2, 2, 5)):
            parts = [
                ranker.outputs(state, {name: value[a:b] for name, value in request.target.items()})
                for a, b in pairwise(cuts)
            ]
            _all_close(case, "pieces", [torch.cat(each) for each in zip(*parts, strict=True)], whole)


def from_rows(case: Case, ranker: Ranker) -> None:
    """The original's call on tiled rows."""
    request = case.request(5)
    with torch.no_grad():
        found = tensors_of(ranker.from_rows(case.features(request), check_context=True))
    _all_close(case, "from_rows", found, scores(ranker, request.context, request.target))


def poisoned(case: Case, ranker: Ranker) -> None:
    """NaN and infinity of one candidate stay with it."""
    request = case.request(5)
    clean = scores(ranker, request.context, request.target)
    for value in (float("nan"), float("inf")):
        target = {name: tensor.clone() for name, tensor in request.target.items()}
        for i, item in enumerate(case.given.inputs):
            if item.kind in ("dense", "vectors") and f"features.x{i}" in target:
                target[f"features.x{i}"][2] = value
        found = scores(ranker, request.context, target)
        others = [0, 1, 3, 4]
        _all_close(case, "poisoned", [each[others] for each in found], [each[others] for each in clean])
        if value != value:  # what becomes of infinity depends on the order of sums
            with sdpa_kernel(SDPBackend.MATH):  # torch's faster kernels take a query of NaN for one that is masked
                expected = case.original(Request(request.context, target))
            for one, other in zip(found, expected, strict=True):
                if not torch.equal(one.isnan(), other.isnan()):
                    raise Mismatch(
                        f"poisoned: NaN at {one.isnan().nonzero().tolist()}, not {other.isnan().nonzero().tolist()}"
                    )


def same_again(case: Case, ranker: Ranker) -> None:
    """The same model and roles give the same program."""
    one, other = ranker.stages, case.ranker(case.plan(FULL)).stages
    if one.whole.code != other.whole.code or one.candidate_stage.code != other.candidate_stage.code:
        raise Mismatch("again: interpreted twice, two programs")


def roles_exchanged(case: Case, ranker: Ranker) -> None:
    """A context input that is declared as target gives the same scores."""
    request = case.request(5)
    rows = tile(case.roles, request)
    expected = scores(ranker, request.context, request.target)
    movable = [role.name for role in case.roles if role.role is not Role.TARGET and rows[role.name].ndim]
    for name in movable:
        roles = as_target(case.roles, [name])
        split = split_columns(roles, rows)
        context = {name: value[:1] if value.ndim else value for name, value in split.context.items()}
        other = case.ranker(case.plan(FULL, roles), roles)
        _all_close(case, "roles", scores(other, context, split.target), expected)


def saved(case: Case, ranker: Ranker) -> None:
    """A file gives the same ranker, bit for bit. What torch cannot follow for any number of rows is refused."""
    request = case.request(5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranker.pt2"
        try:
            ranker.save(path)
        except ExportError:
            return
        loaded = rankopt.load(path)
    for one, other in zip(
        scores(loaded, request.context, request.target), scores(ranker, request.context, request.target), strict=True
    ):
        require_close("saved", one, other, 0.0, "a loaded ranker's output")


def many(case: Case, ranker: Ranker) -> None:
    """Two requests in one call have the scores of a call each."""
    requests = [case.request(count) for count in (3, 5)]
    if any(item.kind == "scalar" for item in case.given.inputs):
        return  # one value for all requests, where these have their own
    context, target = (
        {name: torch.cat([rows[name] for rows in side]) for name in side[0]}
        for side in ([r.context for r in requests], [r.target for r in requests])
    )
    with torch.no_grad():
        found = ranker.many.scores(context, target, lengths=torch.tensor([3, 5]))
    single = [scores(ranker, request.context, request.target) for request in requests]
    _all_close(case, "many", list(found), [torch.cat(each) for each in zip(*single, strict=True)])


def optimized(case: Case, ranker: Ranker) -> None:
    """The straight line: the plan that is kept agrees with the model."""
    rows = case.given.rows(EXAMPLES)
    context = [
        role.name if role.role is Role.CONTEXT else f"{role.name}[:, {list(role.context_columns)}]"
        for role in case.roles
        if role.role is not Role.TARGET and rows[role.name].ndim  # a scalar is context by itself
    ]
    if not context:
        return
    examples = {"features": {name.removeprefix("features."): value for name, value in rows.items()}}
    made = rankopt.optimize(
        case.model, context, example_inputs=examples, candidates=case.candidates, backend=case.backend
    )
    request = case.request(5)
    expected = case.original(request)
    _all_close(case, "optimized", scores(made, request.context, request.target), expected)


CHEAP = 7
METAMORPHIC: tuple[Callable[[Case, Ranker], None], ...] = (
    permuted, in_pieces, from_rows, poisoned, same_again, roles_exchanged, many, saved, optimized,
)  # fmt: skip
"""The first ones are cheap, and due for every ranker."""
