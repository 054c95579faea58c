"""Who computes the scores of one request: the original on tiled rows, what others do, an expert, rankopt.

    original          every row as the model was trained, the context repeated
    vmap              torch.func.vmap over the candidates, in_dims=(None, 0)
    input tile        embeddings of the context looked up once, then repeated (INPUT_TILE=3 of TorchEasyRec)
    once              the context subgraph once, tiled where it meets a candidate (user-side one-shot)
    mari              the same, and linear layers split by the rank of their inputs (MaRI)
    expert            written by hand (experts), where there is one
    without sharing   rankopt with every input a target: what a tidier spelling alone gains
    rankopt           at its best

"Once" and "mari" are rankopt with the rest of its laws switched off, so they are as quick in all else as rankopt is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import onnxruntime as ort
import torch
from corpus_checks import call
from corpus_models import Entry
from corpus_zoo import entries as zoo_entries
from experts import PREFIX, Expert, expert
from models import Subject, headline
from serving import OnnxCall, PreparedRanker, RowsModel, onnx_session
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rankopt.backends import EAGER, INDUCTOR, ONNX_RUNTIME
from rankopt.capture import CapturedModel
from rankopt.exporting import tracing_conditions
from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import DENSE, ONCE, SPLIT, Plan, alternatives, interpret, unshared
from rankopt.prices import Profile
from rankopt.ranker import Ranker
from rankopt.requests import split_rows, tile
from rankopt.selectors import InputRole, Role
from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field

EXAMPLES = 50
MARI = ("linear", "data_movement", "concatenation", "gather")
"""The passes that splitting linear layers takes: the layers, and what moves between them and the inputs."""

Scores = Callable[[], Any]


def entries() -> dict[str, Entry]:
    """The headline models, which have hand-written versions, then the zoo at the size of the corpus, DIN first."""
    zoo = sorted(zoo_entries(), key=lambda entry: entry.name != "din")
    return {entry.key: entry for entry in (*map(as_entry, headline()), *zoo)}


def as_entry(subject: Subject) -> Entry:
    """A headline model as an entry of the corpus."""

    def rows(count: int) -> dict[str, Any]:
        context, target = subject.request(count, seed=int(torch.randint(1 << 30, ())))
        return {"features": subject.rows(context, target)}

    names = tuple(PREFIX + name for name in subject.context)
    return Entry("headline", subject.name, lambda: subject.model, rows, names)


@dataclass(frozen=True)
class Scene:
    """A model, and one request of `candidates` for it."""

    model: nn.Module
    captured: CapturedModel
    roles: tuple[InputRole, ...]
    candidates: int
    context: dict[str, Tensor]
    target: dict[str, Tensor]
    rows: dict[str, Tensor]
    """The same as tiled rows, by input."""

    @classmethod
    def of(cls, entry: Entry, candidates: int, seed: int = 7) -> Scene:
        model = entry.model().requires_grad_(False)
        torch.manual_seed(1)
        captured, roles = capture_with_roles(model, list(entry.context), None, entry.rows(EXAMPLES))
        torch.manual_seed(seed)
        request = split_rows(roles, captured.flatten_call((), entry.rows(candidates)))
        return cls(model, captured, roles, candidates, request.context, request.target, tile(roles, request))

    @property
    def features(self) -> dict[str, Tensor]:
        """What the original reads."""
        return {name.removeprefix(PREFIX): ids for name, ids in self.rows.items()}

    # ------------------------------------------------------------------------------------------------ rankers

    @cached_property
    def plans(self) -> list[Plan]:
        return alternatives(self.captured, self.roles, self.candidates, profile=here(EAGER))

    @cached_property
    def plain(self) -> Plan:
        return unshared(self.captured, self.roles, self.candidates, profile=here(EAGER))

    @cached_property
    def expert(self) -> Expert | None:
        return expert(self.model, list(self.context), self.candidates)

    def ranker(self, name: str, backend: Profile = EAGER) -> Ranker:
        """rankopt as one of the contenders."""
        given, profile = (self.captured, self.roles), here(backend)
        if name == "rankopt":
            best = self.plans if backend is EAGER else alternatives(*given, self.candidates, profile=profile)
            return build(*given, best[0])
        if name == "once":
            return build(*given, interpret(*given, self.candidates, ONCE, profile=profile))
        if name == "mari":
            policies = (SPLIT, DENSE, ONCE)
            return build(*given, alternatives(*given, self.candidates, MARI, profile, policies)[0])
        everything_target = tuple(InputRole(role.name, Role.TARGET) for role in self.roles)
        return build(self.captured, everything_target, self.plain)

    # --------------------------------------------------------------------------------------------- contenders

    def eager(self) -> dict[str, Scores]:
        """Everybody, called as plain torch."""
        found: dict[str, Scores] = {
            "original": partial(self.model, self.features),
            "vmap": self._vmap(),
            "input tile": self._input_tile(),
        }
        for name in ("once", "mari", "without sharing", "rankopt"):
            request = ({}, self.rows) if name == "without sharing" else (self.context, self.target)
            found[name] = partial(self.ranker(name), *request)
        if self.expert is not None:
            found["expert"] = partial(self.expert, self.context, self.target)
        return found

    def onnxruntime(
        self, threads: int, names: tuple[str, ...] = ("original", "expert", "rankopt")
    ) -> dict[str, Scores]:
        """Those that are named, exported and run under ONNX Runtime."""
        found: dict[str, Scores] = {}
        for name in names:
            module, inputs = self.exported(name)
            if module is not None:
                found[name] = partial(self.session(module, inputs, threads), inputs)
        return found

    def exported(self, name: str) -> tuple[nn.Module | None, dict[str, Tensor]]:
        """A contender as a function of flat tensors, and these; None where there is no such contender."""
        if name == "original":
            return RowsModel(self.model, self.captured.call), self.rows
        inputs = {**self.context, **self.target}
        if name == "expert":
            flat = None if self.expert is None else Flat(self.expert, list(self.context), list(self.target))
            return flat, inputs
        ranker = self.ranker(name, ONNX_RUNTIME)
        return PreparedRanker(ranker), {name: inputs[name] for name in inputs_of(ranker)}

    def session(
        self,
        module: nn.Module,
        inputs: Mapping[str, Tensor],
        threads: int,
        configure: Callable[[ort.SessionOptions], None] | None = None,
    ) -> OnnxCall:
        """A session for any number of candidates, exported at ten: a graph exported at one row would hold for one."""
        dynamic = set(inputs) if inputs is self.rows else set(self.target)
        examples = {
            name: value[:1].repeat(10, *[1] * (value.dim() - 1)) if name in dynamic else value
            for name, value in inputs.items()
        }
        return onnx_session(module, examples, dynamic, threads, configure)

    def inductor(self) -> dict[str, Scores]:
        """The original, the expert and rankopt under torch.compile."""
        original = torch.compile(self.model, dynamic=True)
        ranker = torch.compile(self.ranker("rankopt", INDUCTOR), dynamic=True)
        found: dict[str, Scores] = {
            "original": partial(original, self.features),
            "rankopt": partial(ranker, self.context, self.target),
        }
        if self.expert is not None:
            found["expert"] = partial(torch.compile(self.expert, dynamic=True), self.context, self.target)
        return found

    def _vmap(self) -> Scores:
        def one(context: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
            row = {name: context[name] if name in context else target[name].unsqueeze(0) for name in self.rows}
            return self.model({name.removeprefix(PREFIX): ids for name, ids in row.items()}).squeeze(0)

        return partial(torch.func.vmap(one, in_dims=(None, 0)), self.context, self.target)

    def _input_tile(self) -> Scores:
        shared = {id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())}
        model, count = copy.deepcopy(self.model, shared), self.candidates

        def once(look_up: Callable[..., Tensor], field: Field, features: Mapping[str, Tensor]) -> Tensor:
            vectors = look_up(field, features)
            return vectors.repeat(count, *[1] * (vectors.dim() - 1)) if PREFIX + field.name in self.context else vectors

        for module in model.modules():
            if isinstance(module, FieldEmbedding):
                module.look_up = partial(once, module.look_up)
        request = {**self.context, **self.target}
        return partial(model, {name.removeprefix(PREFIX): request[name] for name in self.rows})

    # ------------------------------------------------------------------------------------------------- truth

    @cached_property
    def truth(self) -> Tensor:
        """The original's scores in float64."""
        return call(copy.deepcopy(self.model).double(), self.captured, self.rows)[0]

    def error(self, scores: Scores) -> float:
        """The largest distance of scores to the truth, relative to the largest score."""
        with torch.no_grad():
            found = scores()
        tensor = torch.as_tensor(found[0] if isinstance(found, list | tuple) else found)
        return float((tensor.double() - self.truth).abs().max() / self.truth.abs().max())


def here(backend: Profile) -> Profile:
    """The prices of a backend with as many threads as are measured with."""
    return replace(backend, threads=torch.get_num_threads())


class Flat(nn.Module):
    """An expert as a function of flat tensors."""

    def __init__(self, inner: nn.Module, context: list[str], target: list[str]) -> None:
        super().__init__()
        self.inner, self.context, self.target = inner, context, target

    def forward(self, *inputs: Tensor) -> Tensor:
        split = len(self.context)
        context = dict(zip(self.context, inputs[:split], strict=True))
        return self.inner(context, dict(zip(self.target, inputs[split:], strict=True)))


def inputs_of(ranker: Ranker) -> tuple[str, ...]:
    """The inputs of a ranker, those of the context first."""
    return (*ranker.stages.context_inputs, *ranker.stages.target_inputs)


# ---------------------------------------------------------------------------------------------------------- FLOPs

aten = torch.ops.aten


def mflop(work: Scores) -> float:
    """Millions of floating-point operations in the products of a call, by torch's counter.

    It is told of the products that overwrite what they add to, and of those with a vector, which it does not know; it
    does not see into fused attention, which is run as it is written.
    """

    def product(total: Any, x: Any, y: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * torch.Size(x).numel() * (y[-1] if len(y) > 1 else 1)

    def with_vector(x: Any, y: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * torch.Size(x).numel()

    known = {aten.baddbmm_: product, aten.addmm_: product, aten.addmv: product, aten.mv: with_vector}
    counting = FlopCounterMode(display=False, custom_mapping=known)
    with torch.no_grad(), tracing_conditions(), sdpa_kernel(SDPBackend.MATH), counting as counter:
        work()
    return counter.get_total_flops() / 1e6
