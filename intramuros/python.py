"""The Python surface: `open()` wires models, ledger and session; AI has a method for each task.

    ai = intramuros.open()
    ai.classify(["Where is my parcel?"], labels=["delivery", "payment"])
    ai.sql("select ai_summarize(text, 20) from 'letters.parquet'")

A method takes one text, or a column of texts (list, pandas, Polars, Arrow) and gives back the same
kind. Does not download anything: a model is pulled first, with `intramuros models pull`.
"""

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

from intramuros import registry, settings
from intramuros.engine import ByVerb, Engine
from intramuros.ledger import Ledger, Remembered
from intramuros.models import catalog
from intramuros.models.prepare import prepare
from intramuros.run import Session
from intramuros.settings import Settings
from intramuros.types import Origin, Result, Verb, plain

Talk = Callable[[str], None]
"""Takes a sentence about something that takes long, such as loading a model."""


def silent(sentence: str) -> None:
    pass


class AI:
    """A session with a method for each task, SQL over files, and DuckDB registration."""

    def __init__(self, session: Session, ledger: Ledger | None = None) -> None:
        self.session = session
        self.ledger = ledger

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        task = self.session.task(name)

        def ask(column: Any, *, model: str = "", detail: bool = False, **arguments: Any) -> Any:
            from intramuros.tables import arrow

            texts, rebuild = arrow.texts(column)
            self.session.begin()
            rows = ({task.row: text, **arguments} for text in texts)
            results: list[Result | None] = [None] * len(texts)
            for result in self.session.run(task, rows, model):
                results[result.row] = result
            self.session.check_failures()
            if detail:
                return results[0] if isinstance(column, str) else results
            return rebuild([plain(result.value) if result else None for result in results])

        ask.__name__, ask.__doc__ = task.name, task.flow.__doc__
        return ask

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.session.tasks]

    def sql(self, query: str, output: str | Path | None = None) -> Any:
        """Run a statement with every task as `ai_<task>`; gives an Arrow table or writes a file."""
        from intramuros.tables import duckdb

        if output is not None:
            return duckdb.write(query, output, self.session)
        with duckdb.sql(query, self.session) as reader:
            return reader.read_all()

    def register(self, connection: Any) -> None:
        """Give a DuckDB connection of yours the functions `ai_<task>`."""
        from intramuros.tables import duckdb

        duckdb.register(connection, self.session)

    def close(self) -> None:
        self.session.close()
        if self.ledger is not None:
            self.ledger.close()

    def __enter__(self) -> "AI":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open(
    model: str = "",
    *,
    workspace: str | Path | None = None,
    home: str | Path | None = None,
    talk: Talk = silent,
    **flags: Any,
) -> AI:
    """Open a workspace; `flags` are settings by name, such as `engine` or `max_error_ratio`.

    `workspace` is the folder of the ledger (default INTRAMUROS_WORKSPACE, else `.intramuros`),
    `home` that of the weights (default INTRAMUROS_HOME, else the platform's data folder).
    """
    folder = Path(workspace) if workspace else settings.workspace()
    if flags.get("engine"):  # named for this time: what was measured for each verb stands back
        flags = {**flags, "engine_say": "", "engine_choose": "", "engine_fill": ""}
    chosen = settings.read(folder, {"model": model or None, **flags})
    ledger = Ledger(folder, keep_text=chosen.keep_text)
    origin = Origin(principal=chosen.principal or _user(), sensitivity=chosen.sensitivity)  # type: ignore[arg-type]

    def load(name: str) -> Engine:
        weights = Path(home) if home else settings.home()
        serving = engine_names(chosen)
        engines = {
            kind: Remembered(load_engine(name or chosen.model, kind, chosen, weights, talk), ledger)
            for kind in dict.fromkeys(serving.values())
        }
        if len(engines) == 1:
            return next(iter(engines.values()))
        return ByVerb({verb: engines[kind] for verb, kind in serving.items()})

    return AI(Session(settings=chosen, load=load, origin=origin), ledger)


def engine_names(chosen: Settings) -> dict[Verb, str]:
    """Which engine serves which verb; a dry run is dry for all of them."""
    if chosen.engine == "scripted":
        return {"say": "scripted"}
    named: dict[Verb, str] = {
        "say": chosen.engine_say,
        "choose": chosen.engine_choose,
        "fill": chosen.engine_fill,
    }
    return {verb: name or chosen.engine for verb, name in named.items()}


def load_engine(
    card_name: str, engine: str, chosen: Settings, home: Path, talk: Talk = silent
) -> Engine:
    """The bare engine of a card, its weights prepared if that was not done yet."""
    kind = registry.module("engines", engine)
    loaded: Engine
    if not getattr(kind, "NEEDS_WEIGHTS", True):
        loaded = kind.load(None, chosen)
    else:
        card = catalog.find(card_name, home)
        talk(f"loading {card.name} with {engine}")
        loaded = kind.load(prepare(card, home, chosen), chosen)
    return loaded


def register(connection: Any, model: str = "", **flags: Any) -> AI:
    """Open the workspace and give a DuckDB connection its functions; close what it returns."""
    ai = open(model, **flags)
    ai.register(connection)
    return ai


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
