"""Every test starts from the same random numbers; an empty program for those that write one."""

import pytest
import torch

from rankopt.program import Program


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def program() -> Program:
    """An empty one."""
    return Program()
