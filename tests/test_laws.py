"""The laws of the house, read off its imports: arrows point down, Ray stays in its room, a door takes any file."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mer_ray.catalog import datasets
from mer_ray.doors import Door
from mer_ray.encoders import DOOR as ENCODERS
from mer_ray.learning import losses
from tests.support import ROOT

FLOORS = (
    {"errors", "fingerprints", "pages", "threads"},
    {"uris"},
    {"storage", "doors", "models"},
    {"settings", "arrays"},
    {"helptext"},
    {"commandline", "songs"},
    {"audio", "catalog"},
    {"encoders", "words"},
    {"features"},
    {"learning", "runs"},
    {"tagging"},
    {"evaluation"},
    {"cluster"},
    {"paper", "demo", "page"},
    {"jobs"},
)
"""From the ground up. A room imports from its own package and from floors below, never from its own floor."""

FLOOR = {name: at for at, names in enumerate(FLOORS) for name in names}
DOORS = (ENCODERS, datasets.DOOR, losses.DOOR)


def rooms() -> Iterator[tuple[str, Path]]:
    """Each file of the package and of the jobs, under the name of its room."""
    for path in sorted((ROOT / "mer_ray").rglob("*.py")):
        parts = path.relative_to(ROOT / "mer_ray").with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path
    for path in sorted((ROOT / "jobs").glob("*.py")):
        yield "jobs", path


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports by name, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = str(node.module)
            # ``from mer_ray.words import lists`` names a module, ``from mer_ray.words.lists import x`` one as well.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def arrows() -> set[tuple[str, str, str]]:
    """(room, room it imports from, file) inside the house; the version in ``mer_ray`` itself is nobody's."""
    found = set()
    for room, path in rooms():
        for module in imported(path):
            top, _, rest = module.partition(".")
            to = rest.split(".")[0]
            if top == "mer_ray" and to != "__version__":
                found.add((room, to, str(path.relative_to(ROOT))))
    return found


def test_every_room_has_its_floor() -> None:
    assert {room for room, _ in rooms()} == set(FLOOR)


def test_arrows_point_down() -> None:
    wrong = [arrow for arrow in arrows() if arrow[0] != arrow[1] and FLOOR[arrow[0]] <= FLOOR[arrow[1]]]
    assert not wrong


def test_no_two_files_import_each_other() -> None:
    """Inside a package too there are no circles."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for _, path in rooms()
    }
    below = {name: {to for module in imported(path) for to in _named(module, files)} for name, path in files.items()}
    settled: set[str] = set()
    while len(settled) < len(below):
        ready = {name for name, own in below.items() if name not in settled and own - {name} <= settled}
        assert ready, f"a circle among {sorted(below.keys() - settled)}"
        settled |= ready


def _named(module: str, files: dict[str, Path]) -> set[str]:
    """The file a module's name stands for: itself, or what it is taken from."""
    return {name for name in (module, module.rpartition(".")[0]) if name in files and name != "mer_ray"}


def test_ray_is_imported_in_the_cluster_room_alone() -> None:
    users = {room for room, path in rooms() for module in imported(path) if module.split(".")[0] == "ray"}
    assert users == {"cluster"}


def test_benchmarks_and_the_package_import_no_tests() -> None:
    files = [path for _, path in rooms()] + sorted((ROOT / "benchmarks").glob("*.py"))
    assert not [path for path in files for module in imported(path) if module.split(".")[0] == "tests"]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.setting)
def test_every_file_of_a_door_is_a_choice_and_needs_no_other_place_that_knows_it(door: Door) -> None:
    for name in door.names():
        module, _ = door.find(name)
        assert hasattr(module, door.needs)
        assert module is importlib.import_module(f"{door.package}.{name}")


@pytest.mark.parametrize("job", sorted(path.stem for path in (ROOT / "jobs").glob("*.py")))
def test_help_needs_neither_torch_nor_ray(job: str) -> None:
    code = (
        f"import runpy, sys; sys.argv = ['{job}', '--help']\n"
        f"try: runpy.run_path('jobs/{job}.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end\n"
        "heavy = {'torch', 'ray', 'transformers', 'sentence_transformers', 'sklearn', 'pandas'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_the_readme_draws_this_house() -> None:
    tree = (ROOT / "README.md").read_text().partition("<!-- house -->")[2].partition("<!-- /house -->")[0]
    drawn = {line.split()[0].strip("/").removesuffix(".py") for line in tree.splitlines() if line.startswith("  ")}
    assert drawn == set(FLOOR) - {"jobs"}
