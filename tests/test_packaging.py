"""The root folders passes/ and zoo/ are rankopt.passes and rankopt.zoo, in a checkout and in a wheel."""

import importlib.util
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import rankopt

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = {"rankopt": "rankopt", "rankopt.passes": "passes", "rankopt.zoo": "zoo"}


def packages_of(package: str, folder: Path) -> set[str]:
    """The packages in a folder of the tree; links to other root folders are not followed."""
    inside = [path for path in folder.iterdir() if (path / "__init__.py").is_file() and not path.is_symlink()]
    return {package}.union(*(packages_of(f"{package}.{path.name}", path) for path in inside))


def test_packages_are_those_of_the_tree():
    settings = PYPROJECT["tool"]["setuptools"]
    assert settings["package-dir"] == MAPPED
    in_tree = set().union(*(packages_of(package, ROOT / folder) for package, folder in MAPPED.items()))
    assert set(settings["packages"]) == in_tree


@pytest.mark.parametrize("folder", ["passes", "zoo"])
def test_links_point_to_the_root_folders(folder):
    link = ROOT / "rankopt" / folder
    if not link.is_symlink():
        pytest.skip("links were checked out as text; the installation does not need them")
    assert link.readlink() == Path("..", folder)
    assert link.resolve() == (ROOT / folder).resolve()


@pytest.mark.parametrize("folder", ["passes", "zoo"])
def test_root_folders_cannot_be_imported_by_their_own_name(folder):
    spec = importlib.util.spec_from_file_location(folder, ROOT / folder / "__init__.py")
    with pytest.raises(ImportError, match=rf"rankopt\.{folder}"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_torch_is_held_below_the_next_minor_version():
    (torch_range,) = [text for text in PYPROJECT["project"]["dependencies"] if text.startswith("torch")]
    assert torch_range == "torch>=2.13,<2.14"


def test_wheel_holds_rankopt_alone(tmp_path):
    setuptools = pytest.importorskip("setuptools", "77", reason="the build needs setuptools 77 or newer")
    source = tmp_path / "source"
    for folder in ("rankopt", "passes", "zoo"):
        ignored = shutil.ignore_patterns("__pycache__", *(["passes", "zoo"] if folder == "rankopt" else []))
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.startswith(f"rankopt-{rankopt.__version__}-"), setuptools.__version__
    assert {name.split("/")[0] for name in names} == {"rankopt", f"rankopt-{rankopt.__version__}.dist-info"}
    ratings = ROOT / "zoo" / "data" / "movietweetings_100k"
    data = [path.relative_to(ROOT).as_posix() for path in ratings.iterdir()]
    expected = ["py.typed", "capture.py", "passes/__init__.py", "zoo/__init__.py", "zoo/data/__init__.py", *data]
    assert {f"rankopt/{name}" for name in expected} <= set(names)
