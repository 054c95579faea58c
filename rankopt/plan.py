"""Plans: the model interpreted under several policies, and the cheapest program kept.

Local decisions cannot be trusted alone: what pays in one model fragments another. Interpreting is cheap, so every
policy is tried, each program is priced as a whole, and "leave the model unchanged" is always among them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rankopt import cost, cuts, timing
from rankopt.axes import ROW, Group, Rows, Shape
from rankopt.backends import DEFAULT
from rankopt.capture import CapturedModel, ModelInput
from rankopt.dims import from_tensor, renamed
from rankopt.errors import RolesError
from rankopt.expressions import Expr, Origin, Stage, reachable
from rankopt.interpreter import Interpretation, Interpreter
from rankopt.layout import Layout, Layouts
from rankopt.passes import NAMES
from rankopt.prices import Profile
from rankopt.program import aten
from rankopt.selectors import InputRole, Role
from rankopt.structure import concatenate
from rankopt.values import Part, Value
from rankopt.workspace import Policy, Workspace

FULL = Policy("full")
LATE = Policy("full, evaluated late", reluctance=4.0, operands=4)
THROUGH_NORMS = Policy("full, norms folded", through_norms=True)
SHARED = Policy("full, shared values evaluated", share_values=True)
SPLIT = Policy("split only", compose=False, share_values=True)
DENSE = Policy("no pending sums", defer=False, compose=False)
ONCE = Policy("context once", once=True, defer=False, compose=False)
UNCHANGED = Policy("unchanged", unchanged=True, defer=False, compose=False)
UNSHARED = Policy("without sharing", share=False)

POLICIES: tuple[Policy, ...] = (FULL, LATE, THROUGH_NORMS, SHARED, SPLIT, DENSE, ONCE, UNCHANGED)
"""In the order in which a draw is decided."""

LAYER_NORMS = frozenset({aten.layer_norm.default, aten.native_layer_norm.default})
"""Without one of these, a policy that goes through norms leads to the program of `FULL`, and is not tried."""

MANY = 1_000_000
"""Candidates for whom everything that can be done once is worth it."""

BY_MERIT = (FULL, UNCHANGED, ONCE, SHARED, SPLIT, DENSE, LATE, THROUGH_NORMS)
"""What wins most often first: how a graph is interpreted that is too large for all of them."""

REFINED = 2
"""How many of the cheapest plans are refined."""

FORMS = 5
"""Interpretations that it takes to refine one, at most."""

EFFORT = 30_000
"""Nodes that may be interpreted in the search, so that it takes seconds for graphs of any size."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One program for the model: what is computed when, and what it costs at `candidates` candidates."""

    policy: Policy
    candidates: int
    workspace: Workspace = field(repr=False)
    interpretation: Interpretation = field(repr=False)
    exprs: list[Expr] = field(repr=False)
    flops: cost.Flops
    time: float

    @property
    def outputs(self) -> list[Expr]:
        """The expressions of the model's outputs."""
        return self.interpretation.outputs

    def __str__(self) -> str:
        return f"{self.policy.name}: {self.flops.at(self.candidates) / 1e6:.2f} MFLOP, ~{self.time / 1e3:.0f} us"


def interpret(
    captured: CapturedModel,
    roles: Sequence[InputRole],
    candidates: int,
    policy: Policy = FULL,
    passes: Collection[str] | None = None,
    profile: Profile = DEFAULT,
    layouts: Mapping[int, Layout] | None = None,
) -> Plan:
    """The program that `policy` leads to, at the prices of `profile`.

    `passes` names the passes that may be used (all by default), `layouts` the order in which products are laid out.

    Raises RolesError for a pass that does not exist.
    """
    disabled = _disabled(passes)
    w = Workspace(candidates, policy, profile=profile, layouts=Layouts(layouts or {}))
    inputs: dict[str, Value] = {}
    for item, role in zip(captured.inputs, roles, strict=True):
        w.program.origin = Origin(item.placeholder, "input")
        inputs[item.placeholder] = _input(w, item, role if policy.share else _as_target(role))
    for weight in captured.weights:
        value = from_tensor(w, w.program.weight(weight.name, weight.tensor))
        known = None if weight.tensor.dtype.is_floating_point else weight.tensor.detach().cpu()
        inputs[weight.placeholder] = Value(value.groups, value.node, known)
    interpretation = Interpreter(w, captured.graph_module, captured.rows, disabled).interpret(inputs)
    interpretation.outputs = cuts.together(w.program, interpretation.outputs)
    exprs = reachable(interpretation.outputs)
    time = timing.total_time(exprs, candidates, w.profile)
    return Plan(policy, candidates, w, interpretation, exprs, cost.flops(exprs), time)


def alternatives(
    captured: CapturedModel,
    roles: Sequence[InputRole],
    candidates: int,
    passes: Collection[str] | None = None,
    profile: Profile = DEFAULT,
    policies: Sequence[Policy] = POLICIES,
    refined: int = REFINED,
) -> list[Plan]:
    """The plans of all policies, the cheapest first; of equals, the one listed first.

    A plan that rewrites stands behind the unchanged one unless it is cheaper beyond the profile's doubt. The
    cheapest, `refined` of them, are tried again in other forms, with the parts of their values kept apart and stacked
    outermost, and each form with the layouts that its readers want. A graph that is too large for that is interpreted
    `EFFORT` over its nodes times, but under the first three of `BY_MERIT` in any case.
    """
    if not _has_layer_norm(captured):
        policies = [policy for policy in policies if not policy.through_norms]
    affordable = max(EFFORT // len(captured.graph_module.graph.nodes), 3)
    chosen = sorted(policies, key=lambda policy: BY_MERIT.index(policy) if policy in BY_MERIT else -1)[:affordable]
    refined = min(refined, (affordable - len(chosen)) // FORMS)
    plans = [interpret(captured, roles, candidates, policy, passes, profile) for policy in policies if policy in chosen]
    distinct = {round(plan.time): plan for plan in plans if plan.policy.rewrites}
    for plan in sorted(distinct.values(), key=lambda plan: plan.time)[:refined]:
        forms = [plan, *(interpret(captured, roles, candidates, p, passes, profile) for p in other_forms(plan.policy))]
        wanted = [(form.policy, form.workspace.layouts.better(profile)) for form in forms]
        plans.extend(forms[1:])
        plans.extend(interpret(captured, roles, candidates, p, passes, profile, asked) for p, asked in wanted if asked)
    return sorted(plans, key=lambda plan: plan.time * (profile.doubt if plan.policy.rewrites else 1.0))


def _has_layer_norm(captured: CapturedModel) -> bool:
    return any(node.target in LAYER_NORMS for node in captured.graph_module.graph.nodes)


def other_forms(policy: Policy) -> tuple[Policy, ...]:
    """Policies that lead to the same products in another form."""
    apart = replace(policy, name=f"{policy.name}, parts apart", coalesce=False)
    return apart, replace(apart, name=f"{policy.name}, parts apart and stacked outermost", outermost=True)


@dataclass(frozen=True, slots=True)
class References:
    """Plans to compare with, which are never served."""

    unshared: Plan
    """The model rewritten as if every input were target: what plain rewriting gains, without any sharing."""
    limit: Plan
    """The model rewritten for very many candidates: all that can be done once, whatever that costs."""


def references(
    captured: CapturedModel,
    roles: Sequence[InputRole],
    candidates: int,
    passes: Collection[str] | None = None,
    profile: Profile = DEFAULT,
) -> References:
    """The plans that a report compares with."""
    limit = replace(FULL, name=f"{FULL.name}, for {MANY:,}")
    return References(
        unshared(captured, roles, candidates, passes, profile),
        interpret(captured, roles, MANY, limit, passes, profile),
    )


def unshared(
    captured: CapturedModel,
    roles: Sequence[InputRole],
    candidates: int,
    passes: Collection[str] | None = None,
    profile: Profile = DEFAULT,
) -> Plan:
    """The model rewritten as if every input were target."""
    return interpret(captured, roles, candidates, UNSHARED, passes, profile)


def _disabled(passes: Collection[str] | None) -> frozenset[str]:
    if passes is None:
        return frozenset()
    unknown = [name for name in passes if name not in NAMES]
    if unknown:
        raise RolesError(f"no pass is named {', '.join(unknown)}; the passes are {', '.join(NAMES)}")
    return frozenset(NAMES) - frozenset(passes)


def _as_target(role: InputRole) -> InputRole:
    return InputRole(role.name, Role.TARGET)


def _input(w: Workspace, item: ModelInput, role: InputRole) -> Value:
    """The value of an input: context without rows, target with them, a packed tensor as a Cat of both."""
    if not item.shape:
        return from_tensor(w, w.program.input(item.name, (), item.dtype, Stage.CONTEXT))
    rest = item.shape[1:]
    logical: Shape = (Rows(), *rest)
    if role.role is Role.TARGET:
        return from_tensor(w, w.program.input(item.name, logical, item.dtype, Stage.CANDIDATE), logical)
    if role.role is Role.CONTEXT:
        return from_tensor(w, w.program.input(item.name, (1, *rest), item.dtype, Stage.CONTEXT), logical)
    return _packed(w, item, role)


def _packed(w: Workspace, item: ModelInput, role: InputRole) -> Value:
    axis = w.axes.fresh(item.shape[1])
    rest: tuple[Group, ...] = tuple((w.axes.fresh(size),) if size != 1 else () for size in item.shape[2:])
    parts: list[Part] = []
    for columns, rows, stage in (
        (role.context_columns, 1, Stage.CONTEXT),
        (role.target_columns, Rows(), Stage.CANDIDATE),
    ):
        shape = (rows, len(columns), *item.shape[2:])
        logical = (Rows(), *shape[1:])
        value = from_tensor(w, w.program.input(item.name, shape, item.dtype, stage), logical)
        node = renamed(Value(((), (), *value.groups[2:]), value.node), ((), (), *rest))
        parts.append(Part(np.array(columns, dtype=np.int64), value.groups[1], node))
    return Value(((ROW,), (axis,), *rest), concatenate(w, axis, parts))
