"""Imports point left in the order of layers, and never between two names of one layer."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import intramuros

PACKAGE = Path(intramuros.__file__).parent
LAYERS = (
    "types",
    "errors",
    "settings",
    "registry",
    "task",
    "engine",
    "keys",
    "migrations",
    "stored",
    "ledger",
    "models documents",
    "prompt",
    "runtime",
    "guard",
    "tasks engines",
    "run",
    "cascade",
    "plan",
    "evaluate knowledge",
    "tables train",
    "python",
    "serve",
    "terminal",
    "commands",
    "cli",
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer.split()}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Names right below `intramuros` that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("intramuros."):
                    yield alias.name.split(".")[1], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts == ["intramuros"]:
                for alias in node.names:
                    yield alias.name, node.lineno
            elif parts[0] == "intramuros":
                yield parts[1], node.lineno


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_left(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} has no layer: give it one here and in the design"
    for name, line in imports(path):
        assert name in RANK, f"{path.name}:{line} imports {name}, which has no layer"
        if name != own:
            assert RANK[name] < RANK[own], f"{path.name}:{line}: {own} may not import {name}"


def test_the_engines_do_not_import_each_other() -> None:
    for folder in ("engines", "tasks"):
        for path in (PACKAGE / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    assert not node.module.startswith(f"intramuros.{folder}."), path.name
