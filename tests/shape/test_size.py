"""Files under 400 lines, functions under 60, the kernel under 2,500, no drawer for the rest."""

import ast
from pathlib import Path

import pytest

import intramuros

ROOT = Path(intramuros.__file__).parent.parent
KERNEL = (
    *("types", "errors", "settings", "registry", "task", "engine", "keys", "migrations"),
    "stored",
    *("ledger", "run", "guard"),
)
FORBIDDEN = ("utils", "helpers", "common", "misc", "manager", "factory", "base")


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "path", files("intramuros", "bench", "scripts"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 400
    assert path.stem not in FORBIDDEN
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_the_kernel_is_small() -> None:
    kernel = [
        path
        for path in files("intramuros")
        if path.relative_to(ROOT / "intramuros").parts[0].removesuffix(".py") in KERNEL
    ]
    assert sum(path.read_text(encoding="utf-8").count("\n") for path in kernel) < 2500


@pytest.mark.parametrize(
    "path", files("intramuros", "bench", "scripts"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_module_opens_by_saying_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text or ast.get_docstring(ast.parse(text))
