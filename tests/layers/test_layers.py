"""Dependencies point one way: the contracts of .importlinter hold, and would notice if they did not."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONTRACTS = REPOSITORY / ".importlinter"


def lint(where: Path) -> tuple[bool, str]:
    """Whether the contracts hold for the package in ``where/src``, and what was said."""
    done = subprocess.run(
        # In a process of its own, that must see this copy of the package and not the installed one.
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=where,
        env={"PYTHONPATH": str(where / "src"), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that a test may spoil."""
    where = tmp_path_factory.mktemp("copy")
    shutil.copytree(REPOSITORY / "src/kilonova", where / "src/kilonova", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CONTRACTS, where)
    return where


def test_the_contracts_hold(copy: Path) -> None:
    kept, said = lint(copy)
    assert kept, said


@pytest.mark.parametrize(
    ("importer", "imported", "contract"),
    [
        ("base", "kilonova.model.errors", "Dependencies point one way"),
        ("rpc", "kilonova.store.engine", "Dependencies point one way"),
        ("scheduler", "kilonova.conductor", "Dependencies point one way"),
        ("virt", "kilonova.tasks.engine", "Agents have no database"),
        ("compute", "sqlalchemy", "SQL stays in the store"),
        ("cloud", "falcon", "The web framework stays in api/http"),
        ("compute", "libvirt", "libvirt stays in virt/libvirt"),
    ],
)
def test_a_wrong_arrow_is_noticed(copy: Path, importer: str, imported: str, contract: str) -> None:
    wrong = copy / "src/kilonova" / importer / "wrong_arrow.py"
    wrong.write_text(f"import {imported}\n")
    try:
        kept, said = lint(copy)
    finally:
        wrong.unlink()
    assert not kept
    assert f"{contract} BROKEN" in said
    assert "wrong_arrow" in said


def test_a_room_that_is_not_drawn_is_noticed(copy: Path) -> None:
    room = copy / "src/kilonova/attic"
    room.mkdir()
    (room / "__init__.py").touch()
    try:
        kept, said = lint(copy)
    finally:
        shutil.rmtree(room)
    assert not kept
    assert "attic" in said


def test_every_room_of_an_agent_is_held_to_have_no_database() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(CONTRACTS)
    held = contracts["importlinter:contract:agents"]["source_modules"].split()
    built = [
        room for room in ("compute", "network", "console", "virt") if (REPOSITORY / "src/kilonova" / room).is_dir()
    ]
    assert sorted(held) == sorted(f"kilonova.{room}" for room in built)
