"""Models of the zoo, written by torch's exporter and read back, are the files that ONNX Runtime runs.

A few of them, or all of them with RANKOPT_SWEEP=1 (`make sweep`).
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_zoo import tiny
from torch import Tensor, nn

from rankopt.capture import capture
from rankopt.exporting import tracing_conditions
from rankopt.importing.model import import_onnx
from rankopt.zoo import ENTRIES, Schema

DrawRows = Callable[..., dict[str, Tensor]]

FEW = ("dlrm", "dcnv2_mix", "autoint", "mlcc", "din", "bst")
NAMES = tuple(ENTRIES) if os.environ.get("RANKOPT_SWEEP") else FEW


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_model_comes_back(name: str, schema: Schema, draw_rows: DrawRows, tmp_path: Path) -> None:
    torch.manual_seed(0)
    entry = ENTRIES[name]
    model = entry.model(schema, tiny(entry.config)).eval()
    for table in model.modules():
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight)
    features = draw_rows(schema.fields, 7)
    shapes = {"features": {name: {0: torch.export.Dim("R")} for name in features}}
    with tracing_conditions():
        torch.onnx.export(
            model, (), tmp_path / "m.onnx", kwargs={"features": features}, dynamo=True, dynamic_shapes=shapes,
            input_names=list(features), verbose=False,
        )  # fmt: skip
    read = import_onnx(tmp_path / "m.onnx")
    captured = capture(read, (), features)  # which compares with ONNX Runtime
    for rows in (1, 2, 37):
        given = draw_rows(schema.fields, rows, seed=rows)
        with torch.no_grad():
            expected = model(given)
            scale = float(expected.abs().max()) + 1e-6
            for found in (*read(**given).values(), *captured.run(given)):
                torch.testing.assert_close(found, expected, rtol=0, atol=3e-5 * scale)
