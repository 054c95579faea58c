"""The facts of a report as one tree of plain data: no tensors, no graphs, so that it can be stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rankopt.cost import Flops
from rankopt.errors import FormatError
from rankopt.labels import Rank
from rankopt.report import encoding, words

VERSION = 1
"""Of the JSON form. It grows when a field changes its meaning or goes away."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the user's source."""

    file: str
    number: int
    code: str

    def __str__(self) -> str:
        return f"{words.file_name(self.file)}:{self.number}"


@dataclass(frozen=True, slots=True)
class Figure:
    """What one request costs. `time` is an estimate of the cost model, in nanoseconds, not a measurement."""

    flops: Flops
    time: float


@dataclass(frozen=True, slots=True)
class StateTensor:
    """One tensor of the state, for one request."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """A policy that was tried. `dropped`: it was to be chosen, but gave other scores."""

    name: str
    figure: Figure
    chosen: bool
    dropped: bool


@dataclass(frozen=True, slots=True)
class RangeFacts:
    """A plan that is served, and the numbers of candidates that it is served for.

    `before` and `after` are estimated nanoseconds of a request, of the model and of the plan, at both ends.
    """

    first: int
    last: int
    policy: str
    before: tuple[float, float]
    after: tuple[float, float]


_NONE = Flops()


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node of the captured graph.

    `before` and `after` are the work emitted at this very node, so that they add up to the totals. A law
    may leave a node's work pending: `done_in` names the later nodes that had (the rest of) it done.
    """

    name: str
    op: str
    rank: Rank
    shared: float
    """The fraction of its elements that are the same for all candidates."""
    inputs: tuple[str, ...]
    """The inputs of the model that it depends on."""
    line: Line | None
    before: Flops
    after: Flops
    done_in: tuple[str, ...]
    rule: str
    """The rule that was applied, as `family.name`; empty where none was."""
    refusal: str
    """Why the node was left as the model wrote it; empty where it was not."""
    module: str = ""
    """The path of the user's module in which it was called; empty for the model itself, and where none is known."""
    share: Flops = _NONE
    """What is left of its own work, wherever that is done: apportioned, see `FamilyFacts`."""
    why: str = ""
    """Why it stays per candidate although it reads something of the context; empty where it does not."""

    @property
    def label(self) -> str:
        """Rank in words, with the fraction that is rank-2 where the ranks are mixed."""
        return words.label(self.rank, self.shared)


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """The nodes that one pass handled.

    Matrix products that a later node had done are counted here with the nodes they are the work of, in
    proportion to these nodes' FLOPs before.
    """

    name: str
    nodes: int
    before: Flops
    after: Flops


@dataclass(frozen=True, slots=True)
class RefusalFacts:
    """A node at which what context and target contribute can be told apart no longer, and why.

    `after` is the work that therefore stays per candidate: that of `nodes`, which are behind it, and its own
    unless it was split.
    """

    node: str
    op: str
    reason: str
    line: Line | None
    after: Flops
    nodes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The reason, with the name of the node."""
        return self.reason if self.node in self.reason else f"{self.node}: {self.reason}"


@dataclass(frozen=True, slots=True)
class DeclinedFacts:
    """Nodes whose work a law could share, which was estimated not to pay.

    `now` is the work as it is served, `possible` that of the plan named `policy`, which shares most of it.
    """

    node: str
    """Of `nodes`, the one that costs most."""
    nodes: tuple[str, ...]
    reason: str
    line: Line | None
    now: Flops
    possible: Flops
    policy: str
    break_even: int | None
    """The number of candidates from which on that plan is estimated to be faster; None if there is none."""


@dataclass(frozen=True, slots=True)
class VerificationFacts:
    """How well the scores agree with the original's: see `rankopt.agreement`. Errors are relative."""

    identical: bool
    dtype: str
    candidates: tuple[int, ...]
    error64: float | None
    original_error: float
    rewritten_error: float
    ratio: float | None
    """Error of the rewritten ranker over that of the original, as served; None if the latter is exact."""
    top10: float
    top100: float
    kendall_tau: float
    swapped_pairs: int
    nan_mismatches: int
    infinity_mismatches: int

    def __str__(self) -> str:
        return words.agreement(
            self.identical, self.error64, self.dtype, self.ratio, self.swapped_pairs, self.candidates
        )


@dataclass(frozen=True, slots=True)
class RoundingFacts:
    """What a rounded state costs in accuracy, measured on example requests against the model in float64."""

    dtype: str
    """Of the rounded tensors."""
    exact_bytes: int
    """Size of the state without rounding."""
    candidates: tuple[int, ...]
    """Of the requests."""
    error: float
    """The largest error of a score, relative to the largest score."""
    absolute_error: float
    original_error: float
    """The relative error of the model itself, as served."""
    top100: float
    """The share of the best 100 candidates that are still among them."""
    moved100: int
    """How many of the best 100 places went to another candidate, in the worst request."""
    kendall_tau: float

    def __str__(self) -> str:
        return words.rounding(self.dtype, self.error, self.absolute_error, self.top100, self.moved100, self.candidates)


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What was saved, what was not, and why.

    `repr` is one sentence, `str` the whole report as plain text. FLOPs are 2 x multiply-adds of matrix
    products, with elementwise work apart, each as `once + each * N`; work on parameters alone is done once
    per model version and not counted.
    """

    candidates: int
    policy: str
    unchanged: str
    """Why the model was left as it is; empty if it was rewritten."""
    before: Figure
    """The model on tiled rows."""
    unshared: Figure
    """Rewritten as if every input were target: what is gained without any sharing."""
    after: Figure
    """As served."""
    state: tuple[StateTensor, ...]
    policies: tuple[PolicyFacts, ...]
    nodes: tuple[NodeFacts, ...]
    families: tuple[FamilyFacts, ...]
    refusals: tuple[RefusalFacts, ...]
    verification: VerificationFacts | None
    notes: tuple[str, ...]
    ranges: tuple[RangeFacts, ...] = ()
    """The plans that are served, in ascending order of the numbers of candidates; all else is about the last."""
    break_even: int | None = None
    """The number of candidates from which on it is estimated to be faster than the model; None if it never is."""
    declined: tuple[DeclinedFacts, ...] = ()
    """What could be shared and was estimated not to pay, what would save most first."""
    rounding: RoundingFacts | None = None
    """Of a state that is rounded (`state_dtype`). `verification` is then that of the same program without rounding."""
    version: int = VERSION

    @property
    def state_bytes(self) -> int:
        """Size of the state of one request."""
        return sum(tensor.bytes for tensor in self.state)

    @property
    def saved_per_byte(self) -> float | None:
        """FLOPs of matrix products saved per request and byte of state; None without a state."""
        if not self.state_bytes:
            return None
        saved = self.before.flops.at(self.candidates) - self.after.flops.at(self.candidates)
        return saved / self.state_bytes

    @property
    def sentence(self) -> str:
        """The report in one sentence."""
        return words.sentence(self.before.flops, self.after.flops, self.candidates, self.state_bytes, self.unchanged)

    @property
    def many_requests(self) -> str:
        """The FLOPs of a call of B requests with R rows in all (R = B N where all have N candidates), as a formula."""
        return f"{self.after.flops.once:.0f} * B + {self.after.flops.each:.0f} * R"

    def to_json(self) -> dict[str, Any]:
        """The report as dicts, lists, strings and numbers, with the figures that follow from it: about the
        state, and the work of many requests as a formula."""
        return {
            **encoding.encode(self),
            "state_bytes": self.state_bytes,
            "flops_saved_per_state_byte": self.saved_per_byte,
            "many_requests": self.many_requests,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Report:
        """The report that `to_json` was called on. Raises FormatError for another version or kind of data."""
        found = data.get("version")
        if found != VERSION:
            raise FormatError(
                f"the report has version {found}, and only version {VERSION} can be read.\n"
                "  fix: make the report again, or read it with the version of rankopt that wrote it"
            )
        try:
            return encoding.decode(Report, data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"this is not a report of rankopt: {error!r}.\n  fix: pass what Report.to_json() returned"
            ) from error

    def __repr__(self) -> str:
        return self.sentence

    def __str__(self) -> str:
        # A view of this tree, so it cannot be imported on top; rich is needed only where a report is shown.
        from rankopt.report.terminal import plain

        return plain(self)
