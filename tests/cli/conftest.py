"""One small model, exported once, and the command line run on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from small_ranker import Small, export_to

from rankopt.cli import main

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="session")
def module() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="session")
def model(folder: Path, module: Small) -> Path:
    return export_to(folder / "model.pt2", module)


@pytest.fixture(scope="session")
def other_model(folder: Path) -> Path:
    torch.manual_seed(9)
    return export_to(folder / "other.pt2", Small().eval())


@pytest.fixture(scope="session")
def ranker(folder: Path, model: Path) -> Path:
    path = folder / "ranker.pt2"
    result = CliRunner().invoke(main, ["optimize", str(model), "--context", "user_*", "-o", str(path)])
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def run() -> Run:
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run
