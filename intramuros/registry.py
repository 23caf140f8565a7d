"""A name to its implementation: by file name inside a folder of ours, then by entry point.

`intramuros/tasks/translate.py` is the task `translate`; another package adds one by declaring the
entry point `intramuros.tasks` in its metadata. Modules are imported when they are first asked for.
"""

import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType
from typing import Literal, cast

from intramuros.errors import NotFound

Folder = Literal["tasks", "engines"]


def names(folder: Folder) -> list[str]:
    """Every implementation's name, ours first."""
    package = importlib.import_module(f"intramuros.{folder}")
    ours = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    others = [point.name for point in entry_points(group=f"intramuros.{folder}")]
    return [*ours, *(name for name in others if name not in ours)]


def module(folder: Folder, name: str) -> ModuleType:
    """The module that implements `name`; raises NotFound with the nearest names."""
    if name not in names(folder):
        raise NotFound.among(folder.removesuffix("s"), name, names(folder))
    for point in entry_points(group=f"intramuros.{folder}", name=name):
        return cast(ModuleType, point.load())
    return importlib.import_module(f"intramuros.{folder}.{name}")
