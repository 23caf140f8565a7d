"""`intramuros models`: list, pull, show, remove, measure and recommend cards."""

import argparse
import sys
from functools import partial
from typing import Any

import msgspec
from tqdm import tqdm

from intramuros import settings, terminal
from intramuros.evaluate import measure
from intramuros.models import catalog, shelf
from intramuros.models.prepare import prepare
from intramuros.models.pull import pull
from intramuros.models.recommend import recommend
from intramuros.python import load_engine


def add(commands: Any) -> None:
    models = commands.add_parser("models", help="list, pull, show, remove, measure, recommend")
    actions = models.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every card, and whether its weights are here")
    listing.set_defaults(command=list_cards)
    pulling = actions.add_parser("pull", help="bring weights into the store and prepare them")
    pulling.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a card, hf:owner/repository[/file][@revision], or a .gguf file (default: the model)",
    )
    pulling.add_argument("--name", default="", help="what to call the card of a file or hub name")
    pulling.set_defaults(command=pull_cards)
    showing = actions.add_parser("show", help="all that is known of a card")
    showing.add_argument("name")
    showing.set_defaults(command=show_card)
    removing = actions.add_parser("remove", help="remove a card's weights from the store")
    removing.add_argument("name")
    removing.add_argument("--forget", action="store_true", help="forget its hub pin too")
    removing.set_defaults(command=remove_card)
    measuring = actions.add_parser(
        "measure", help="time each engine here, and fix in the workspace which verb it serves"
    )
    measuring.add_argument("name", nargs="?", help="default: the default card")
    measuring.set_defaults(command=measure_card)
    recommending = actions.add_parser("recommend", help="the best card for this machine's memory")
    recommending.add_argument("--language", action="append", default=[], help="such as fr")
    recommending.add_argument("--memory", type=float, help="gigabytes; default: this machine's")
    recommending.set_defaults(command=recommend_card)


def list_cards(chosen: argparse.Namespace) -> int:
    names = ("card", "parameters", "size", "state", "verbs", "languages", "licence", "from")
    rows = [msgspec.structs.astuple(row) for row in shelf.rows(settings.home())]
    terminal.print_table(names, rows, sys.stdout)
    return 0


def pull_cards(chosen: argparse.Namespace) -> int:
    told = settings.read()
    home = settings.home()
    for name in chosen.names or [told.model]:
        card = pull(name, told, home, Bytes(name), terminal.say, chosen.name)
        prepared = prepare(card, home, told, Bytes(f"preparing {card.name}"), terminal.say)
        terminal.say(f"{card.name} is ready, weights {prepared.digest[:12]}")
    return 0


class Bytes:
    """A bar of bytes, made when the first of them arrive; silent where stderr is no terminal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self.bar is None:
            self.bar = tqdm(
                total=total,
                desc=self.name,
                unit="B",
                unit_scale=True,
                leave=False,
                disable=not sys.stderr.isatty(),
            )
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()


def show_card(chosen: argparse.Namespace) -> int:
    home = settings.home()
    print(shelf.show(catalog.find(chosen.name, home), home))
    return 0


def remove_card(chosen: argparse.Namespace) -> int:
    terminal.say(shelf.remove(chosen.name, settings.home(), chosen.forget))
    return 0


def measure_card(chosen: argparse.Namespace) -> int:
    told = settings.read()
    home = settings.home()
    name = chosen.name or told.model
    catalog.find(name, home)
    measured = []
    for engine in ("openvino", "llamacpp"):
        terminal.say(f"measuring {name} with {engine}")
        measured.append(measure.measure(engine, partial(load_engine, name, engine, told, home)))
    rows = [
        (
            one.engine,
            one.load_seconds,
            one.read,
            one.choose,
            one.say_alone,
            one.say_together,
            one.failure,
        )
        for one in measured
    ]
    names = (
        "engine",
        "load s",
        "read tok/s",
        "choose rows/s",
        "write tok/s",
        "16 together",
        "failure",
    )
    terminal.print_table(names, rows, sys.stdout)
    engines = measure.fastest(measured)
    measure.fix(settings.workspace(), engines)
    for verb, engine in engines.items():
        terminal.say(f"{verb} is served by {engine} in this workspace from now on")
    return 0 if engines else 1


def recommend_card(chosen: argparse.Namespace) -> int:
    memory = int(chosen.memory * 1e9) if chosen.memory else None
    print(recommend(memory, settings.home(), tuple(chosen.language)))
    return 0
