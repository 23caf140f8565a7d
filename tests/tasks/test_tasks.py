"""Each task's own rules on the scripted engine: NULL, limits, forms of arguments, long texts."""

import json
from typing import Any

import pytest

from intramuros.engines.scripted import Scripted
from intramuros.errors import BadArgument
from intramuros.run import Session
from intramuros.tasks.extract import json_schema, read_fields
from intramuros.tasks.query import schema_of
from intramuros.types import Ask, Choice, Choices, Choose, Failure, Fill, Message, Say


def one(session: Session, name: str, **arguments: Any) -> Any:
    return session.values(name, [arguments])[0]


def asked(engine: Scripted) -> Ask:
    return engine.asked[0][0]


@pytest.mark.parametrize("name", ["analyze_sentiment", "summarize", "gen"])
def test_null_is_null(session: Session, engine: Scripted, name: str) -> None:
    row = session.tasks[name].row
    assert one(session, name, **{row: None}) is None
    assert engine.asked == []


def test_classify_by_a_list_gives_the_label(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: "b"
    choice = one(session, "classify", content="text", labels=["a", "b"])
    assert isinstance(choice, Choice)
    assert choice.label == "b"


def test_classify_by_json_gives_the_second_generation(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: "b"
    value = one(session, "classify", content="text", labels='{"a": "first", "b": "second"}')
    assert value == {"response": ["b"], "error_message": None}
    ask = asked(engine)
    assert isinstance(ask, Choose)
    assert ask.descriptions == ("first", "second")


def test_classify_version_one_gives_the_label_of_json_too(session: Session) -> None:
    value = one(
        session, "classify", content="x", labels='["positive","b"]', options={"version": "1.0"}
    )
    assert value.label == "positive"


def test_classify_multilabel_gives_every_label_that_applies(
    session: Session, engine: Scripted
) -> None:
    engine.script = lambda ask: "no" if "late" in ask.prompt.question else "yes"  # type: ignore[union-attr]
    options = {"multilabel": "true"}
    value = one(
        session, "classify", content="x", labels=["late", "broken", "kind"], options=options
    )
    assert isinstance(value, Choices)
    assert value.labels == ("broken", "kind")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param([], "0 labels", id="none"),
        pytest.param(["a"], "1 labels", id="one"),
        pytest.param([f"l{n}" for n in range(501)], "501 labels", id="501"),
        pytest.param(["a", "b", "a"], "'a' is given twice", id="duplicate"),
        pytest.param(["a", "b" * 101], "101 characters", id="long"),
        pytest.param(["a", " "], "characters", id="blank"),
        pytest.param("a, b", "not JSON", id="text"),
        pytest.param("3", "a list or an object", id="number"),
        pytest.param('["a", 3]', "are texts", id="mixed"),
        pytest.param(json.dumps({"a": "x" * 1001, "b": ""}), "1001 characters", id="description"),
    ],
)
def test_classify_refuses_bad_labels(session: Session, labels: Any, message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        one(session, "classify", content="text", labels=labels)


def test_classify_takes_500_labels(session: Session, engine: Scripted) -> None:
    labels = [f"label {number}" for number in range(500)]
    engine.script = lambda ask: "label 499"
    assert one(session, "classify", content="text", labels=labels).label == "label 499"


def test_an_unknown_option_is_named(session: Session) -> None:
    with pytest.raises(BadArgument, match="no option 'multi'"):
        one(session, "classify", content="x", labels=["a", "b"], options={"multi": "true"})


def test_extract_by_names_gives_texts_or_null(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: {"payer": "Dupont", "due": None}
    value = one(session, "extract", content="Dupont pays", labels=["payer", "due"])
    assert value == {"payer": "Dupont", "due": None}
    ask = asked(engine)
    assert isinstance(ask, Fill)
    assert json.loads(ask.schema)["properties"]["payer"]["type"] == ["string", "null"]


def test_extract_by_schema_gives_the_second_generation(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: {"total": 12.5}
    value = one(session, "extract", content="12,50", labels='{"total": {"type": "number"}}')
    assert value == {"response": {"total": 12.5}, "error_message": None}


def test_extract_nests_objects_arrays_and_enums() -> None:
    fields = read_fields(
        json.dumps(
            {
                "kind": {"type": "enum", "labels": ["invoice", "order"]},
                "lines": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"sku": "string"}},
                },
            }
        )
    )
    schema = json_schema(fields)
    assert schema["required"] == ["kind", "lines"]
    assert schema["properties"]["kind"]["anyOf"][0] == {"enum": ["invoice", "order"]}
    items = schema["properties"]["lines"]["anyOf"][0]["items"]
    assert items["properties"]["sku"] == {"type": ["string", "null"]}


def nested(levels: int) -> dict[str, Any]:
    field: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        field = {"type": "object", "properties": {"a": field}}
    return {"a": field}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param("{", "not JSON", id="broken"),
        pytest.param("{}", "neither a list of names nor", id="empty"),
        pytest.param("3", "neither a list of names nor", id="number"),
        pytest.param(["a", "a"], "named twice", id="duplicate"),
        pytest.param('{"a": {"type": "date"}}', "unknown type 'date'", id="type"),
        pytest.param('{"a": {"type": "enum"}}', "takes 1 to 500 labels", id="enum"),
        pytest.param('{"a": {"type": "object"}}', "has no properties", id="object"),
        pytest.param(json.dumps(nested(12)), "more than 12 levels", id="deep"),
        pytest.param([f"f{n}" for n in range(257)], "more than 256 fields", id="wide"),
        pytest.param(["a" * 151], "does not have 1 to 150 characters", id="name"),
    ],
)
def test_extract_refuses_bad_schemas(session: Session, labels: Any, message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        one(session, "extract", content="text", labels=labels)


def test_summarize_asks_for_the_word_target(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: " A summary. "
    assert one(session, "summarize", content="long text", max_words=20) == "A summary."
    ask = asked(engine)
    assert isinstance(ask, Say)
    assert "at most 20 words" in ask.prompt.instruction


def test_summarize_without_limit_names_none(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: "A summary."
    one(session, "summarize", content="long text", max_words=0)
    assert "words" not in asked(engine).prompt.instruction  # type: ignore[union-attr]


def limited(limit: int) -> Any:
    """An engine that holds `limit` words and notes the first word of what it reads."""

    def script(ask: Ask) -> str | Failure:
        assert isinstance(ask, Say)
        words = (ask.prompt.document or "").split()
        if len(words) > limit:
            return Failure("too_long", "too long", tokens=len(words), limit=limit)
        return words[0]

    return script


def test_summarize_reads_a_long_text_by_parts(session: Session, engine: Scripted) -> None:
    engine.script = limited(100)
    text = " ".join(f"w{number}" for number in range(5000))
    assert one(session, "summarize", content=text) == "w0"
    rounds = [len(batch) for batch in engine.asked]
    assert rounds[0] == 1
    assert rounds[1] > 50
    assert len(rounds) == 3


def test_translate_keeps_the_space_between_paragraphs(session: Session, engine: Scripted) -> None:
    engine.script = lambda ask: (ask.prompt.document or "").upper()  # type: ignore[union-attr]
    text = "\n" + "\n\n".join(f"paragraph {number} " * 100 for number in range(5)) + "\n"
    assert one(session, "translate", content=text, to_lang="fr") == text.upper()
    assert len(engine.asked[0]) == 5


@pytest.mark.parametrize(
    ("to_lang", "name"),
    [
        ("fr", "French"),
        ("PT-br", "Portuguese (BR)"),
        ("Occitan", "Occitan"),
        ("de_CH", "German (CH)"),
    ],
)
def test_translate_knows_languages_by_code_or_name(
    session: Session, engine: Scripted, to_lang: str, name: str
) -> None:
    engine.script = lambda ask: "x"
    one(session, "translate", content="text", to_lang=to_lang)
    assert f"into {name}." in asked(engine).prompt.instruction  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_text_needs_no_model(session: Session, engine: Scripted, text: str) -> None:
    assert one(session, "translate", content=text, to_lang="fr") == text
    assert one(session, "summarize", content=text) == ""
    assert one(session, "analyze_sentiment", content=text) is None
    assert one(session, "classify", content=text, labels=["a", "b"]) is None
    assert engine.asked == []


def test_query_names_its_model_and_parameters(engine: Scripted) -> None:
    session = Session(load=lambda name: engine)
    engine.script = lambda ask: "hello"
    parameters = {"max_tokens": 9, "temperature": 0.5, "stop": "\n", "seed": 1}
    arguments = {"endpoint": "card", "request": "Hi", "modelParameters": parameters}
    assert one(session, "query", **arguments) == "hello"
    ask = asked(engine)
    assert isinstance(ask, Say)
    assert (ask.model, ask.max_tokens, ask.temperature) == ("card", 9, 0.5)
    assert (ask.stop, ask.seed, ask.truncate) == (("\n",), 1, True)
    assert ask.prompt.history == ()
    assert ask.prompt.question == "Hi"


def test_query_gives_json_text_for_a_schema(engine: Scripted) -> None:
    session = Session(load=lambda name: engine)
    engine.script = lambda ask: {"answer": {"n": 3}}
    ddl = "STRUCT<answer: STRUCT<n: INT>>"
    value = one(session, "query", endpoint="card", request="Hi", responseFormat=ddl)
    assert json.loads(value) == {"answer": {"n": 3}}


def test_query_may_give_the_error_as_a_value(engine: Scripted) -> None:
    session = Session(load=lambda name: engine)
    engine.script = lambda ask: Failure("engine", "it broke")
    value = one(session, "query", endpoint="card", request="Hi", failOnError=False)
    assert value == {"response": None, "errorMessage": "it broke"}
    assert session.tally.failed == 0


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("text", None),
        ('{"type": "text"}', None),
        ('{"type": "json_object"}', {"type": "object"}),
        ('{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}', {"type": "object"}),
    ],
)
def test_response_formats(form: str, expected: Any) -> None:
    schema = schema_of(form)
    assert (json.loads(schema) if schema else None) == expected


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("STRUCT<a: INT, b: INT>", "exactly one field"),
        ("nonsense<", "DDL_STRING"),
        ('{"type": "array"}', "not an object"),
        ('{"type": ', "not JSON"),
    ],
)
def test_bad_response_formats_name_the_platforms_error_class(form: str, message: str) -> None:
    with pytest.raises(BadArgument, match=message) as caught:
        schema_of(form)
    assert "AI_FUNCTION_UNSUPPORTED_RESPONSE_FORMAT" in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "cause"),
    [
        ({"n": 2}, "UNSUPPORTED_MODEL_PARAMETER"),
        ({"temperature": "hot"}, "INVALID_PARAMETER_DATA_TYPE"),
        ({"temperature": 3.0}, "INVALID_NUMERIC_PARAMETER"),
        ({"max_tokens": 0}, "INVALID_NUMERIC_PARAMETER"),
    ],
)
def test_bad_model_parameters_name_the_platforms_error_class(
    engine: Scripted, parameters: dict[str, Any], cause: str
) -> None:
    session = Session(load=lambda name: engine)
    with pytest.raises(BadArgument, match=f"INVALID_MODEL_PARAMETERS.{cause}"):
        one(session, "query", endpoint="c", request="Hi", modelParameters=parameters)


def test_messages_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Message("user", "a").content = "b"  # type: ignore[misc]
