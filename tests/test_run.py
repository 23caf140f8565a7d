"""Session.run: batches, duplicates, failures, bounds, cancellation, streaming."""

from collections.abc import Iterator
from typing import Any

import pytest

from intramuros.engines.scripted import Scripted
from intramuros.errors import (
    AskFailed,
    BadArgument,
    Broken,
    Cancelled,
    CannotDo,
    NotFound,
    RowFailed,
    TooManyFailures,
)
from intramuros.run import Session
from intramuros.settings import Settings
from intramuros.task import Flow, choose_many, document, embed, say, task, together
from intramuros.types import Answer, Ask, Choose, Failure, Origin, Say


def contents(*texts: Any) -> list[dict[str, Any]]:
    return [{"content": text} for text in texts]


def text_of(ask: Ask) -> str:
    assert isinstance(ask, Say | Choose)
    return ask.prompt.document or ""


@task
def echo(content: str) -> Flow[str]:
    """Say the text again."""
    return (yield from say(document(content)))


@task
def twice(content: str) -> Flow[str]:
    """Two asks together, then one that depends on both."""
    first, second = yield from together(
        [Say(document(content + "1")), Say(document(content + "2"))]
    )
    return (yield from say(document(first + second)))


@task
def forever(content: str) -> Flow[str]:
    """Ask without end."""
    while True:
        yield from say(document(content))


@task
def forgiving(content: str) -> Flow[str]:
    """Catch the failure of an ask."""
    try:
        return (yield from say(document(content)))
    except AskFailed as error:
        return f"caught {error.failure.kind}"


def test_rows_share_one_batch(session: Session, engine: Scripted) -> None:
    values = session.values("analyze_sentiment", contents("a", "b"))
    assert [value.label for value in values] == ["positive", "positive"]
    assert len(engine.asked) == 1
    assert len(engine.asked[0]) == 2


def test_equal_asks_are_asked_once(session: Session, engine: Scripted) -> None:
    values = session.values("analyze_sentiment", contents(*["a", "b"] * 50))
    assert len(values) == 100
    assert len(engine.asked[0]) == 2
    assert session.tally.asked == 2


def test_each_reply_reaches_its_own_row(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: text_of(ask).upper()
    texts = [f"text {number % 7}" for number in range(500)]
    assert session.values(echo, contents(*texts)) == [text.upper() for text in texts]


def test_asks_sent_together_come_back_in_order(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: f"<{text_of(ask)}>"
    assert session.values(twice, contents("a", "b")) == ["<<a1><a2>>", "<<b1><b2>>"]
    assert [len(batch) for batch in engine.asked] == [4, 2]


def test_windows_bound_the_rows_in_memory(engine: Scripted) -> None:
    session = Session(engine, Settings({"window": 10}))
    taken = 0

    def rows() -> Iterator[dict[str, str]]:
        nonlocal taken
        for number in range(95):
            taken = number + 1
            yield {"content": f"row {number}"}

    results = session.run("analyze_sentiment", rows())
    next(results)
    assert taken == 10
    assert len(list(results)) == 94
    assert [len(batch) for batch in engine.asked] == [10] * 9 + [5]


def test_null_gives_null_and_asks_nothing(session: Session, engine: Scripted) -> None:
    assert session.values("analyze_sentiment", contents(None, "")) == [None, None]
    assert engine.asked == []


def test_a_bad_row_is_a_value_and_the_others_go_on(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: (
        Failure("engine", "it broke") if text_of(ask) == "bad" else "positive"
    )
    results = {r.row: r for r in session.run("analyze_sentiment", contents("a", "bad", "c"))}
    assert results[1].value is None
    assert results[1].failure == Failure("engine", "it broke")
    assert results[0].value.label == results[2].value.label == "positive"
    assert [(listed.task, listed.row) for listed in session.failures] == [("analyze_sentiment", 1)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param(7, "not_text", id="number"),
        pytest.param(b"bytes", "not_text", id="bytes"),
        pytest.param("a\0b", "nul_byte", id="nul"),
        pytest.param("half \ud83d", "not_unicode", id="surrogate"),
    ],
)
def test_unreadable_text_fails_before_the_engine(
    session: Session, engine: Scripted, text: object, kind: str
) -> None:
    (result,) = session.run("analyze_sentiment", contents(text))
    assert result.failure is not None
    assert result.failure.kind == kind
    assert result.failure.hint
    assert engine.asked == []


def test_emoji_and_right_to_left_text_pass_unchanged(session: Session, engine: Scripted) -> None:
    engine.script = text_of
    texts = ["👩‍👩‍👧 🎉", "مرحبا بالعالم", "שלום", "e\u0301"]
    assert session.values(echo, contents(*texts)) == texts


def test_a_flow_that_asks_forever_is_stopped(engine: Scripted) -> None:
    session = Session(engine, Settings({"max_steps": 5}))
    (result,) = session.run(forever, contents("a"))
    assert result.failure is not None
    assert result.failure.kind == "endless"
    assert len(engine.asked) == 5


def test_a_flow_may_catch_a_failure(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: Failure("too_long", "too long", tokens=9, limit=3)
    assert session.values(forgiving, contents("a")) == ["caught too_long"]
    assert session.tally.failed == 0


def test_cancelling_keeps_what_is_finished_and_says_so(engine: Scripted) -> None:
    session = Session(engine, Settings({"window": 4}))
    results = session.run("analyze_sentiment", contents(*(f"row {n}" for n in range(40))))
    first = next(results)
    session.cancel()
    with pytest.raises(Cancelled, match=r"\d+ answers are kept"):
        list(results)
    assert first.value.label == "positive"
    assert len(engine.asked) == 1


def test_raise_on_error_names_the_row(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: Failure("engine", "it broke", "mend it")
    session.on_error = "raise"
    with pytest.raises(RowFailed, match="row 0 of analyze_sentiment failed: it broke") as caught:
        session.values("analyze_sentiment", contents("a"))
    assert caught.value.hint == "mend it"


def test_too_many_failures_stop_the_run(engine: Scripted) -> None:
    engine.script = lambda ask: Failure("engine", "it broke") if "1" in text_of(ask) else "positive"
    session = Session(engine, Settings({"max_error_ratio": 0.1}))
    with pytest.raises(TooManyFailures, match="2 of 11 rows failed"):
        session.values("analyze_sentiment", contents(*(f"row {n}" for n in range(11))))
    session.begin()
    assert len(session.values("analyze_sentiment", contents(*["a"] * 11))) == 11


def test_text_is_streamed_with_the_row_it_belongs_to(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: text_of(ask) * 2
    streamed: list[tuple[int, str]] = []
    session.on_text = lambda row, text: streamed.append((row, text))
    session.values(echo, contents("a", "b"))
    assert sorted(streamed) == [(0, "aa"), (1, "bb")]


def test_capability_is_asked_before_anything_is_sent(session: Session, engine: Scripted) -> None:
    @task
    def vector(content: str) -> Flow[str]:
        """Embed."""
        yield from embed(content)
        return ""

    engine.can = type(engine.can)(verbs=frozenset({"say"}), context=100)
    with pytest.raises(CannotDo, match="cannot embed"):
        session.values(vector, contents("a"))
    assert engine.asked == []


def test_an_engine_that_answers_nothing_ends_the_run(session: Session, engine: Scripted) -> None:
    engine.generate = lambda asks, admit: iter(())  # type: ignore[method-assign,misc,assignment]
    with pytest.raises(Broken, match="answered none of 1 asks"):
        session.values(echo, contents("a"))


def test_a_wrong_argument_from_a_column_fails_its_row_alone(session: Session) -> None:
    rows = [{"content": "a", "to_lang": language} for language in ("fr", " ", "de")]
    results = {result.row: result for result in session.run("translate", rows)}
    assert results[1].failure is not None
    assert results[1].failure.kind == "argument"
    assert results[0].failure is results[2].failure is None


def test_asks_carry_the_origin_of_the_session(engine: Scripted) -> None:
    origin = Origin(principal="ada", source="letters.csv", sensitivity="secret")
    Session(engine, origin=origin).values("analyze_sentiment", contents("a"))
    assert engine.asked[0][0].origin == origin


def test_a_named_model_is_loaded_once(engine: Scripted) -> None:
    other, loaded = Scripted(lambda ask: "negative"), []

    def load(name: str) -> Scripted:
        loaded.append(name)
        return other

    session = Session(engine, load=load)
    for _ in range(2):
        (choice,) = session.values("analyze_sentiment", contents("a"), model="other")
        assert choice.label == "negative"
    assert loaded == ["other"]


def test_several_labels_are_asked_together(session: Session, engine: Scripted) -> None:
    @task
    def several(content: str) -> Flow[str]:
        """Choose many."""
        found = yield from choose_many(document(content), ["late", "broken", "praise"])
        return ",".join(found.labels)

    engine.script = lambda ask: "yes" if "late" in ask.prompt.question else "no"  # type: ignore[union-attr]
    assert session.values(several, contents("a")) == ["late"]
    assert len(engine.asked[0]) == 3


def test_usage_and_card_are_summed_over_a_flow(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: "x"
    (result,) = session.run(twice, contents("a"))
    assert result.usage.completion_tokens == 3
    assert result.card == "scripted"
    assert not result.from_ledger


def test_an_answer_from_the_ledger_is_said_to_be_one(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: Answer("x", card="c", from_ledger=True)
    (result,) = session.run(echo, contents("a"))
    assert result.from_ledger
    assert session.tally.from_ledger == 1
    assert session.tally.asked == 0


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("translate", {"content": "a"}, "translate needs the argument 'to_lang'"),
        ("translate", {"content": "a", "to_lang": 3}, "to_lang takes str, not 3"),
        ("summarize", {"content": "a", "words": 3}, "summarize has no argument 'words'"),
        ("summarize", {"content": "a", "max_words": True}, "max_words takes int, not True"),
    ],
)
def test_wrong_arguments_are_named(
    session: Session, name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadArgument, match=message):
        session.values(name, [arguments])


def test_an_unknown_task_suggests_the_nearest(session: Session) -> None:
    with pytest.raises(NotFound, match="no task named 'clasify'") as caught:
        session.values("clasify", [])
    assert "classify" in caught.value.hint
