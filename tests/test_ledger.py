"""What was answered is answered again from the ledger; who asked, what they think, and erasure."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from intramuros.engine import Admit, always
from intramuros.engines.scripted import Reply, Scripted, certain
from intramuros.errors import BadArgument, Broken, LedgerDamaged, NoSpace, NotFound
from intramuros.keys import Keyed, Keys
from intramuros.ledger import GROUP, MANY, Ledger, Remembered
from intramuros.types import (
    Answer,
    Ask,
    Choice,
    Choose,
    Embed,
    Failure,
    Fill,
    Origin,
    Piece,
    Prompt,
    Say,
    Search,
    Usage,
)

ANNA = Origin("anna", "reviews.csv")
BOB = Origin("bob", "letters.csv")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def say(text: str, origin: Origin = ANNA, temperature: float = 0.0, seed: int | None = None) -> Say:
    prompt = Prompt("Judge.", document=text)
    return Say(prompt, temperature=temperature, seed=seed, origin=origin)


def echo(ask: Ask) -> Reply:
    assert isinstance(ask, Say)
    return f"said {ask.prompt.document}"


def answers(guard: Remembered, asks: Sequence[Ask]) -> list[Answer]:
    """The answers in the order of the asks, of which each has exactly one."""
    pieces = [piece for piece in guard.generate(asks) if piece.answer is not None]
    assert sorted(piece.row for piece in pieces) == list(range(len(asks)))
    found: list[Answer] = []
    for piece in sorted(pieces, key=lambda piece: piece.row):
        assert isinstance(piece.answer, Answer)
        found.append(piece.answer)
    return found


def key(ask: Keyed) -> bytes:
    return Keys(Scripted.identity).key(ask)[0]


def rows(ledger: Ledger, query: str) -> list[tuple[object, ...]]:
    ledger.flush()
    connection = sqlite3.connect(ledger.path)
    found = connection.execute(query).fetchall()
    connection.close()
    return found


REPLIES: dict[Ask, Reply] = {
    say("emoji 🎉, עברית, \0 and 'quotes'"): "“fine” \0 😀",
    say("empty"): "",
    Choose(Prompt("", document="x"), ("a", "b")): Choice("a", {"a": 2 / 3, "b": 1 / 3}),
    Choose(Prompt("", document="y"), ("a", "b")): Choice("b", {"a": 0.0, "b": 1.0}, numbered=True),
    Fill(Prompt("", question="?"), "{}"): {"name": "Zoë", "lines": [1, 2.5, None, {"deep": True}]},
    Embed("single"): [0.5, -1.25, 0.10000000149011612],
    Embed("double", kind="query"): [0.1, 1e300],
}


def test_every_kind_of_answer_comes_back_as_it_was(ledger: Ledger, tmp_path: Path) -> None:
    asks = list(REPLIES)
    first = answers(Remembered(Scripted(lambda ask: REPLIES[ask]), ledger), asks)
    assert not any(answer.from_ledger for answer in first)
    engine = Scripted(lambda ask: "asked again")
    again = Ledger(tmp_path)  # as another process would
    second = answers(Remembered(engine, again), asks)
    again.close()
    assert engine.asked == []
    for before, after in zip(first, second, strict=True):
        assert after == msgspec.structs.replace(before, usage=Usage(), from_ledger=True)


def test_only_what_is_new_is_asked(ledger: Ledger) -> None:
    engine = Scripted(echo)
    guard = Remembered(engine, ledger)
    answers(guard, [say("a"), say("c")])
    found = answers(guard, [say(text) for text in "abcd"])
    assert [answer.value for answer in found] == ["said a", "said b", "said c", "said d"]
    assert [answer.from_ledger for answer in found] == [True, False, True, False]
    assert engine.asked[1] == [say("b"), say("d")]


def test_model_and_origin_do_not_matter_but_the_weights_do(ledger: Ledger) -> None:
    answers(Remembered(Scripted(echo), ledger), [say("a")])
    same = msgspec.structs.replace(say("a", BOB), model="another name")
    assert answers(Remembered(Scripted(echo), ledger), [same])[0].from_ledger
    other = Scripted(echo)
    other.identity = "other weights"
    assert not answers(Remembered(other, ledger), [say("a")])[0].from_ledger


def test_equal_asks_of_a_batch_are_asked_once_and_paid_once(ledger: Ledger) -> None:
    engine = Scripted(echo)
    found = answers(Remembered(engine, ledger), [say("a"), say("b"), say("a", BOB), say("a")])
    assert engine.asked == [[say("a"), say("b")]]
    assert [answer.value for answer in found] == ["said a", "said b", "said a", "said a"]
    assert sum(answer.usage.prompt_tokens for answer in found) == 2
    assert rows(ledger, "SELECT principal FROM origins WHERE ask = 1 ORDER BY 1") == [
        ("anna",),
        ("bob",),
    ]


def test_a_failure_reaches_every_row_and_is_not_kept(ledger: Ledger) -> None:
    guard = Remembered(Scripted(lambda ask: Failure("too_long", "the text is too long")), ledger)
    for _ in range(2):
        pieces = list(guard.generate([say("a"), say("a")]))
        assert [type(piece.answer) for piece in pieces] == [Failure, Failure]
    assert ledger.counts().asks == 0


def test_a_sample_without_a_seed_is_recorded_and_never_reused(ledger: Ledger) -> None:
    engine = Scripted(lambda ask: f"sample {time.perf_counter_ns()}")
    guard = Remembered(engine, ledger)
    wild = say("a", temperature=0.7)
    values = {answer.value for _ in range(2) for answer in answers(guard, [wild, wild])}
    assert len(values) == 4
    assert ledger.counts().answers == 4
    seeded = say("a", temperature=0.7, seed=1)
    assert answers(guard, [seeded])[0].value == answers(guard, [seeded])[0].value


def test_a_search_passes_through_and_is_not_recorded(ledger: Ledger) -> None:
    class Library(Scripted):
        def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]:
            for row in range(len(asks)):
                yield Piece(row, answer=Answer([]))

    guard = Remembered(Library(echo), ledger)
    for _ in range(2):
        assert [found.from_ledger for found in answers(guard, [Search("q", "l")] * 2)] == [
            False
        ] * 2
    assert ledger.counts().asks == 0


def test_text_streams_through_before_the_answer(ledger: Ledger) -> None:
    class Slow(Scripted):
        def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]:
            for row in reversed(range(len(asks))):
                yield Piece(row, "one ")
                yield Piece(row, "two")
                yield Piece(row, answer=Answer("one two"))

    guard = Remembered(Slow(echo), ledger)
    answers(guard, [say("b")])
    pieces = [
        (piece.row, piece.text, piece.answer is not None)
        for piece in guard.generate([say("a"), say("b"), say("c")])
    ]
    assert pieces[0] == (1, "", True)
    assert pieces[1:4] == [(2, "one ", False), (2, "two", False), (2, "", True)]
    assert [piece[0] for piece in pieces[4:]] == [0, 0, 0]


def test_an_answer_is_recorded_before_it_is_handed_over(ledger: Ledger, tmp_path: Path) -> None:
    for piece in Remembered(Scripted(echo), ledger).generate([say("a"), say("b")]):
        if piece.answer is not None:
            ledger.flush()
            found = ledger.find([key(say("ab"[piece.row]))], ANNA)
            assert [line[2] for line in found] == [f"said {'ab'[piece.row]}"]


def test_an_abandoned_batch_keeps_what_was_handed_over(ledger: Ledger) -> None:
    closed = []

    class Watched(Scripted):
        def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]:
            try:
                yield from super().generate(asks, admit)
            finally:
                closed.append(True)

    guard = Remembered(Watched(echo), ledger)
    pieces = guard.generate([say(text) for text in "abcdef"])
    handed = 0
    while handed < 3:
        handed += next(pieces).answer is not None
    pieces.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert ledger.counts().answers == 3
    found = answers(guard, [say(text) for text in "abcdef"])
    assert [answer.from_ledger for answer in found] == [True] * 3 + [False] * 3


def test_an_engine_that_breaks_keeps_what_was_answered(ledger: Ledger) -> None:
    def script(ask: Ask) -> Reply:
        if ask == say("c"):
            raise Broken("the model is gone")
        return echo(ask)

    with pytest.raises(Broken, match="model is gone"):
        list(Remembered(Scripted(script), ledger).generate([say(text) for text in "abc"]))
    assert ledger.counts().answers == 2


def test_nothing_is_taken_when_nothing_is_admitted(ledger: Ledger) -> None:
    engine = Scripted(echo)
    guard = Remembered(engine, ledger)
    answers(guard, [say("a")])
    assert list(guard.generate([say("a"), say("b")], lambda: False)) == []
    admitted = iter([True, True, False])
    pieces = list(guard.generate([say(text) for text in "bcd"], lambda: next(admitted)))
    assert [piece.row for piece in pieces if piece.answer] == [0]


def test_half_a_character_fails_its_own_row(ledger: Ledger) -> None:
    found = {
        piece.row: piece.answer
        for piece in Remembered(Scripted(echo), ledger).generate(
            [say("a"), say("\ud800"), say("b")]
        )
        if piece.answer
    }
    assert [type(found[row]) for row in range(3)] == [Answer, Failure, Answer]


def test_a_full_window_is_known_to_the_next_before_it_is_on_disk(ledger: Ledger) -> None:
    engine = Scripted(echo)
    guard = Remembered(engine, ledger)
    asks = [say(str(number)) for number in range(2 * GROUP + MANY)]
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # another process writes: ours has to wait
    list(guard.generate(asks[:GROUP]))
    found = answers(guard, asks[:GROUP])
    other.execute("ROLLBACK")
    other.close()
    assert all(answer.from_ledger for answer in found)
    assert len(engine.asked) == 1
    answers(guard, asks)
    counts = ledger.counts()
    assert counts.asks == counts.answers == counts.origins == len(asks)
    assert counts.size > 0
    assert not ledger._unsaved


def test_threads_share_a_ledger(ledger: Ledger) -> None:
    def work(number: int) -> None:
        for start in range(0, 200, 20):
            batch = [say(str(one), Origin(str(number))) for one in range(start, start + 20)]
            assert [
                found.value for found in answers(Remembered(Scripted(echo), ledger), batch)
            ] == [f"said {one}" for one in range(start, start + 20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.counts() == msgspec.structs.replace(
        ledger.counts(), asks=200, answers=200, origins=800
    )


def test_origins_are_added_also_for_remembered_answers(ledger: Ledger) -> None:
    guard = Remembered(Scripted(echo), ledger)
    for origin in (ANNA, ANNA, BOB, msgspec.structs.replace(ANNA, sensitivity="secret")):
        answers(guard, [say("a", origin), say("b", origin)])
    assert rows(
        ledger, "SELECT ask, principal, source, sensitivity FROM origins WHERE ask = 1"
    ) == [
        (1, "anna", "reviews.csv", "internal"),
        (1, "anna", "reviews.csv", "secret"),
        (1, "bob", "letters.csv", "internal"),
    ]
    assert ledger.counts().answers == 2


SECRETS = ("Dupont SARL", "my earlier secret", "an option of mine", "a field of mine")


def test_without_keep_text_answers_are_reused_and_no_ask_is_readable(tmp_path: Path) -> None:
    from intramuros.types import Message

    ledger = Ledger(tmp_path, keep_text=False)
    prompt = Prompt(
        "Judge.", "Dupont SARL", "Dupont SARL?", history=(Message("user", "my earlier secret"),)
    )
    asks: list[Ask] = [
        Say(prompt),
        Choose(prompt, ("an option of mine", "other")),
        Fill(prompt, '{"title":"a field of mine"}'),
        Embed("Dupont SARL"),
    ]
    replies: list[Reply] = ["x", certain("other", ("other",)), {}, [1.0]]
    engine = Scripted(lambda ask: replies[asks.index(ask)])
    for again in (False, True):
        found = answers(Remembered(engine, ledger), asks)
        assert [answer.from_ledger for answer in found] == [again] * 4
    first = asks[0]
    assert isinstance(first, Say)
    assert ledger.put_feedback(key(first), "thumbs", "up") is False
    assert rows(ledger, "SELECT DISTINCT document, question FROM asks") == [(None, None)]
    ledger.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"Judge." in content
    for secret in SECRETS:
        assert secret.encode() not in content


def test_feedback_is_kept_and_can_train(ledger: Ledger) -> None:
    answers(Remembered(Scripted(echo), ledger), [say("a")])
    assert ledger.put_feedback(key(say("a")), "edit", "better", "anna") is True
    assert ledger.counts().feedback == 1
    assert rows(ledger, "SELECT kind, value, principal FROM feedback") == [
        ("edit", "better", "anna")
    ]
    with pytest.raises(NotFound):
        ledger.put_feedback(key(say("never asked")), "thumbs", "up")
    with pytest.raises(Broken):
        ledger.put_feedback(key(say("a")), "applause", "up")  # type: ignore[arg-type]
    assert ledger.counts().feedback == 1


def fill_with_two_people(ledger: Ledger) -> None:
    guard = Remembered(Scripted(echo), ledger)
    answers(guard, [say("only of anna"), say("of both")])
    answers(guard, [say("of both", BOB), say("only of bob", BOB)])
    for text in ("only of anna", "of both", "only of bob"):
        for person in ("anna", "bob"):
            ledger.put_feedback(key(say(text)), "thumbs", "up", person)


def test_erasing_a_person_leaves_what_others_hold(ledger: Ledger) -> None:
    fill_with_two_people(ledger)
    erased = ledger.erase(principal="anna")
    assert (erased.asks, erased.answers, erased.origins, erased.feedback) == (1, 1, 2, 4)
    assert rows(ledger, "SELECT document FROM asks ORDER BY 1") == [("of both",), ("only of bob",)]
    assert rows(ledger, "SELECT DISTINCT principal FROM origins") == [("bob",)]
    assert rows(ledger, "SELECT DISTINCT principal FROM feedback") == [("bob",)]
    engine = Scripted(echo)
    found = answers(Remembered(engine, ledger), [say("only of anna"), say("of both")])
    assert [answer.from_ledger for answer in found] == [False, True]


def test_erased_text_is_in_no_file_of_the_workspace(ledger: Ledger, tmp_path: Path) -> None:
    guard = Remembered(Scripted(echo), ledger)
    secret = Origin("anna", "the-secret-source")
    answers(guard, [say(f"number {one}", BOB) for one in range(3000)])
    answers(guard, [say(f"number {one}", secret) for one in range(0, 3000, 3)])
    framed = Say(Prompt("the secret instruction"), origin=secret)
    answers(guard, [framed, *(say(f"the secret text {one}", secret) for one in range(50))])
    (tmp_path / "ledger.db.version0").write_text("the secret copy")
    erased = ledger.erase(source="the-secret-source")
    assert (erased.asks, erased.origins) == (51, 1051)
    for path in tmp_path.iterdir():
        assert b"secret" not in path.read_bytes(), path
    assert ledger.counts().asks == 3000


def test_erasing_by_age_and_by_several_conditions(ledger: Ledger) -> None:
    fill_with_two_people(ledger)
    assert ledger.erase(older_than=time.time() - 60).origins == 0
    assert ledger.erase(principal="anna", source="letters.csv").origins == 0
    assert ledger.erase(principal="anna", older_than=time.time() + 60).origins == 2
    assert ledger.erase(older_than=time.time() + 60).asks == 2
    assert ledger.counts() == msgspec.structs.replace(
        ledger.counts(), asks=0, answers=0, origins=0, feedback=0
    )
    assert rows(ledger, "SELECT count(*) FROM frames") == [(0,)]
    with pytest.raises(BadArgument):
        ledger.erase()


def test_a_full_disk_stops_the_run_and_keeps_what_was_finished(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    guard = Remembered(Scripted(echo), ledger)
    answers(guard, [say(f"kept {one}") for one in range(100)])
    pages = ledger._writing.execute("PRAGMA page_count").fetchone()[0]
    ledger._writing.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(NoSpace) as caught:
        answers(guard, [say("x" * 1000 + str(one)) for one in range(500)])
    assert "space" in caught.value.hint
    with pytest.raises(NoSpace):
        answers(guard, [say("another")])
    with pytest.raises(NoSpace):
        ledger.close()
    ledger = Ledger(tmp_path)
    found = answers(Remembered(Scripted(echo), ledger), [say(f"kept {one}") for one in range(100)])
    assert all(answer.from_ledger for answer in found)
    ledger.close()


def test_an_answer_with_half_a_character_fails_its_own_rows(ledger: Ledger) -> None:
    record = Fill(Prompt(""), "{}")
    guard = Remembered(Scripted(lambda ask: "\ud800" if ask == say("a") else echo(ask)), ledger)
    pieces = list(guard.generate([say("a"), say("b"), say("a")]))
    found = {piece.row: type(piece.answer) for piece in pieces if piece.answer}
    assert found == {0: Failure, 1: Answer, 2: Failure}
    guard = Remembered(Scripted(lambda ask: {"name": "\ud83d"}), ledger)
    assert [type(piece.answer) for piece in guard.generate([record])] == [Failure]
    assert ledger.counts().answers == 1


def test_a_source_whose_name_is_not_unicode_is_recorded_legibly(ledger: Ledger) -> None:
    guard = Remembered(Scripted(echo), ledger)
    origin = Origin("anna", "re\udce9u.csv")
    for again in (False, True):
        assert answers(guard, [say("a", origin)])[0].from_ledger is again
    assert rows(ledger, "SELECT source FROM origins") == [("re?u.csv",)]


def test_what_cannot_be_recorded_stops_the_run_and_hangs_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    engine = Scripted(lambda ask: Answer("x", usage=Usage(prompt_tokens=2**64)))
    with pytest.raises(Broken, match="cannot be recorded"):
        list(Remembered(engine, ledger).generate([say("a")]))
    with pytest.raises(Broken, match="cannot be recorded"):
        ledger.close()


def test_large_numbers_in_a_record_come_back(ledger: Ledger) -> None:
    guard = Remembered(Scripted(lambda ask: {"amount": 10**30, "small": -(2**63)}), ledger)
    for again in (False, True):
        found = answers(guard, [Fill(Prompt(""), "{}")])[0]
        assert (found.value, found.from_ledger) == ({"amount": 10**30, "small": -(2**63)}, again)


def test_damage_that_is_met_while_reading_is_said(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    asks = [say(f"{one} " + "x" * 200) for one in range(2000)]
    answers(Remembered(Scripted(echo), ledger), asks)
    ledger.close()
    ledger = Ledger(tmp_path)
    content = bytearray(ledger.path.read_bytes())
    content[8192:] = b"\x5a" * (len(content) - 8192)
    ledger.path.write_bytes(content)
    with pytest.raises(LedgerDamaged):
        answers(Remembered(Scripted(echo), ledger), asks)
    ledger.close()


def _ask_in_a_process(folder: str, start: int) -> None:
    ledger = Ledger(Path(folder))
    guard = Remembered(Scripted(echo), ledger)
    for batch in range(start, start + 1500, 50):
        found = list(guard.generate([say(str(one)) for one in range(batch, batch + 50)]))
        assert sum(piece.answer is not None for piece in found) == 50
    ledger.close()


def test_two_processes_write_one_ledger_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_ask_in_a_process, args=(str(tmp_path), start)) for start in (0, 750)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    ledger = Ledger(tmp_path)
    assert ledger.counts().answers == ledger.counts().asks == 2250
    engine = Scripted(echo)
    found = answers(Remembered(engine, ledger), [say(str(one)) for one in range(2250)])
    assert [answer.value for answer in found] == [f"said {one}" for one in range(2250)]
    assert engine.asked == []
    ledger.close()


WRITE_UNTIL_KILLED = """
import sys
from pathlib import Path
from intramuros.engines.scripted import Scripted
from intramuros.ledger import Ledger, Remembered
from tests.test_ledger import echo, say
guard = Remembered(Scripted(echo, keep_asked=False), Ledger(Path(sys.argv[1])))
number = 0
while True:
    for piece in guard.generate([say(str(number + one)) for one in range(40)]):
        pass
    number += 40
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_of_what_was_finished(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    for least in (40, 400, 1200):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_UNTIL_KILLED, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert process.stdout is not None
        finished = 0
        while finished < least:
            finished = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        finished = max([finished, *map(int, process.stdout.read().split())])
        process.wait()
        process.stdout.close()
        ledger = Ledger(tmp_path)
        assert ledger._reading.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counts = ledger.counts()
        assert counts.asks == counts.answers == counts.origins >= finished
        found = answers(
            Remembered(Scripted(echo), ledger), [say(str(one)) for one in range(finished)]
        )
        assert all(answer.from_ledger for answer in found)
        ledger.close()


def test_a_single_answer_is_on_disk_while_the_engine_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    reader = sqlite3.connect(ledger.path)
    pieces = Remembered(Scripted(echo), ledger).generate([say("a"), say("b")])
    while next(pieces).answer is None:
        pass
    deadline = time.monotonic() + 30  # milliseconds, unless the machine is very busy
    while reader.execute("SELECT count(*) FROM answers").fetchone() == (0,):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert len(list(pieces)) > 0
    reader.close()
    ledger.close()


def test_a_ledger_that_nobody_closed_is_complete(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from intramuros.engines.scripted import Scripted
from intramuros.ledger import Ledger, Remembered
from tests.test_ledger import echo, say
guard = Remembered(Scripted(echo), Ledger(Path(sys.argv[1])))
list(guard.generate([say(str(one)) for one in range(5000)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    ledger = Ledger(tmp_path)
    assert ledger.counts().answers == 5000
    ledger.close()
