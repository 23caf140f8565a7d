"""Engines on real weights from the store; a card that is not there skips its tests and says so."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from intramuros import registry, settings
from intramuros.engine import Admit, Engine, always
from intramuros.models import catalog, prepare
from intramuros.models.prepared import Prepared
from intramuros.settings import Settings
from intramuros.types import Answer, Ask, Choice, Failure, Piece

ENGINES = ("llamacpp", "openvino")
CARDS = ("smollm2-135m",)
"""The card of most tests; what depends on the card names others with `parametrize("prepared")`."""

CONTEXT = 5120

Load = Callable[[str], Engine]


class Replies:
    """What an engine gave for a batch: the streamed texts and the answers, by row."""

    def __init__(self, engine: Engine, asks: Sequence[Ask], admit: Admit = always) -> None:
        self.pieces: list[Piece] = []
        self.texts: dict[int, list[str]] = {}
        self.answers: dict[int, Answer | Failure] = {}
        for piece in engine.generate(asks, admit):
            assert piece.row not in self.answers, "a piece after the end of its row"
            self.pieces.append(piece)
            if piece.text:
                self.texts.setdefault(piece.row, []).append(piece.text)
            if piece.answer is not None:
                self.answers[piece.row] = piece.answer

    def answer(self, row: int = 0) -> Answer:
        answer = self.answers[row]
        assert isinstance(answer, Answer), answer
        return answer

    def failure(self, row: int = 0) -> Failure:
        failure = self.answers[row]
        assert isinstance(failure, Failure), failure
        return failure

    def text(self, row: int = 0) -> str:
        value = self.answer(row).value
        assert isinstance(value, str)
        return value

    def choice(self, row: int = 0) -> Choice:
        value = self.answer(row).value
        assert isinstance(value, Choice)
        return value


@pytest.fixture(scope="module", params=CARDS)
def prepared(request: pytest.FixtureRequest) -> Prepared:
    home = settings.home()
    found = prepare.prepared(catalog.find(request.param, home), home)
    if found is None:
        pytest.skip(f"not in the store: intramuros models pull {request.param}")
    return found


@pytest.fixture(scope="module")
def load(prepared: Prepared) -> Iterator[Load]:
    """Gives the engine of a name, loaded once. One thread, since tests share their machine."""
    loaded: dict[str, Engine] = {}

    def by_name(name: str) -> Engine:
        if name not in loaded:
            values = Settings({"context": CONTEXT, "threads": 1})
            loaded[name] = registry.module("engines", name).load(prepared, values)
        return loaded[name]

    yield by_name
    for engine in loaded.values():
        engine.close()


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, load: Load) -> Engine:
    return load(request.param)
