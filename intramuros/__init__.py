"""Large language models inside your own walls: `open()`, `register()` and `Session`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from intramuros.python import AI, open, register
    from intramuros.run import Session

__all__ = ["AI", "Session", "open", "register"]


def __getattr__(name: str) -> Any:
    # imported on first use, so that the kernel can be imported without DuckDB and the models
    if name in ("AI", "open", "register"):
        from intramuros import python

        return getattr(python, name)
    if name == "Session":
        from intramuros.run import Session

        return Session
    raise AttributeError(f"intramuros has no attribute {name!r}")
