"""Which of the given labels a text bears."""

import json
from typing import Any

from intramuros.errors import BadArgument
from intramuros.task import Flow, choose, choose_many, document, task
from intramuros.types import Choice, Choices

MOST_LABELS = 500
LONGEST_LABEL = 100
LONGEST_DESCRIPTION = 1000
LONGEST_INSTRUCTIONS = 20_000
OPTIONS = ("version", "instructions", "multilabel")


@task
def classify(
    content: str, labels: list[str] | dict[str, str] | str, options: dict[str, str] | None = None
) -> Flow[Choice | Choices | dict[str, Any] | None]:
    """Choose the label that fits a text best, or with `multilabel` every one that fits.

    A list of labels gives the label itself; JSON text (`'["a","b"]'` or `'{"a":"what a means"}'`)
    gives `{"response": [...], "error_message": null}`, the second generation of the function.
    """
    names, descriptions = read_labels(labels)
    chosen = read_options(options)
    second_generation = isinstance(labels, str) and chosen.get("version") != "1.0"
    if not content.strip():
        return {"response": [], "error_message": None} if second_generation else None
    instruction = "You sort texts by their labels."
    if extra := chosen.get("instructions", ""):
        instruction = f"{instruction} {extra}"
    prompt = document(content, instruction, "Which label fits the text best?")
    if chosen.get("multilabel", "false").lower() == "true":
        several = document(content, instruction, "Decide whether a label applies to the text.")
        found = yield from choose_many(several, names, descriptions)
        return (
            {"response": list(found.labels), "error_message": None} if second_generation else found
        )
    choice = yield from choose(prompt, names, descriptions)
    return {"response": [choice.label], "error_message": None} if second_generation else choice


def read_labels(labels: list[str] | dict[str, str] | str) -> tuple[list[str], list[str]]:
    """Labels and their descriptions (none, or one each) from any of the three forms."""
    if isinstance(labels, str):
        try:
            labels = json.loads(labels)
        except json.JSONDecodeError as error:
            raise BadArgument(
                f"labels are not JSON: {error}",
                hint="""write an array ['a', 'b'], or JSON text '["a","b"]' or '{"a":"meaning"}'""",
            ) from error
    if isinstance(labels, dict):
        names, descriptions = list(labels), list(labels.values())
    elif isinstance(labels, list):
        names, descriptions = labels, []
    else:
        raise BadArgument(f"labels take a list or an object, not {labels!r}")
    if not all(isinstance(text, str) for text in (*names, *descriptions)):
        raise BadArgument("labels and their descriptions are texts")
    check_labels(names)
    for name, about in zip(names, descriptions, strict=False):
        if len(about) > LONGEST_DESCRIPTION:
            raise BadArgument(
                f"the description of {name!r} has {len(about)} characters, "
                f"more than {LONGEST_DESCRIPTION}"
            )
    return names, descriptions


def check_labels(names: list[str]) -> None:
    """Refuse fewer than 2 or more than 500 labels, empty, long or duplicate ones."""
    if not 2 <= len(names) <= MOST_LABELS:
        raise BadArgument(f"{len(names)} labels were given", hint=f"give 2 to {MOST_LABELS}")
    seen: set[str] = set()
    for name in names:
        if not name.strip() or len(name) > LONGEST_LABEL:
            raise BadArgument(
                f"the label {name[:40]!r} has {len(name)} characters",
                hint=f"a label has 1 to {LONGEST_LABEL}",
            )
        if name in seen:
            raise BadArgument(f"the label {name!r} is given twice")
        seen.add(name)


def read_options(options: dict[str, str] | None) -> dict[str, str]:
    """The options map, its names checked."""
    chosen = {name: str(value) for name, value in (options or {}).items()}
    for name in chosen:
        if name not in OPTIONS:
            raise BadArgument(
                f"there is no option {name!r}", hint=f"known are {', '.join(OPTIONS)}"
            )
    if len(chosen.get("instructions", "")) > LONGEST_INSTRUCTIONS:
        raise BadArgument(f"instructions have more than {LONGEST_INSTRUCTIONS} characters")
    return chosen
