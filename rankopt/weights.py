"""The tensors of a ranker: the model's own, under the model's names, and those that the compiler made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from rankopt.errors import StageError
from rankopt.metadata import fingerprint
from rankopt.stages import Source, Stages
from rankopt.tensors import get_tensor, misfit, put_tensor
from rankopt.variant import count_changes


class WeightHolder(nn.Module):
    """A module with the tensors of several plans. What it derives from them, `refresh` renews."""

    def __init__(self, plans: Sequence[Stages], weights: Mapping[str, Tensor]) -> None:
        """`plans` were made with the same `stages.Names`; `weights` are the model's tensors, which are not copied."""
        super().__init__()
        self.fixed: Mapping[str, str] = {}
        """Indices and masks of the model, which the graph was specialised for: their names and fingerprints."""
        self.not_in_checkpoints: frozenset[str] = frozenset()
        """Tensors that no state dict of the model holds: non-persistent buffers, and what was made of others."""
        self._sources: Sequence[Source] = [source for stages in reversed(plans) for source in stages.sources]
        self._weights_hash: tuple[str, int] | None = None
        for stages in plans:
            self._register(stages, weights)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute of the holder's own, also where the model has a layer or a parameter of that name."""
        if isinstance(value, Tensor | nn.Module):
            super().__setattr__(name, value)
        else:
            object.__setattr__(self, name, value)

    def _register(self, stages: Stages, weights: Mapping[str, Tensor]) -> None:
        """Puts tensors where the original model has them; the compiler's own are no part of the state dict."""
        for source in stages.sources:
            if source.is_constant:
                put_tensor(self, held_name(source), stages.constants[source.name], persistent=False)
            else:
                put_tensor(self, held_name(source), weights[source.name])

    # -------------------------------------------------------------------------------------------------- names

    def get_parameter_or_buffer(self, name: str) -> Tensor:
        """A weight by the name that it has in the original model."""
        return get_tensor(self, name)

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the model that the ranker reads, by their names in the model."""
        return {source.name: get_tensor(self, source.name) for source in self._sources if not source.is_constant}

    def weights_hash(self) -> str:
        """The `rankopt.metadata.fingerprint` of the weights, kept until they change: about a second for 1 GB."""
        weights = self.weights()
        changes = count_changes(list(weights.values()))
        if self._weights_hash is None or self._weights_hash[1] != changes:
            self._weights_hash = fingerprint(weights), changes
        return self._weights_hash[0]

    def set_weights_hash(self, known: str) -> None:
        """Spares the hashing of weights of which the hash is known."""
        self._weights_hash = known, count_changes(list(self.weights().values()))

    def constants(self) -> dict[str, Tensor]:
        """The tensors that the compiler made, such as indices, by their names in the ranker."""
        names = [held_name(source) for source in self._sources if source.is_constant]
        return {name: get_tensor(self, name) for name in names}

    # -------------------------------------------------------------------------------------------------- changes

    def refresh(self) -> None:
        """To be called when a tensor has changed: forgets what was derived from it."""
        self._weights_hash = None

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.refresh()
        return self

    def load_original_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """New weights under the original model's names; nothing is optimised again.

        What no state dict of the model holds (a non-persistent buffer) stays as it is unless it is given. Names that
        the ranker does not know are left out: it reads what the scores depend on. States of the old weights are refused
        from now on. Nothing is changed where an error is raised.

        Raises StageError where a weight is missing, has another shape or kind of numbers, or is not dense; or where an
        index or a mask differs: laws look into those, so other values are another program.
        """
        own = self.weights()
        names = [name for name in own if name in state_dict or name not in self.not_in_checkpoints]
        self._require_fitting(state_dict, names)
        with torch.no_grad():
            for name in names:
                own[name].copy_(state_dict[name])
        self.refresh()

    def _require_fitting(self, state_dict: Mapping[str, Tensor], names: Sequence[str]) -> None:
        """Raises StageError where `state_dict` lacks one of the weights `names`, or is of another program."""
        own = self.weights()
        missing = [name for name in names if name not in state_dict]
        found = [(name, misfit(own[name], state_dict[name])) for name in names if name in state_dict]
        odd = [f"{name} {why}" for name, why in found if why is not None]
        if missing or odd:
            lacks = [f"missing {missing}"] if missing else []
            raise StageError(
                f"the state dict does not fit: {'; '.join(lacks + odd[:8])}.\n"
                f"  found: {', '.join(map(str, list(state_dict)[:8]))}{' and more' if len(state_dict) > 8 else ''}\n"
                "  fix: pass the state dict of the model that was optimised, with dense tensors"
            )
        changed = [n for n, was in self.fixed.items() if n in state_dict and fingerprint({n: state_dict[n]}) != was]
        if changed:
            raise StageError(
                f"the state dict has other indices or masks, which the ranker was specialised for: {changed}.\n"
                "  fix: optimize the model with its new weights"
            )


def held_name(source: Source) -> str:
    """The name of a tensor in the ranker: as in the model, or a constant of the compiler's after an underscore."""
    return f"_{source.name}" if source.is_constant else source.name
