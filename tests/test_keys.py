"""A key changes with all that changes the answer, with nothing else, and never by accident."""

from typing import Any

import msgspec
import pytest

from intramuros.keys import MOST_FRAMES, Keyed, Keys
from intramuros.types import Choose, Embed, Fill, Message, Origin, Prompt, Say

PROMPT = Prompt("Judge.", document="Une belle journée", question="How is it?")
ASKS: list[Keyed] = [
    Say(PROMPT),
    Choose(PROMPT, ("good", "bad")),
    Fill(PROMPT, '{"type":"object"}'),
    Embed("Une belle journée"),
]

OTHER: dict[str, Any] = {
    "max_tokens": 7,
    "temperature": 0.5,
    "top_p": 0.5,
    "seed": 7,
    "stop": ("\n",),
    "truncate": True,
    "options": ("good", "bad", "ugly"),
    "descriptions": ("pleases", "does not"),
    "schema": '{"type":"object","properties":{}}',
    "text": "Another text",
    "kind": "query",
    "instruction": "Judge well.",
    "document": None,
    "question": "",
    "history": (Message("user", "Hello"),),
    "layout": "document_first",
    "fence": False,
}


def key(ask: Keyed, identity: str = "weights, engine, template") -> str:
    return Keys(identity).key(ask)[0].hex()


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: type(ask).__name__)
def test_every_field_changes_the_key_but_model_and_origin(ask: Keyed) -> None:
    replace = msgspec.structs.replace
    seen = {key(ask)}
    for field in type(ask).__struct_fields__:
        if field == "model":
            assert key(replace(ask, model="other")) == key(ask)
        elif field == "origin":
            assert key(replace(ask, origin=Origin("anna", "a.csv", "secret"))) == key(ask)
        elif field == "prompt":
            for part in Prompt.__struct_fields__:
                prompt = replace(PROMPT, **{part: OTHER[part]})
                seen.add(key(replace(ask, prompt=prompt)))
        else:
            seen.add(key(replace(ask, **{field: OTHER[field]})))
    fields = len(type(ask).__struct_fields__) - 2
    parts = 0 if isinstance(ask, Embed) else len(Prompt.__struct_fields__) - 1
    assert len(seen) == 1 + fields + parts


def test_verb_and_identity_change_the_key() -> None:
    keys = {key(ask, identity) for ask in ASKS for identity in ("one", "two")}
    assert len(keys) == 2 * len(ASKS)


def test_the_key_is_the_one_that_ledgers_already_hold() -> None:
    """If this fails, every ledger in the world forgets its answers: do you mean it?"""
    assert [key(ask) for ask in ASKS] == [
        "e5f236d152fd2301e2215233c78567b3a0f0f941bcb567caa75790ba02411c29",
        "415f425e238c43391d471f8a50e0ecf04b08239768b46597d9ce1a49bdebb3f3",
        "df95b4f42770e5656d3680b3b6f9326183cafd83e4a45a81301606eba8398dc2",
        "92f1f78f6a03ff3abd821d1d9ad86feb7d3b9e3197959318a0c3dd05ed70fdfd",
    ]


def test_parts_cannot_be_mistaken_for_each_other() -> None:
    prompts = [
        Prompt("", document="ab", question="c"),
        Prompt("", document="a", question="bc"),
        Prompt("", document="", question="abc"),
        Prompt("", document=None, question="abc"),
        Prompt("", document="abc", question=""),
        Prompt("abc", document="", question=""),
        Prompt("abc", document=None, question=""),
    ]
    assert len({key(Say(prompt)) for prompt in prompts}) == len(prompts)


def test_equal_numbers_give_equal_keys_whichever_was_first() -> None:
    assert key(Say(PROMPT, temperature=0)) == key(Say(PROMPT, temperature=0.0))
    keys = Keys("")
    whole, fraction = Say(PROMPT, temperature=1, seed=1), Say(PROMPT, temperature=1.0, seed=1)
    assert keys.key(fraction)[0] == keys.key(whole)[0] == Keys("").key(whole)[0]


def test_frames_are_shared_and_bounded() -> None:
    keys = Keys("")
    first = keys.key(Embed("a"))[1]
    assert keys.key(Embed("b"))[1] is first
    for number in range(MOST_FRAMES + 10):
        keys.key(Say(PROMPT, max_tokens=number))
    assert len(keys._frames) <= MOST_FRAMES
    assert keys.key(Embed("a"))[1] == first


def test_a_frame_without_text_keeps_only_what_is_ours() -> None:
    prompt = Prompt("Judge.", history=(Message("user", "my secret"),))
    frame = Keys("").key(Choose(prompt, ("Dupont", "Durand")))[1]
    assert "Dupont" in frame.content
    assert "my secret" in frame.content
    for text in ("Dupont", "my secret"):
        assert text not in frame.content_without_text
    assert "Judge." in frame.content_without_text
