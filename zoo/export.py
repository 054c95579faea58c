"""A trained model as a program of its own: a `torch.export` file that holds for every number of rows."""

import json
from dataclasses import asdict
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from rankopt.zoo.dataset import RowSource
from rankopt.zoo.errors import ZooError
from rankopt.zoo.fields import Field, Schema
from rankopt.zoo.files import write_whole

EXAMPLE_ROWS = 8
SCHEMA_FILE = "schema.json"
"""Extra file inside the program: which fields there are, and which of them are context."""


def export_program(model: nn.Module, rows: RowSource) -> ExportedProgram:
    """The model in evaluation mode, called with one dictionary of ids, the number of rows left open."""
    # cloned: the file would otherwise carry all rows behind these views
    features = {name: ids.clone() for name, ids in rows.first(EXAMPLE_ROWS).features.items()}
    row_count = Dim("R")
    shapes = ({name: {0: row_count} for name in features},)
    return torch.export.export(model.eval(), (features,), dynamic_shapes=shapes, strict=False)


def save_program(program: ExportedProgram, schema: Schema, path: Path) -> None:
    """Writes the program, with its schema, as one file; what was there before is replaced at the very end."""
    extra = {SCHEMA_FILE: json.dumps(asdict(schema))}
    write_whole(path, lambda file: torch.export.save(program, file, extra_files=extra))


def read_schema(path: Path) -> Schema:
    """The schema in a file that `save_program` wrote.

    Raises:
        ZooError: there is none in it.
    """
    try:
        with ZipFile(path) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(f"extra/{SCHEMA_FILE}"))
            content = json.loads(archive.read(member))
    except (BadZipFile, OSError, ValueError) as error:
        raise ZooError(
            f"expected a program of `rankopt zoo train`, found no schema in {path}.\n"
            "  fix: use `rankopt optimize`, and name the inputs of the context"
        ) from error
    fields = tuple(Field(**field) for field in content["fields"])
    return Schema(fields, tuple(content["context"]), tuple(content["target"]))
