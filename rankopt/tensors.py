"""Tensors of a module by their dotted names, as `state_dict` has them.

Modules on the way are made as needed. The dictionaries of the modules are used directly: a model may well
have a layer called `stages` or `outputs`, and it must not collide with the attributes of whoever holds it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def put_tensor(root: nn.Module, name: str, tensor: Tensor, persistent: bool = True) -> None:
    """Registers a parameter or buffer under `name`, which may have dots."""
    *path, last = name.split(".")
    module = root
    for step in path:
        inner = module._modules.get(step)
        if inner is None:
            inner = module._modules[step] = nn.Module()
        module = inner
    if isinstance(tensor, nn.Parameter):
        module._parameters[last] = tensor
        return
    module._buffers[last] = tensor
    if not persistent:
        module._non_persistent_buffers_set.add(last)


def get_tensor(root: nn.Module, name: str) -> Tensor:
    """The parameter or buffer called `name`. Raises KeyError where there is none."""
    *path, last = name.split(".")
    module = root
    for step in path:
        inner = module._modules[step]
        assert inner is not None
        module = inner
    parameter = module._parameters.get(last)
    found = module._buffers[last] if parameter is None else parameter
    if found is None:
        raise KeyError(name)
    return found


def misfit(own: Tensor, given: Any) -> str | None:
    """Why the numbers of `given` cannot be put into `own` as they are; None where they can.

    Another precision is no reason, another kind of numbers is: a cast would drop imaginary parts and fractions.
    """
    if not isinstance(given, Tensor):
        return f"is a {type(given).__name__}, expected a tensor"
    if given.shape != own.shape:
        return f"has the shape {list(given.shape)}, expected {list(own.shape)}"
    if given.layout is not torch.strided:
        return f"is {given.layout}, expected a dense tensor"
    if given.is_quantized:
        return f"is quantised ({given.dtype}), expected plain numbers"
    if given.is_meta and not own.is_meta:
        return "has no data: it is on the meta device"
    if _numbers(given) != _numbers(own):
        return f"is {given.dtype}, expected {own.dtype}"
    return None


def _numbers(tensor: Tensor) -> tuple[bool, bool, bool]:
    """What kind of numbers a tensor holds, whatever their precision."""
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype is torch.bool
