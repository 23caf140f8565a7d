"""The catalogue is sound data; the shelf and the recommendation say what it holds."""

import re
from pathlib import Path

import pytest

from intramuros.errors import BadArgument, Broken, CannotDo, NotFound
from intramuros.models import catalog, pins, recommend, shelf, store
from intramuros.models.catalog import Carrier, Hub
from intramuros.models.pull import pull
from intramuros.prompt.template import TEMPLATES
from intramuros.settings import SETTINGS, Settings
from tests.models.conftest import MakeGguf

CARRIED = ("qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b", "smollm2-135m")
GB = 10**9


def test_the_templates_named_are_those_that_exist() -> None:
    assert set(catalog.TEMPLATES) == set(TEMPLATES)


def test_every_card_is_sound() -> None:
    for name, card in catalog.shipped().items():
        assert re.fullmatch(r"[a-z0-9.-]+", name)
        assert card.size > 10_000_000
        assert card.parameters > 1_000_000
        assert card.context >= 256
        assert card.licence
        assert card.languages
        assert card.sources
        assert card.sha256 == "" or re.fullmatch(r"[0-9a-f]{64}", card.sha256)
        for source in card.sources:
            assert isinstance(source, Hub | Carrier)
            if isinstance(source, Hub):
                assert Path(source.file).name == card.file
            else:
                assert card.sha256


def test_the_carried_cards_are_pinned_in_every_part() -> None:
    default = next(setting.default for setting in SETTINGS if setting.name == "model")
    assert default in CARRIED
    for name in CARRIED:
        carriers = [s for s in catalog.shipped()[name].sources if isinstance(s, Carrier)]
        assert len(carriers) == 1
        wheels = carriers[0].wheels
        assert len({wheel.sha256 for wheel in wheels}) == len(wheels)
        for number, wheel in enumerate(wheels, 1):
            assert re.fullmatch(r"[0-9a-f]{64}", wheel.sha256)
            assert wheel.file.startswith(wheel.project.replace("-", "_") + "-")
            assert len(wheels) == 1 or wheel.member.endswith(f"/data/part{number:02}.bin")


def test_a_card_that_cannot_be_served_says_why() -> None:
    unserved = []
    for card in catalog.shipped().values():
        try:
            catalog.require_served(card)
        except CannotDo:
            unserved.append(card)
    assert unserved
    assert all(card.note for card in unserved)


def test_an_unknown_card_suggests_the_nearest(home: Path) -> None:
    with pytest.raises(NotFound) as caught:
        catalog.find("qwen2.5-coder-1.5", home)
    assert "qwen2.5-coder-1.5b" in caught.value.hint


def test_a_damaged_list_is_refused_and_left_alone(home: Path) -> None:
    home.mkdir()
    for name in ("cards.json", "pins.json"):
        (home / name).write_text("[{")
        with pytest.raises(Broken, match=f"{name} is damaged"):
            catalog.cards(home)
        assert (home / name).read_text() == "[{"
        (home / name).unlink()


def test_rows_and_show(home: Path, told: Settings, tmp_path: Path, make_gguf: MakeGguf) -> None:
    path = tmp_path / "ours.gguf"
    path.write_bytes(make_gguf())
    card = pull(str(path), told, home)
    rows = {row.name: row for row in shelf.rows(home)}
    assert rows["ours"].state == "pulled"
    assert rows["smollm2-135m"].state == ""
    assert rows["mistral-nemo-12b"].state == "not served"
    assert rows["qwen2.5-coder-0.5b"].from_where == "hub, PyPI"
    assert rows["qwen2.5-7b"].size == "about 4.7 GB"
    shown = shelf.show(card, home)
    assert card.sha256 in shown
    assert f"file: {path}" in shown
    for known in catalog.cards(home).values():
        assert shelf.show(known, home).startswith(f"name        {known.name}\n")


def test_remove(home: Path, told: Settings, tmp_path: Path, make_gguf: MakeGguf) -> None:
    path = tmp_path / "ours.gguf"
    path.write_bytes(make_gguf())
    card = pull(str(path), told, home)
    pull(str(path), told, home, as_name="theirs")
    assert "stay for theirs" in shelf.remove("ours", home)
    assert store.weights_path(home, card.sha256, card.file).exists()
    assert "freed" in shelf.remove("theirs", home)
    assert not (home / "weights" / card.sha256).exists()
    with pytest.raises(NotFound, match="no model named 'theirs'"):
        shelf.remove("theirs", home)
    for name in ("smollm2-135m", "qwen2.5-7b"):
        with pytest.raises(NotFound, match="nothing to remove"):
            shelf.remove(name, home)


@pytest.mark.parametrize(
    ("gigabytes", "best"),
    [
        (1, "smollm2-135m"),
        (3, "qwen2.5-coder-0.5b"),
        (8, "qwen2.5-coder-1.5b"),
        (16, "qwen3-4b-2507"),
    ],
)
def test_the_best_card_for_a_memory(gigabytes: float, best: str, home: Path) -> None:
    found = recommend.recommend(int(gigabytes * GB), home)
    assert found.card.name == best
    assert str(found).startswith(f"{best} is the largest card that fits")
    assert "Its licence: Apache-2.0" in found.why


def test_languages_and_the_hub_narrow_the_choice(home: Path) -> None:
    assert recommend.recommend(64 * GB, home, ["ga"]).card.name == "eurollm-9b"
    offline = recommend.recommend(24 * GB, home, ["FR"], offline=True)
    assert offline.card.name == "qwen2.5-coder-1.5b"
    assert "hub" not in offline.why
    assert "from the hub only" in recommend.recommend(24 * GB, home, ["fr"]).why


def test_nothing_to_recommend(home: Path) -> None:
    with pytest.raises(CannotDo, match="no card fits in 200 MB"):
        recommend.recommend(200_000_000, home)
    with pytest.raises(NotFound, match="languages tlh"):
        recommend.recommend(24 * GB, home, ["tlh"])
    with pytest.raises(NotFound, match="no card"):
        recommend.recommend(24 * GB, home, needs=["embed"])
    with pytest.raises(BadArgument):
        recommend.recommend(0, home)


def test_this_machine_gets_a_recommendation(home: Path) -> None:
    assert recommend.memory() > 0
    assert recommend.recommend(None, home).card.name in catalog.shipped()


def test_pins_are_added_and_dropped(home: Path) -> None:
    pin = pins.Pin("c" * 40, 1, "d" * 64)
    pins.add(home, "a/b/c.gguf@main", pin)
    pins.add(home, "a/b/d.gguf@main", pin)
    pins.drop(home, "a/b/c.gguf@main")
    assert pins.read(home) == {"a/b/d.gguf@main": pin}
