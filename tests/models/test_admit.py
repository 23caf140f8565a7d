"""Admitting files of this machine: copied, described, and refused with a sentence."""

import pickle
import zipfile
from pathlib import Path

import pytest

from intramuros.errors import BadArgument, CannotDo, CorruptWeights, NotFound, Refused
from intramuros.models import catalog, store
from intramuros.models.pull import pull
from intramuros.settings import Settings
from tests.models.conftest import MakeGguf


@pytest.fixture
def file(tmp_path: Path, make_gguf: MakeGguf) -> Path:
    path = tmp_path / "My Model (v1).gguf"
    path.write_bytes(make_gguf())
    return path


def test_a_file_is_copied_and_gets_a_card(file: Path, told: Settings, home: Path) -> None:
    card = pull(str(file), told, home)
    content = file.read_bytes()
    file.write_bytes(b"changed later")
    assert card.name == "my-model-v1"
    assert store.weights_path(home, card.sha256, card.file).read_bytes() == content
    assert catalog.find("my-model-v1", home) == card
    assert list((home / "partial").iterdir()) == []


def test_the_name_given_is_the_cards(file: Path, told: Settings, home: Path) -> None:
    assert pull(str(file), told, home, as_name="ours").name == "ours"
    assert pull("ours", told, home).name == "ours"
    assert (
        pull(str(file), told, home, as_name="ours").name == "ours"
    )  # the same bytes: the same card


def test_a_name_in_use_is_not_replaced(
    file: Path, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    pull(str(file), told, home, as_name="ours")
    file.write_bytes(make_gguf(seed=1))
    with pytest.raises(BadArgument, match="a model named 'ours' already"):
        pull(str(file), told, home, as_name="ours")
    with pytest.raises(BadArgument, match="makes no name"):
        pull(str(file), told, home, as_name="???")


def test_a_card_keeps_its_name(told: Settings, home: Path) -> None:
    with pytest.raises(BadArgument, match="keeps its name"):
        pull("smollm2-135m", told, home, as_name="other")


def test_an_unknown_name_suggests_the_nearest(told: Settings, home: Path) -> None:
    with pytest.raises(NotFound, match="no model named 'smollm2-135'") as caught:
        pull("smollm2-135", told, home)
    assert "smollm2-135m" in caught.value.hint


@pytest.mark.parametrize("name", ["./none.gguf", "./a\0b.gguf", "./" + "n" * 5000 + ".gguf"])
def test_a_path_without_a_file(name: str, told: Settings, home: Path) -> None:
    with pytest.raises(NotFound):
        pull(name, told, home)


def test_a_file_that_is_cut_off(file: Path, told: Settings, home: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CorruptWeights, match="ends at byte"):
        pull(str(file), told, home)
    assert not (home / "weights").exists()


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.pkl", "model.gguf"])
def test_a_pickle_is_refused_whatever_its_name(
    name: str, tmp_path: Path, told: Settings, home: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    with pytest.raises(Refused, match="any code"):
        pull(str(path), told, home)


def test_an_archive_of_pickles_is_refused(tmp_path: Path, told: Settings, home: Path) -> None:
    path = tmp_path / "model.gguf"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1]))
    with pytest.raises(Refused, match="any code"):
        pull(str(path), told, home)


def test_other_forms_are_named(tmp_path: Path, told: Settings, home: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(8) + b"{}")
    with pytest.raises(Refused, match="later step"):
        pull(str(tmp_path / "model.safetensors"), told, home)
    with pytest.raises(Refused, match="is a folder"):
        pull(str(tmp_path), told, home)


def test_a_file_with_another_template(
    file: Path, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    file.write_bytes(make_gguf(template="[INST]"))
    with pytest.raises(CannotDo, match="template"):
        pull(str(file), told, home)
    assert "my-model-v1" not in catalog.cards(home)
