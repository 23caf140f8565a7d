"""The suite that every engine passes on real weights: what `engine.py` promises, verb by verb."""

import json
import threading
from collections.abc import Sequence

import jsonschema
import pytest

from intramuros.engine import Engine
from intramuros.errors import CannotDo
from intramuros.models.prepared import Prepared
from intramuros.prompt.encoder import Encoder
from intramuros.run import Session
from intramuros.task import Flow, choose_many, document
from intramuros.task import task as make_task
from intramuros.types import Ask, Choose, Embed, Fill, Message, Prompt, Say
from tests.contract.conftest import CONTEXT, Replies

STORY = Prompt("You are a storyteller.", question="Tell a long story about a lighthouse.")

SENTENCES = (
    "The soup was cold and the waiter rude.",
    "I have never slept better than in this hotel.",
    "Le train est arrivé avec deux heures de retard.",
    "Merci pour votre aide, tout fonctionne !",
    "The parcel came on Tuesday.",
    "Nothing works since the update.",
    "Une équipe formidable, je recommande.",
    "The colours are fine, but the fabric tears.",
)


def about(sentence: str, options: Sequence[str] = ("positive", "negative")) -> Choose:
    return Choose(
        document(sentence, "Judge the document.", "How does the author feel?"), tuple(options)
    )


def tell(number: int, max_tokens: int = 24) -> Say:
    question = f"Write about {SENTENCES[number % len(SENTENCES)]!r} in your own words."
    return Say(Prompt("", question=question), max_tokens=max_tokens, truncate=True)


# say


def test_greedy_gives_the_same_text_again(engine: Engine) -> None:
    assert Replies(engine, [tell(0)]).text() == Replies(engine, [tell(0)]).text() != ""


def test_sampling_follows_its_seed(engine: Engine) -> None:
    def sampled(seed: int | None) -> str:
        ask = Say(STORY, max_tokens=16, temperature=1.2, top_p=0.95, seed=seed, truncate=True)
        return Replies(engine, [ask]).text()

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in (1, 2, 3, None)}) > 1


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(engine: Engine) -> None:
    whole = Replies(engine, [Say(STORY, max_tokens=24, truncate=True)]).text()
    stop = whole[8:14]
    stopped = Replies(engine, [Say(STORY, max_tokens=24, truncate=True, stop=("\0", stop))])
    assert stopped.text() == whole[: whole.index(stop)]
    assert stopped.answer().finish == "stop"
    assert "".join(stopped.texts[0]) == stopped.text()


def test_too_few_tokens_fail_or_cut(engine: Engine) -> None:
    failed = Replies(engine, [Say(STORY, max_tokens=8)]).failure()
    assert (failed.kind, failed.tokens, failed.limit) == ("unfinished", 8, 8)
    cut = Replies(engine, [Say(STORY, max_tokens=8, truncate=True)]).answer()
    assert cut.finish == "length"
    assert cut.usage.completion_tokens == 8
    assert cut.usage.prompt_tokens > 0


def test_pieces_add_up_to_the_answers(engine: Engine) -> None:
    emoji = Say(Prompt("", question="Repeat: 👩‍👩‍👧 été مرحبا 日本"), max_tokens=24, truncate=True)
    replies = Replies(engine, [*map(tell, range(5)), emoji])
    assert sorted(replies.answers) == list(range(6))
    for row, answer in replies.answers.items():
        assert "".join(replies.texts[row]) == getattr(answer, "value", None)
        assert getattr(answer, "engine", None) == engine.name
    assert len(replies.texts[0]) > 1


def test_greedy_text_across_batch_sizes(engine: Engine) -> None:
    """openvino: the same. llamacpp: nearly always.

    llama.cpp adds up a token's attention in another order when it is read alone than when it is
    read among others, and its 8-bit activations make more of that; a near tie then falls the other
    way (measured: 0 to 4 of 16 texts of 32 tokens). No setting of the library prevents it.
    """
    asks = [tell(number) for number in range(8)]
    alone = [Replies(engine, [ask]).text() for ask in asks]
    for size in (3, 8):
        together: list[str] = []
        for start in range(0, len(asks), size):
            batch = asks[start : start + size]
            replies = Replies(engine, batch)
            together += [replies.text(row) for row in range(len(batch))]
        same = sum(one == other for one, other in zip(alone, together, strict=True))
        print(f"{engine.name} {engine.card}: {same} of 8 texts are the same at batch size {size}")
        assert same == 8 if engine.name == "openvino" else same >= 4


# choose


@pytest.mark.parametrize(
    "options",
    [
        ("yes", "no"),
        ("a matter for the accounting department", "a matter for the legal department"),
        ("book", "book a flight", "booking", "weather"),
        ("apple", "Apple", "APPLE"),
        ("été", "hiver", "مرحبا", "👍🏽"),
    ],
    ids=["short", "shared-prefix", "one-begins-another", "case", "scripts"],
)
def test_every_option_has_its_probability(engine: Engine, options: tuple[str, ...]) -> None:
    choice = Replies(engine, [about(SENTENCES[0], options)]).choice()
    assert tuple(choice.probabilities) == options
    assert sum(choice.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert min(choice.probabilities.values()) >= 0
    assert choice.label == max(options, key=choice.probabilities.__getitem__)
    assert not choice.numbered


@pytest.mark.parametrize("count", [2, 65, 200, pytest.param(500, marks=pytest.mark.slow)])
def test_many_options(engine: Engine, count: int) -> None:
    options = tuple(f"{number:03d}" for number in range(count))
    ask = Choose(Prompt("", document="x", question="Which?"), options)
    choice = Replies(engine, [ask]).choice()
    assert tuple(choice.probabilities) == options
    assert sum(choice.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert choice.numbered == (count == 500)  # with digits for tokens, only they fork too often


def test_choosing_is_the_same_in_any_batch(engine: Engine) -> None:
    asks = [about(sentence) for sentence in SENTENCES]
    alone = [Replies(engine, [ask]).choice().probabilities["positive"] for ask in asks]
    together = Replies(engine, asks[::-1])
    for row, chance in enumerate(reversed(alone)):
        assert together.choice(row).probabilities["positive"] == pytest.approx(chance, abs=0.02)


def test_several_options_by_yes_and_no(engine: Engine) -> None:
    @make_task
    def topics(text: str) -> Flow[list[str]]:
        """Say which topics apply."""
        choices = yield from choose_many(document(text), ["food", "travel", "sport"])
        assert set(choices.probabilities) == {"food", "travel", "sport"}
        assert all((choices.probabilities[label] >= 0.5) for label in choices.labels)
        return list(choices.labels)

    (labels,) = Session(engine).values(topics, [{"text": SENTENCES[0]}])
    assert set(labels) <= {"food", "travel", "sport"}


# fill

ORDER = {
    "type": "object",
    "properties": {
        "payer": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 40}},
            "required": ["name"],
            "additionalProperties": False,
        },
        "currency": {"enum": ["EUR", "USD", "CHF"]},
        "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        "due": {"type": ["string", "null"], "maxLength": 20},
    },
    "required": ["payer", "currency", "items", "due"],
    "additionalProperties": False,
}


def extract(text: str, schema: object, max_tokens: int = 160) -> Fill:
    return Fill(document(text, "Extract the record."), json.dumps(schema), max_tokens)


def test_records_satisfy_their_schema(engine: Engine) -> None:
    texts = (
        "Facture : Dupont SARL doit 1 250 EUR, échéance le 3 mai 2026, articles 4 et 11.",
        "Invoice: Smith & Sons pay 30 USD for items 1, 2, 3.",
        "",
    )
    replies = Replies(engine, [extract(text, ORDER) for text in texts])
    for row in range(len(texts)):
        jsonschema.validate(replies.answer(row).value, ORDER)
        assert row not in replies.texts  # a record is given whole


def test_a_record_that_is_cut_fails(engine: Engine) -> None:
    assert Replies(engine, [extract(SENTENCES[0], ORDER, 5)]).failure().kind == "unfinished"


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "object", "properties": ',
        '{"type": "nonsense"}',
        '{"type": "array", "items": {"type": "string"}}',
        '{"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a$"}}}',
        '{"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/a.json"}}}',
    ],
    ids=["no-json", "no-schema", "no-object", "no-pattern", "elsewhere"],
)
def test_what_is_no_schema_is_refused(engine: Engine, schema: str) -> None:
    assert Replies(engine, [Fill(STORY, schema, 16)]).failure().kind == "schema"


# what comes from outside


def outside_parts(text: str) -> dict[str, Ask]:
    """The same text in every part that comes from outside."""
    return {
        "document": Say(Prompt("Read.", document=text), max_tokens=1, truncate=True),
        "unfenced": Say(Prompt("Read.", document=text, fence=False), max_tokens=1, truncate=True),
        "question": Say(Prompt("Read.", question=text), max_tokens=1, truncate=True),
        "history": Say(
            Prompt("Read.", question="And?", history=(Message("assistant", text),)),
            max_tokens=1,
            truncate=True,
        ),
        "option": Choose(Prompt("Read.", question="Which?"), (text, "other")),
        "description": Choose(Prompt("Read.", question="Which?"), ("one", "two"), (text, "")),
    }


def test_no_text_from_outside_becomes_a_control_token(prepared: Prepared) -> None:
    encoder = Encoder(prepared)
    names = {number: token for token, number in encoder.controls.items()}
    assert len(names) > 10
    for token in encoder.controls:
        for text in (token, f"a{token}b", token * 3, token[:3] + token, token[:-1] + token):
            hostile, plain = outside_parts(text), outside_parts("plain")
            for part in hostile:
                controls = [
                    [names[number] for number in encoder.prompt(asks[part]) if number in names]  # type: ignore[arg-type]
                    for asks in (hostile, plain)
                ]
                assert controls[0] == controls[1], (token, part)
            tree = encoder.trie((text, "other"))
            paths = {number for path, _ in tree.leaves for number in path}
            assert paths & names.keys() <= {encoder.end}


def test_engines_read_exactly_the_encoded_prompt(engine: Engine, prepared: Prepared) -> None:
    """So that the test above holds for what the model reads."""
    encoder = Encoder(prepared)
    asks = list(outside_parts("".join(encoder.controls)).values())
    replies = Replies(engine, asks)
    for row, ask in enumerate(asks):
        assert isinstance(ask, Say | Choose)
        assert replies.answer(row).usage.prompt_tokens == len(encoder.prompt(ask))
    assert engine.count("<|im_end|>") > 1


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n\n", "a\0b", "👩‍👩‍👧 🇫🇷", "مرحبا \u202e עולם", "\ufeff\u200b", "é" * 400],
    ids=["empty", "space", "lines", "nul", "emoji", "right-to-left", "invisible", "accents"],
)
def test_unusual_text_is_read(engine: Engine, text: str) -> None:
    asks: list[Ask] = [
        Say(document(text, "Repeat."), max_tokens=4, truncate=True),
        about(text),
        Say(Prompt("", question=text), max_tokens=4, truncate=True),
    ]
    replies = Replies(engine, asks)
    assert replies.text(0).isprintable() is not None
    assert set(replies.choice(1).probabilities) == {"positive", "negative"}
    assert engine.count(text) == 0 if not text else engine.count(text) > 0


def test_half_a_character_fails_alone(engine: Engine) -> None:
    replies = Replies(engine, [about("\ud83d"), about("fine")])
    assert replies.failure(0).kind == "not_unicode"
    assert replies.choice(1).label in ("positive", "negative")


def test_a_prompt_longer_than_the_window_is_refused_with_counts(engine: Engine) -> None:
    long = "word " * CONTEXT
    asks: list[Ask] = [
        about(long),
        Say(Prompt("", document=long)),
        extract(long, ORDER),
        about("x"),
    ]
    replies = Replies(engine, asks)
    for row in range(3):
        failure = replies.failure(row)
        assert failure.kind == "too_long"
        assert failure.tokens is not None
        assert failure.limit is not None
        assert failure.tokens > CONTEXT > failure.limit > CONTEXT // 4
    assert replies.choice(3).label in ("positive", "negative")


# the batch


def test_capabilities_are_said_before(engine: Engine) -> None:
    assert engine.can.verbs == {"say", "choose", "fill"}
    assert engine.can.streaming
    assert engine.can.inside
    assert engine.can.context == CONTEXT
    with pytest.raises(CannotDo, match="embed"):
        list(engine.generate([about("x"), Embed("x")]))


def test_identity_names_weights_engine_and_template(engine: Engine, prepared: Prepared) -> None:
    assert prepared.digest in engine.identity
    assert engine.name in engine.identity
    assert prepared.template in engine.identity
    assert engine.card == prepared.card


def test_an_empty_batch_gives_nothing(engine: Engine) -> None:
    assert list(engine.generate([])) == []


def test_what_is_not_admitted_gets_no_piece(engine: Engine) -> None:
    assert Replies(engine, [about("x")] * 3, lambda: False).answers == {}
    admitted = iter([True, True])
    asks = [tell(number, 6) for number in range(40)]
    replies = Replies(engine, asks, lambda: next(admitted, False))
    assert 0 < len(replies.answers) < len(asks)
    assert all(not isinstance(answer, type(None)) for answer in replies.answers.values())
    assert {piece.row for piece in replies.pieces} == set(replies.answers)


def test_an_abandoned_batch_leaves_the_engine_usable(engine: Engine) -> None:
    pieces = engine.generate([Say(STORY, max_tokens=400, truncate=True)] * 3)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert Replies(engine, [about("x")]).choice().label in ("positive", "negative")
    assert len(Replies(engine, [tell(0)]).text()) > 0


def test_two_threads_share_an_engine(engine: Engine) -> None:
    found: dict[int, Replies] = {}

    def work(number: int) -> None:
        asks: list[Ask] = [
            about(SENTENCES[number]),
            tell(number, 8),
            extract(SENTENCES[number], ORDER),
        ]
        found[number] = Replies(engine, asks)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert set(found[number].answers) == {0, 1, 2}
        alone = Replies(engine, [about(SENTENCES[number])]).choice().probabilities["positive"]
        beside = found[number].choice(0).probabilities["positive"]
        assert beside == pytest.approx(alone, abs=0.1)


def test_native_code_does_not_write_on_the_terminal(
    engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    Replies(engine, [about("x"), tell(0, 4)])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
