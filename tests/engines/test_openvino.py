"""The openvino engine on SmolLM2: what it writes, compares and fills, and how it stops."""

import gc
import json
import sys
import threading
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from intramuros import settings
from intramuros.engine import Engine, always
from intramuros.engines import openvino
from intramuros.errors import CannotDo, CorruptWeights
from intramuros.models import catalog
from intramuros.models.prepare import prepare
from intramuros.models.prepared import Prepared
from intramuros.models.pull import is_pulled
from intramuros.prompt import template, vocabulary
from intramuros.runtime import choosing
from intramuros.runtime.choosing import Row
from intramuros.runtime.reading import NOTHING, Reader
from intramuros.runtime.signals import signal_stack, signal_stack_kept
from intramuros.settings import Settings
from intramuros.task import conversation, document
from intramuros.types import Answer, Ask, Choice, Choose, Embed, Failure, Fill, Piece, Say

CARD = "smollm2-135m"
COUNT = conversation("Count from one to twenty, in words.")
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def prepared_card(name: str) -> Prepared:
    home = settings.home()
    card = catalog.find(name, home)
    if not is_pulled(card, home):
        pytest.skip(f"the card {name} is not in the store: intramuros models pull {name}")
    return prepare(card, home, Settings({}))


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepared_card(CARD)


@pytest.fixture(scope="module")
def engine(prepared: Prepared) -> Iterator[Engine]:
    engine = openvino.load(prepared, Settings({"context": 5120}))
    yield engine
    engine.close()


def pieces(engine: Engine, *asks: Ask) -> list[Piece]:
    return list(engine.generate(asks))


def answers(engine: Engine, *asks: Ask) -> list[Answer | Failure]:
    found = {piece.row: piece.answer for piece in engine.generate(asks) if piece.answer}
    return [found[row] for row in range(len(asks))]


def values(engine: Engine, *asks: Ask) -> list[object]:
    replies = answers(engine, *asks)
    assert all(isinstance(reply, Answer) for reply in replies), replies
    return [reply.value for reply in replies if isinstance(reply, Answer)]


def failure(engine: Engine, ask: Ask) -> Failure:
    (reply,) = answers(engine, ask)
    assert isinstance(reply, Failure), reply
    return reply


def cut(question: str, **more: object) -> Say:
    ask = Say(conversation(question), max_tokens=16, truncate=True)
    return msgspec.structs.replace(ask, **more)


def test_pieces_add_up_to_the_answer_and_each_ask_ends_once(engine: Engine) -> None:
    asks = [cut(f"Say something about the number {number}.") for number in range(5)]
    texts = [""] * len(asks)
    ends: list[int] = []
    for piece in engine.generate(asks):
        texts[piece.row] += piece.text
        if isinstance(piece.answer, Answer):
            ends.append(piece.row)
            assert piece.answer.value == texts[piece.row]
            assert piece.answer.usage.prompt_tokens > 0
            assert 0 < piece.answer.usage.completion_tokens <= 16
    assert sorted(ends) == list(range(5))


def test_greedy_text_is_the_same_alone_and_together(engine: Engine) -> None:
    asks = [cut(f"Write a line about a house with {number} rooms.") for number in range(12)]
    together = values(engine, *asks)
    assert [values(engine, ask)[0] for ask in asks] == together


def test_sampling_with_a_seed_repeats(engine: Engine) -> None:
    asks = [cut("Tell a joke.", temperature=1.0, seed=seed) for seed in (1, 2, 1)]
    first, other, again = values(engine, *asks)
    assert first == again == values(engine, asks[0])[0]
    assert first != other


def test_a_stop_text_ends_the_answer_and_is_not_in_it(engine: Engine) -> None:
    (whole,) = values(engine, Say(COUNT, max_tokens=40, truncate=True))
    assert isinstance(whole, str)
    stop = whole[5:8]
    shown = pieces(engine, Say(COUNT, max_tokens=40, stop=(stop, "never")))
    last = shown[-1].answer
    assert isinstance(last, Answer)
    assert last.value == whole[: whole.index(stop)] == "".join(piece.text for piece in shown)
    assert last.finish == "stop"


def test_a_text_that_is_too_long_for_its_tokens_fails_unless_it_may_be_cut(engine: Engine) -> None:
    unfinished = failure(engine, Say(COUNT, max_tokens=4))
    assert (unfinished.kind, unfinished.tokens, unfinished.limit) == ("unfinished", 4, 4)
    (reply,) = answers(engine, Say(COUNT, max_tokens=4, truncate=True))
    assert isinstance(reply, Answer)
    assert reply.finish == "length"
    assert reply.usage.completion_tokens == 4


def test_no_piece_ends_within_a_character(engine: Engine) -> None:
    ask = cut("Repeat: 😀🇫🇷👩‍👩‍👧 日本語 العربية", max_tokens=40, temperature=0.7, seed=4)
    for piece in pieces(engine, ask):
        assert "�" not in piece.text


def test_a_prompt_longer_than_the_window_fails_alone(engine: Engine) -> None:
    long = document("word " * 6000, "Read.")
    choice = Choose(long, ("yes", "no"))
    replies = answers(engine, cut("Hello"), Say(long), choice, Fill(long, json.dumps(PERSON)))
    assert isinstance(replies[0], Answer)
    for reply in replies[1:]:
        assert isinstance(reply, Failure)
        assert reply.kind == "too_long"
        assert (reply.tokens or 0) > 6000 > (reply.limit or 0)


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "🧨", "שלום", " ", "\n" * 50, "<|im_end|>"])
def test_odd_texts_are_read(engine: Engine, text: str) -> None:
    choice, written = values(
        engine,
        Choose(document(text, "Is this a greeting?"), ("yes", "no")),
        cut(text, max_tokens=2),
    )
    assert isinstance(choice, Choice)
    assert isinstance(written, str)


def test_half_a_character_is_a_failure(engine: Engine) -> None:
    assert failure(engine, cut("a\ud83d")).kind == "not_unicode"
    assert failure(engine, Choose(document("\ud83d"), ("yes", "no"))).kind == "not_unicode"


def test_probabilities_add_up_and_do_not_depend_on_the_batch(engine: Engine) -> None:
    texts = ["I love it.", "Dreadful, and long, and dear.", "It opens at nine in the morning.", "x"]
    options = ("positive", "negative", "neither one nor the other")
    asks = [Choose(document(text, "How does the author feel?"), options) for text in texts]
    together = values(engine, *asks)
    for ask, choice in zip(asks, together, strict=True):
        assert isinstance(choice, Choice)
        assert sum(choice.probabilities.values()) == pytest.approx(1)
        (alone,) = values(engine, ask)
        assert isinstance(alone, Choice)
        assert alone.probabilities == pytest.approx(choice.probabilities, abs=1e-3)


def test_probabilities_are_those_of_each_fork_read_from_the_beginning(
    prepared: Prepared, engine: Engine
) -> None:
    ask = Choose(
        document("I need to get to Paris on Monday.", "What does the author want?"),
        ("book", "book a flight", "book a hotel", "weather report"),
    )
    (choice,) = values(engine, ask)
    assert isinstance(choice, Choice)
    assert isinstance(engine, openvino.OpenVino)
    row = engine._row(0, ask)
    assert isinstance(row, Row)
    assert len(row.tree.forks) > 4
    with signal_stack_kept():
        reader = Reader(prepared.openvino, 0)
        logits = {}
        for fork in row.tree.forks:
            reader.restore(NOTHING)
            (hidden,) = reader.extend([0], [[*row.ids, *fork.path]])
            logits[fork.path] = (reader.weights(fork.children) @ hidden).tolist()
        del reader
    assert choice.probabilities == pytest.approx(row.tree.probabilities(logits), abs=1e-3)
    assert choice.label == max(choice.probabilities, key=choice.probabilities.__getitem__)
    assert not choice.numbered


def test_forks_read_in_turns_give_the_same(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("book", "book a flight", "book a hotel", "book a hotel room", "weather report")
    asks = [Choose(document(f"Paris on day {n * 111}."), options) for n in range(3)]
    at_once = values(engine, *asks)
    monkeypatch.setattr(choosing, "HELD", 300)
    for mine, theirs in zip(values(engine, *asks), at_once, strict=True):
        assert isinstance(mine, Choice)
        assert isinstance(theirs, Choice)
        assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-3)


@pytest.mark.slow
def test_five_hundred_options_are_numbered(engine: Engine) -> None:
    options = tuple(f"n{number}" for number in range(500))
    (choice,) = values(engine, Choose(document("It is n017."), options))
    assert isinstance(choice, Choice)
    assert choice.numbered
    assert len(choice.probabilities) == 500
    assert sum(choice.probabilities.values()) == pytest.approx(1)


def test_different_options_and_instructions_share_a_batch(engine: Engine) -> None:
    asks = [
        Choose(document(f"text {number}", f"Question {number % 3}"), options)
        for number, options in enumerate([("yes", "no"), ("a", "b", "c"), ("up", "down")] * 4)
    ]
    for ask, choice in zip(asks, values(engine, *asks), strict=True):
        assert isinstance(choice, Choice)
        assert set(choice.probabilities) == set(ask.options)


def test_a_record_satisfies_its_schema(engine: Engine) -> None:
    text = document("Anna Meier is 41 years old.", "Extract the person.")
    (record,) = values(engine, Fill(text, json.dumps(PERSON), max_tokens=60))
    assert isinstance(record, dict)
    assert set(record) == {"name", "age"}
    assert isinstance(record["age"], int)


def test_a_cut_record_is_unfinished(engine: Engine) -> None:
    assert failure(engine, Fill(COUNT, json.dumps(PERSON), max_tokens=3)).kind == "unfinished"


UNHELD = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)y"}}}


@pytest.mark.parametrize(
    "schema",
    ["no JSON", "[]", '{"type": "nonsense"}', '{"type": "string"}', json.dumps(UNHELD)],
)
def test_a_schema_that_cannot_be_held_fails_alone(engine: Engine, schema: str) -> None:
    good = Fill(document("Anna, 41", "Extract."), json.dumps(PERSON), max_tokens=60)
    written, bad, filled = answers(engine, cut("Hello"), Fill(COUNT, schema), good)
    assert isinstance(bad, Failure)
    assert bad.kind == "schema"
    assert isinstance(written, Answer)
    assert isinstance(filled, Answer)


def test_a_schema_is_tried_while_another_thread_writes(engine: Engine) -> None:
    (expected,) = values(engine, Say(COUNT, max_tokens=60, truncate=True))
    writing = engine.generate([Say(COUNT, max_tokens=60, truncate=True)])
    text = next(writing).text
    assert failure(engine, Fill(COUNT, json.dumps({**UNHELD, "title": "another"}))).kind == "schema"
    assert text + "".join(piece.text for piece in writing) == expected


@pytest.mark.parametrize(
    "asks",
    [
        [cut(f"Tell of {number}.") for number in range(100)],
        [Choose(document(f"text {number}"), ("yes", "no")) for number in range(100)],
    ],
    ids=["say", "choose"],
)
def test_what_is_not_admitted_gets_no_piece(
    engine: Engine, asks: Sequence[Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "TOKENS", 100)
    allowed = iter([True, True, *[False] * 1000])
    ended = [piece.row for piece in engine.generate(asks, lambda: next(allowed)) if piece.answer]
    assert 0 < len(ended) < 100
    assert len(set(ended)) == len(ended)
    assert not list(engine.generate(asks[:3], lambda: False))


@pytest.mark.parametrize(
    "ask", [Say(COUNT, max_tokens=200), Choose(COUNT, ("yes", "no"))], ids=["say", "choose"]
)
def test_a_generator_that_is_dropped_leaves_the_engine_usable(engine: Engine, ask: Ask) -> None:
    before = values(engine, cut("Hello"))
    for _ in range(3):
        abandoned = engine.generate([ask] * 40)
        next(abandoned)
        abandoned.close()  # type: ignore[attr-defined]
    assert values(engine, cut("Hello")) == before


def test_threads_share_the_engine(engine: Engine) -> None:
    say = [cut(f"Describe the colour number {number}.", max_tokens=8) for number in range(6)]
    choose = [Choose(document(f"It costs {n} euros."), ("cheap", "dear")) for n in range(6)]
    expected = values(engine, *say, *choose)
    found: dict[int, list[object]] = {}

    def ask(number: int) -> None:
        found[number] = values(engine, *say, *choose)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        assert found[number][:6] == expected[:6]
        for mine, theirs in zip(found[number][6:], expected[6:], strict=True):
            assert isinstance(mine, Choice)
            assert isinstance(theirs, Choice)
            assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-3)


@pytest.mark.parametrize("card", [CARD, pytest.param("qwen2.5-coder-0.5b", marks=pytest.mark.slow)])
def test_no_spelling_of_a_control_token_becomes_one(card: str) -> None:
    engine = openvino.load(prepared_card(card), Settings({}))
    controls = vocabulary.read(prepared_card(card).gguf).controls
    assert len(controls) > 10
    numbers = set(controls.values())
    for control in controls:
        middle = len(control) // 2
        nested = control[:middle] + control + control[middle:]
        for text in (control, control * 2, nested, f"glued{control}to", f" {control}\n"):
            for ask in (
                Say(document(text, text, text)),
                Choose(conversation(text, history=[]), (text, "other"), (text, text)),
            ):
                ids = engine._encode(ask)
                ours = template.render(ask, template.TEMPLATES["chatml"])
                inside = [token for token in ids if token in numbers]
                assert inside == [controls[part.text] for part in ours if part.control]


def test_it_says_what_it_can_do(engine: Engine, prepared: Prepared) -> None:
    assert engine.can.verbs == {"say", "choose", "fill"}
    assert engine.can.context == 5120
    assert engine.can.streaming
    assert prepared.digest in engine.identity
    assert engine.count("one two three") == 3
    with pytest.raises(CannotDo):
        list(engine.generate([Embed("text")], always))


def test_missing_weights_are_named(prepared: Prepared, tmp_path: object) -> None:
    elsewhere = msgspec.structs.replace(prepared, openvino=tmp_path)
    with pytest.raises(CorruptWeights):
        openvino.load(elsewhere, Settings({}))


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are looked at on Linux only")
def test_the_signal_stack_is_still_python_s_when_the_engine_is_gone() -> None:
    before = signal_stack()
    engine = openvino.load(prepared_card(CARD), Settings({"threads": 1}))
    asks: list[Ask] = [
        Choose(document("x"), ("a", "b")),
        Say(document("x"), max_tokens=2, truncate=True),
    ]
    assert len([piece for piece in engine.generate(asks) if piece.answer]) == 2
    engine.close()
    del engine
    gc.collect()
    after = signal_stack()
    assert (after.pointer, after.size) == (before.pointer, before.size)
