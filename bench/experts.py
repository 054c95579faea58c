"""What an expert writes by hand: five models whose context part runs once per request, in plain torch.

Each is a module `expert(context, target)` over the same inputs as a ranker, made from a model of the zoo and its
weights, which are permuted, split and added up beforehand. They are the bar for what rankopt emits: no fold, layout or
order of operations that we know of is left out, and no second copy of an embedding table is made. Everywhere K and M
are the numbers of context and target fields, D their width, N the number of candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rankopt.zoo.autoint import AutoInt, InteractingLayer
from rankopt.zoo.dcnv2 import DCNv2, FullRankCross
from rankopt.zoo.din import DIN, Dice
from rankopt.zoo.dlrm import DLRM
from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.mlcc import MLCC
from rankopt.zoo.mlp import LogitHead
from rankopt.zoo.sequence import BehaviourEmbedding

Features = Mapping[str, Tensor]
PREFIX = "features."


class Expert(nn.Module):
    """Where the fields of either role stand, and their look-ups."""

    def __init__(self, embedding: FieldEmbedding, context: Sequence[str], width: int) -> None:
        super().__init__()
        self.embedding = embedding
        fields = embedding.plain if isinstance(embedding, BehaviourEmbedding) else embedding.fields
        names = [field.name for field in fields]
        self.context_names = [name for name in names if PREFIX + name in context]
        self.target_names = [name for name in names if PREFIX + name not in context]
        self.at_context = torch.tensor([names.index(name) for name in self.context_names])
        self.at_target = torch.tensor([names.index(name) for name in self.target_names])
        self.width = width

    def context_vectors(self, context: Features) -> Tensor:
        """[K, D]"""
        return torch.cat([self._look_up(name, context) for name in self.context_names])

    def target_vectors(self, target: Features) -> Tensor:
        """[N, M, D]"""
        return torch.stack([self._look_up(name, target) for name in self.target_names], dim=1)

    def _look_up(self, name: str, features: Features) -> Tensor:
        return self.embedding.tables[name](features[PREFIX + name])

    def columns(self, places: Tensor) -> Tensor:
        """Where the values of these fields stand in all fields side by side."""
        return (places[:, None] * self.width + torch.arange(self.width)).flatten()

    def keep(self, name: str, value: Tensor) -> None:
        """Registers a weight that is prepared beforehand."""
        self.register_buffer(name, value.detach().clone(memory_format=torch.contiguous_format))


def rest_of(head: LogitHead) -> nn.Sequential:
    """A head without its first linear layer."""
    return nn.Sequential(*list(head.hidden)[1:], head.output)


def first_of(head: LogitHead) -> nn.Linear:
    layer = head.hidden[0] if len(head.hidden) else head.output
    assert isinstance(layer, nn.Linear)
    return layer


class ExpertDLRM(Expert):
    """Dots of context fields once; of a target field with all context fields one product; no triangle is gathered:
    weights of the first layer stand where the dots are, zero where one is not read."""

    def __init__(self, model: DLRM, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        layer = first_of(model.top)
        fields = len(self.at_context) + len(self.at_target)
        full = layer.weight.new_zeros(fields, fields, layer.out_features)
        rows, columns = model.pairs
        full[rows, columns] = layer.weight.detach().t()
        both = full + full.transpose(0, 1)  # [F, F, H], a pair at either of its places
        c, t = self.at_context, self.at_target
        self.keep("once", full[c][:, c].flatten(0, 1))  # [K*K, H]
        self.keep("mixed", both[t][:, c].flatten(0, 1))  # [M*K, H]
        self.keep("own", full[t][:, t].flatten(0, 1))  # [M*M, H]
        self.keep("bias", layer.bias)
        self.rest = rest_of(model.top)

    def forward(self, context: Features, target: Features) -> Tensor:
        c, t = self.context_vectors(context), self.target_vectors(target)
        once = torch.addmm(self.bias, (c @ c.t()).reshape(1, -1), self.once)  # [1, H]
        mixed = (t.flatten(0, 1) @ c.t()).view(t.shape[0], -1)  # [N, M*K]
        own = torch.bmm(t, t.transpose(1, 2)).flatten(1)  # [N, M*M]
        hidden = torch.addmm(once, mixed, self.mixed).addmm_(own, self.own)
        return self.rest(hidden).squeeze(-1)


class ExpertDCNv2(Expert):
    """The context half of every cross layer is affine in the target halves so far, z = [t_0, ..., t_{l-1}]:

        c_l = a + B z,   c_{l+1} = c_0 * (W_cc c_l + W_ct t_l + b) + c_l

    so a and B are computed once per request and the context half is never written. A head reads the last one from its
    own side, which spares the widest product of the recursion. It pays for many candidates: for few, the first layer is
    split and the last one folded into a narrow head.
    """

    def __init__(self, model: DCNv2, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        layers = [layer for layer in model.crosses if isinstance(layer, FullRankCross) and layer.bias_inside]
        if len(layers) != len(model.crosses) or model.deep is not None:
            raise ValueError("expected full-rank cross layers under a stacked head")
        c, t = self.columns(self.at_context), self.columns(self.at_target)
        self.context_width, self.target_width, self.layers = len(c), len(t), len(layers)
        for i, layer in enumerate(layers):
            weight, bias = layer.weight.weight, layer.bias
            self.keep(f"cc{i}", weight[c][:, c])
            self.keep(f"ct{i}", weight[c][:, t])
            self.keep(f"tc{i}", weight[t][:, c])
            self.keep(f"tt{i}", weight[t][:, t].t())
            self.keep(f"bc{i}", bias[c])
            self.keep(f"bt{i}", bias[t])
        head = first_of(model.head)
        self.keep("head_c", head.weight[:, c])
        self.keep("head_t", head.weight[:, t].t())
        self.keep("head_bias", head.bias)
        self.rest = rest_of(model.head) if len(model.head.hidden) else nn.Identity()
        costs = [cost(head.out_features, candidates) for cost in (self.pending_cost, self.split_cost)]
        self.folds = head.out_features < candidates
        self.pending = self.layers == 1 or costs[0] < costs[1]

    def pending_cost(self, head: int, candidates: int) -> int:
        """Multiply-adds where the context half stays pending."""
        c, t = self.context_width, self.target_width
        once = sum(layer * t * c * (t + (c if layer + 1 < self.layers else 0)) for layer in range(self.layers))
        each = sum((layer + 1) * t * t for layer in range(self.layers)) + (self.layers + 1) * t * head
        return once + head * c * (c + self.layers * t) + candidates * each

    def split_cost(self, head: int, candidates: int) -> int:
        """Multiply-adds where only the first layer is split, and the last one folded if that is cheaper."""
        c, t = self.context_width, self.target_width
        last = min(candidates * c * (c + t), head * c * (c + t))
        return last + candidates * (c + t) * (t + (self.layers - 2) * (c + t) + t + head)

    def forward(self, context: Features, target: Features) -> Tensor:
        c0, t0 = self.context_vectors(context).view(-1), self.target_vectors(target).flatten(1)  # [d_c], [N, d_t]
        last = self._pending(c0, t0) if self.pending else self._split(c0, t0)
        return self.rest(last).squeeze(-1)

    def _pending(self, c0: Tensor, t0: Tensor) -> Tensor:
        a, b, t = c0, c0.new_empty(len(c0), 0), t0  # c_l = a + b z
        z = t0[:, :0]
        last = self.layers - 1
        for i in range(self.layers):
            cc, ct, tc, tt = (getattr(self, f"{name}{i}") for name in ("cc", "ct", "tc", "tt"))
            mixed = torch.addmv(getattr(self, f"bt{i}"), tc, a)  # [d_t]
            update = torch.addmm(mixed, t, tt)
            if i:
                update.addmm_(z, (tc @ b).t())
            constant = c0 * torch.addmv(getattr(self, f"bc{i}"), cc, a)
            if i < last:
                linear = torch.cat([cc @ b, ct], dim=1).mul_(c0[:, None]) if i else ct * c0[:, None]
                if i:
                    linear[:, : b.shape[1]] += b
                b = linear
            else:
                scaled = self.head_c * c0  # [H, d_c]
                folded = torch.cat([torch.addmm(self.head_c, scaled, cc) @ b, scaled @ ct], dim=1)  # [H, L*d_t]
            a = a + constant
            z = torch.cat([z, t], dim=1) if i else t
            t = torch.addcmul(t, t0, update)
        hidden = torch.addmm(torch.addmv(self.head_bias, self.head_c, a), t, self.head_t)
        return hidden.addmm_(z, folded.t())

    def _split(self, c0: Tensor, t0: Tensor) -> Tensor:
        c, t = c0.expand(t0.shape[0], -1), t0
        for i in range(self.layers):
            cc, ct, tc, tt = (getattr(self, f"{name}{i}") for name in ("cc", "ct", "tc", "tt"))
            bc, bt = getattr(self, f"bc{i}"), getattr(self, f"bt{i}")
            if i == 0:
                of_t = torch.addmm(torch.addmv(bt, tc, c0), t, tt)
                of_c = torch.addmm(torch.addmv(bc, cc, c0), t, ct.t())
            else:
                of_t = torch.addmm(bt, c, tc.t()).addmm_(t, tt)
                if i + 1 == self.layers and self.folds:
                    scaled = self.head_c * c0  # [H, d_c]
                    once = torch.addmv(self.head_bias, scaled, bc)
                    hidden = torch.addmm(once, c, torch.addmm(self.head_c, scaled, cc).t())
                    return hidden.addmm_(t, (scaled @ ct).t()).addmm_(torch.addcmul(t, t0, of_t), self.head_t)
                of_c = torch.addmm(bc, c, cc.t()).addmm_(t, ct.t())
            c, t = torch.addcmul(c, c0, of_c), torch.addcmul(t, t0, of_t)
        return torch.addmm(self.head_bias, c, self.head_c.t()).addmm_(t, self.head_t)


class ExpertAutoInt(Expert):
    """For a context field as query, all context keys together are one more key: its score is the logarithm of their
    summed exponentials, its value their mean under attention, both known per request. Scores against context fields
    are linear in the target vectors, so one product gives them together with queries, keys and values. Later layers
    see the candidate in every field and stay as they are."""

    def __init__(self, model: AutoInt, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        if model.deep is not None:
            raise ValueError("expected AutoInt without a parallel perceptron")
        first, *later = model.layers
        assert isinstance(first, InteractingLayer)
        self.heads, self.scale = first.heads, first.scale
        self.first = first
        self.later = nn.Sequential(*later)
        out = first.query.out_features
        self.size = out // first.heads
        weights = [layer.weight for layer in (first.query, first.key, first.value)]
        if isinstance(first.residual, nn.Linear):
            weights.append(first.residual.weight)
        self.keep("maps", torch.cat(weights).t())  # [D, 3*H*d or 4*H*d]
        self.keep("query", first.query.weight.view(self.heads, self.size, -1) * self.scale)
        self.keep("key", first.key.weight.view(self.heads, self.size, -1) * self.scale)
        places = torch.cat([self.at_context, self.at_target])
        weight = model.output.weight.view(len(places), out)[places]
        self.keep("output", weight.flatten()[:, None])
        self.bias = model.output.bias

    def forward(self, context: Features, target: Features) -> Tensor:
        c, t = self.context_vectors(context), self.target_vectors(target)
        y_c, y_t = self._first(c, t)
        if len(self.later):
            return torch.addmm(self.bias, self.later(torch.cat([y_c, y_t], 1)).flatten(1), self.output).squeeze(-1)
        split = y_c.shape[1] * y_c.shape[2]
        logit = torch.addmm(self.bias, y_c.flatten(1), self.output[:split])
        return logit.addmm_(y_t.flatten(1), self.output[split:]).squeeze(-1)

    def _first(self, c: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """[K, D], [N, M, D] -> [N, K, H*d], [N, M, H*d]"""
        count, m, k, h, d = t.shape[0], t.shape[1], c.shape[0], self.heads, self.size
        q_c, k_c, v_c, *r_c = (c @ self.maps).split(h * d, dim=1)
        q_c, k_c, v_c = (x.view(k, h, d).transpose(0, 1) for x in (q_c, k_c, v_c))  # [H, K, d]
        scores = q_c @ k_c.transpose(1, 2) * self.scale
        total = scores.logsumexp(2)  # [H, K]
        mean = torch.softmax(scores, 2) @ v_c  # [H, K, d]
        of_queries = (q_c @ self.key).flatten(0, 1)  # [H*K, D]: their scores are <.., t>
        of_keys = (k_c @ self.query).flatten(0, 1)
        everything = t.flatten(0, 1) @ torch.cat([of_queries.t(), of_keys.t(), self.maps], dim=1)
        ct, tc, q, key, v, *r_t = everything.view(count, m, -1).split(
            [h * k, h * k] + [h * d] * (self.maps.shape[1] // (h * d)), 2
        )

        weights = torch.softmax(torch.cat([total.view(1, 1, -1).expand(count, 1, -1), ct], 1), 1)  # [N, 1+M, H*K]
        y_c = everything.new_empty(count, k, h * d)
        y_t = everything.new_empty(count, m, h * d)
        for i in range(h):
            head = slice(i * d, (i + 1) * d)
            shares = weights[:, :, i * k : (i + 1) * k]  # [N, 1+M, K]
            values = v[:, :, head]
            shared = shares[:, 0, :, None] * mean[i]
            y_c[:, :, head] = shared.baddbmm_(shares[:, 1:].transpose(1, 2), values)
            own = torch.bmm(q[:, :, head], key[:, :, head].transpose(1, 2))
            own = own * self.scale if self.scale != 1.0 else own
            mine = torch.softmax(torch.cat([tc[:, :, i * k : (i + 1) * k], own], 2), 2)  # [N, M, K+M]
            y_t[:, :, head] = (mine[:, :, :k] @ v_c[i]).baddbmm_(mine[:, :, k:], values)
        return y_c.add_(r_c[0] if r_c else c).relu_(), y_t.add_(r_t[0] if r_t else t).relu_()


class ExpertMLCC(Expert):
    """Generated weights are an affine function of the target. All context tokens meet them in one product, which
    comes out token by token, as the matrices of the tokens want it; the gate puts rows back in the order of the head.
    """

    def __init__(self, model: MLCC, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        crossing, shapes = model.crossing, model.crossing.shapes
        if len(shapes) != 2 or crossing.kept != {1, 2} or not model.has_raw:
            raise ValueError("expected two crossing layers, both kept, and the tokens themselves")
        self.heads, (self.middle, self.last) = crossing.heads, shapes[1]
        c, t = self.columns(self.at_context), self.columns(self.at_target)
        generator = crossing.generator.unflatten(1, (self.heads, -1))  # [S*E, H, P]
        first, second = generator.split(crossing.sizes, dim=2)
        first = first.unflatten(2, shapes[0]).transpose(2, 3)  # [S*E, H, e, E]: E innermost
        second = second.unflatten(2, shapes[1]).transpose(2, 3)  # [S*E, H, f, e]
        self.first_size = first[0].numel()
        ordered = torch.cat([first.flatten(1), second.flatten(1)], dim=1)
        self.keep("generator_c", ordered[c])
        self.keep("generator_t", ordered[t])
        crossed = model.compression.weight[:, : crossing.out_width].unflatten(1, (self.heads, -1))
        for name, at in (("c", self.at_context), ("t", self.at_target)):
            self.keep(f"raw_{name}", model.compression.weight[at, crossing.out_width :])
            self.keep(f"one_{name}", crossed[at, :, : self.middle].flatten(1, 2))  # [S, H*e, refined]
            self.keep(f"two_{name}", crossed[at, :, self.middle :].flatten(1, 2))  # [S, H*f, refined]
        order = torch.cat([self.at_context, self.at_target])
        gate = model.gate
        self.keep("squeeze", gate.squeeze.weight[:, order].t() / model.compression.weight.shape[2])
        self.keep("squeeze_bias", gate.squeeze.bias)
        self.keep("excite", gate.excite.weight[order].t())
        self.keep("excite_bias", gate.excite.bias[order])
        self.eps = gate.norm.eps
        layer = first_of(model.head)
        refined = model.compression.weight.shape[2]
        self.keep("head", layer.weight.unflatten(1, (-1, refined))[:, order].flatten(1).t())
        self.keep("head_bias", layer.bias)
        self.rest = rest_of(model.head)

    def forward(self, context: Features, target: Features) -> Tensor:
        c, t = self.context_vectors(context), self.target_vectors(target)  # [K, E], [N, M, E]
        count = t.shape[0]
        generated = torch.addmm(c.view(1, -1) @ self.generator_c, t.flatten(1), self.generator_t)
        first = generated[:, : self.first_size].view(count, -1, c.shape[1])  # [N, H*e, E]
        second = generated[:, self.first_size :].view(count, self.heads, self.last, self.middle)  # [N, H, f, e]

        one_c = c @ first.reshape(-1, c.shape[1]).t()  # [K, N*H*e]
        one_t = torch.bmm(t, first.transpose(1, 2)).transpose(0, 1)  # [M, N, H*e]
        tokens = torch.cat([one_c.view(c.shape[0], count, -1), one_t])  # [S, N, H*e]
        crossed = self._second(tokens, second)
        k = c.shape[0]
        raw_c = torch.bmm(c.unsqueeze(1), self.raw_c)  # [K, 1, refined]
        raw_t = torch.bmm(t.transpose(0, 1), self.raw_t)  # [M, N, refined]
        refined = torch.cat(
            [
                torch.baddbmm(raw_c, tokens[:k], self.one_c).baddbmm_(crossed[:k], self.two_c),
                raw_t.baddbmm_(tokens[k:], self.one_t).baddbmm_(crossed[k:], self.two_t),
            ]
        )  # [S, N, refined]
        hidden = torch.relu(torch.addmm(self.squeeze_bias, refined.sum(2).t(), self.squeeze))
        hidden = functional.layer_norm(hidden, hidden.shape[1:], eps=self.eps)
        gate = torch.addmm(self.excite_bias, hidden, self.excite).sigmoid_()  # [N, S]
        rows = torch.mul(gate.unsqueeze(2), refined.transpose(0, 1)).reshape(count, -1)
        return self.rest(torch.addmm(self.head_bias, rows, self.head)).squeeze(-1)

    def _second(self, tokens: Tensor, second: Tensor) -> Tensor:
        """[S, N, H*e], [N, H, f, e] -> [S, N, H*f]"""
        wide = tokens.view(*tokens.shape[:2], self.heads, 1, self.middle)
        return (wide * second).sum(-1).flatten(2)


class ExpertDIN(Expert):
    """The first layer of the attention unit reads [t; h; t - h; t * h], which for a given history is one matrix per
    item and a constant. The interest is linear in the weights of the items, and folds into the first layer of the
    head."""

    def __init__(self, model: DIN, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        if model.attention.softmax or model.embedding.unknown_action is not None:
            raise ValueError("expected DIN without softmax, and a history of the candidate's fields alone")
        self.of_items = model.embedding.of_items
        self.at_history = [self.target_names.index(field.name) for field in model.embedding.of_target]
        layer, self.dice, *self.unit = model.attention.unit
        t, h, difference, product = layer.weight.chunk(4, dim=1)  # [U, W] each
        self.keep("of_target", (t + difference).t())  # [W, U]
        self.keep("of_item", (h - difference).t())
        self.keep("of_product", product.t())
        self.keep("unit_bias", layer.bias)
        self.unit = nn.Sequential(*(hand_written(module) for module in self.unit))
        self.dice = hand_written(self.dice)
        first, *rest = (module for module in model.head if not isinstance(module, nn.Dropout))
        plain = len(self.at_context) + len(self.at_target)
        self.keep("head_c", first.weight[:, self.columns(self.at_context)].t())
        self.keep("head_t", first.weight[:, self.columns(self.at_target)].t())
        self.keep("head_interest", first.weight[:, plain * self.width :].t())
        self.keep("head_bias", first.bias)
        self.rest = nn.Sequential(*(hand_written(module) for module in rest))

    def forward(self, context: Features, target: Features) -> Tensor:
        c, t = self.context_vectors(context), self.target_vectors(target)
        ids = [context[PREFIX + field.name] for field in self.of_items]
        pairs = zip(self.of_items, ids, strict=True)
        h = torch.cat([self.embedding.tables[field.table](values[0]) for field, values in pairs], dim=1)  # [L, W]
        mask = ids[0] != 0  # [1, L]
        item = t[:, self.at_history].flatten(1) if len(self.at_history) > 1 else t[:, self.at_history[0]]  # [N, W]
        maps = self.of_target.unsqueeze(1) + h.t().unsqueeze(2) * self.of_product.unsqueeze(1)  # [W, L, U]
        constant = torch.addmm(self.unit_bias, h, self.of_item)  # [L, U]
        hidden = torch.addmm(constant.view(-1), item, maps.flatten(1)).view(-1, constant.shape[1])  # [N*L, U]
        weights = self.unit(self.dice(hidden)).view(-1, h.shape[0]).masked_fill_(~mask, 0.0)  # [N, L]
        once = torch.addmm(self.head_bias, c.view(1, -1), self.head_c)
        hidden = torch.addmm(once, t.flatten(1), self.head_t).addmm_(weights, h @ self.head_interest)
        return self.rest(hidden).squeeze(-1)


class QuickDice(nn.Module):
    """s * (alpha + (1 - alpha) * sigmoid(s / deviation - mean / deviation)), in memory that is used again."""

    def __init__(self, dice: Dice) -> None:
        super().__init__()
        norm = dice.norm
        scale = (norm.running_var + norm.eps).rsqrt()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", -norm.running_mean * scale)
        self.register_buffer("alpha", dice.alpha.detach())
        self.register_buffer("rest", 1 - dice.alpha.detach())

    def forward(self, s: Tensor) -> Tensor:
        p = torch.addcmul(self.shift, s, self.scale).sigmoid_()
        return torch.addcmul(self.alpha, p, self.rest).mul_(s)


def hand_written(module: nn.Module) -> nn.Module:
    return QuickDice(module) if isinstance(module, Dice) else module


EXPERTS: dict[type[nn.Module], Callable[[Any, Sequence[str], int], Expert]] = {
    DLRM: ExpertDLRM,
    DCNv2: ExpertDCNv2,
    AutoInt: ExpertAutoInt,
    MLCC: ExpertMLCC,
    DIN: ExpertDIN,
}


def expert(model: nn.Module, context: Sequence[str], candidates: int) -> Expert | None:
    """The hand-written version for these context inputs; None where nobody has written one."""
    written = EXPERTS.get(type(model))
    if written is None:
        return None
    try:
        return written(model, context, candidates).eval().requires_grad_(False)
    except ValueError:  # another form of the model
        return None
