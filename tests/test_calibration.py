"""Calibration measures a price for everything, on every backend, and leaves the threads as they were."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rankopt import calibration
from rankopt.cli import main
from rankopt.prices import Profile, from_json


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SECONDS", 0.002)


@pytest.mark.parametrize("backend", calibration.BACKENDS)
def test_every_price_is_measured(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # a minute's work
    threads = torch.get_num_threads()
    profile = calibration.calibrate(backend)
    prices = [getattr(profile, field.name) for field in fields(Profile) if field.type == "float"]
    assert all(math.isfinite(price) and price >= 0 for price in prices)
    assert profile.name == f"{backend}, measured"
    assert torch.get_num_threads() == threads


def test_the_command_writes_a_profile_and_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    run = CliRunner()
    assert run.invoke(main, ["calibrate", "-o", str(file)]).exit_code == 0
    assert isinstance(from_json(json.loads(file.read_text())), Profile)
    assert run.invoke(main, ["calibrate", "-o", str(file)]).exit_code == 2


def test_probes_of_torch_compile_are_compiled() -> None:
    backend = calibration.InductorBackend()
    torch._dynamo.utils.counters.clear()
    chain = backend.call("chain", np.ones(16, np.float32), length=5)
    with torch.no_grad():
        chain()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
