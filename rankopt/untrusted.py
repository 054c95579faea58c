"""Untrusted files: what in a .pt2 archive would run code when torch reads it.

`torch.export.load` is not made for files of unknown origin. It unpickles tensor subclasses and custom
objects, falls back from the safe to the unsafe unpickler for the example inputs, loads compiled libraries,
evaluates the text of symbolic sizes (`sympy.sympify`), looks operators up by any dotted path, imports modules
that a tree of arguments names, and pastes names into generated code. All of that is visible in the members of
the archive, so it is looked for beforehand.

This keeps *reading* a model from running code. It is no sandbox for running the model that was read.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rankopt.errors import FormatError

_OPERATOR = re.compile(
    r"torch\.ops\.[a-zA-Z]\w*\.\w+(\.\w+)?"  # torch.ops.aten.add.Tensor, torch.ops.higher_order.cond
    r"|torch\.sym_\w+|torch\._sym_\w+|math\.[a-z]\w*"
    r"|_operator\.(getitem|pos|neg|add|sub|mul|floordiv|truediv|mod|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|lshift|rshift)"
)
_NAME = re.compile(r"\w*")
_TENSOR_FILE = re.compile(r"(weight|tensor)_\d+")
_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Name, ast.Load, ast.keyword),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_FUNCTION = re.compile(r"[A-Z]\w*")  # Max, Mod, FloorDiv, PowByNatural; harmful builtins are lower case
_SIZE_OF_INPUT = re.compile(
    r"""L(\[('[^'"\\\n]*'|\d+)\])+\.(size\(\)\[\d+\]|stride\(\)\[\d+\]|storage_offset\(\))"""
)  # L['target']['price'].size()[0]
_FACTORY = '"default_factory_module": "'
_HARMLESS_FACTORY = f"{_FACTORY}builtins"


def refuse_code(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises FormatError where reading the program would unpickle, evaluate or import something."""
    for found in _findings(archive):
        raise FormatError(
            f"{path} would run code when it is read: {found}.\n"
            "  fix: if you know who made it, trust=True (--trust); otherwise do not open it"
        )


def _findings(archive: zipfile.ZipFile) -> Iterator[str]:
    for name in archive.namelist():
        inside = name.partition("/")[2]
        if inside.startswith("data/aotinductor/"):
            yield f"'{inside}' belongs to a compiled library"
        elif inside.startswith("data/sample_inputs/"):
            yield from _unpickled(inside, archive.read(name))
        elif inside.startswith(("data/weights/", "data/constants/")) and inside.endswith(".pt"):
            yield f"'{inside}' is a pickle"
        elif inside.startswith(("data/weights/", "data/constants/")) and inside.endswith("_config.json"):
            yield from _pickled_tensors(_json(archive, name))
        elif inside.startswith("models/"):
            yield from _harmful(_json(archive, name))


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    """The member's content; nothing where it is damaged, which torch will say."""
    try:
        return json.loads(archive.read(name))
    except ValueError:
        return None


def _unpickled(name: str, content: bytes) -> Iterator[str]:
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # whatever stops the safe unpickler would start the unsafe one
        yield f"the example inputs in '{name}' hold more than tensors"


def _pickled_tensors(config: Any) -> Iterator[str]:
    for name, payload in (config or {}).get("config", {}).items():
        if payload.get("use_pickle") or not _TENSOR_FILE.fullmatch(str(payload.get("path_name"))):
            yield f"'{name}' is a pickled object, no plain tensor"


def _harmful(data: Any) -> Iterator[str]:
    """Text in the description of a graph that torch would evaluate, import or paste into code."""
    if isinstance(data, list):
        for item in data:
            yield from _harmful(item)
    elif isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(value, str):
                yield from _harmful(value)
            elif reason := _reason(key, value):
                yield reason
        for name in data.get("forward_arg_names") or []:
            if not _NAME.fullmatch(str(name)):
                yield f"an argument is called {name!r}"
        for guard in data.get("guards_code") or []:
            if not is_arithmetic(_SIZE_OF_INPUT.sub("size", str(guard))):
                yield f"it checks its inputs by {guard!r}"


def _reason(key: str, value: str) -> str:
    if key == "expr_str" and not is_arithmetic(value):
        return f"a size is the expression {value!r}"
    if key == "target" and not _OPERATOR.fullmatch(value):
        return f"an operator is called {value!r}"
    if key in ("name", "as_name") and not _NAME.fullmatch(value):
        return f"a value is called {value!r}"
    if key in ("in_spec", "out_spec"):
        plain = value.replace("\\", "")
        if "__enum__" in plain or plain.count(_FACTORY) > plain.count(_HARMLESS_FACTORY):
            return "its arguments name modules to import"
    return ""


def is_arithmetic(text: str) -> bool:
    """Whether an expression is made of numbers, symbols, operators and functions such as Max alone."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_plain(node) for node in ast.walk(tree))


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and _FUNCTION.fullmatch(node.func.id) is not None
    if isinstance(node, ast.Constant):  # a text is the name of a symbol: Symbol('s0', integer=True)
        return isinstance(node.value, int | float) or _NAME.fullmatch(str(node.value)) is not None
    return isinstance(node, _ARITHMETIC)
