"""How a file is run to be compared: a function of tensors by name, whatever the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Run = Callable[[Mapping[str, Tensor]], list[Tensor]]
"""Inputs by name -> outputs, in the order of the part's."""
