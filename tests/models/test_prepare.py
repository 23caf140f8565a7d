"""Preparing: rewritten where that is needed, whole or not at all, and at once the second time."""

import subprocess
from pathlib import Path

import gguf as quantization
import numpy as np
import pytest

from intramuros.errors import CannotDo, CorruptWeights, NoSpace, NotFound
from intramuros.models import catalog, gguf, prepare, rewrite, store
from intramuros.models.catalog import Card
from intramuros.models.pull import pull
from intramuros.settings import Settings
from tests.models.conftest import MakeGguf


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """OpenVINO's part is played: its files appear. Gives the files it was asked to read."""
    asked: list[Path] = []

    def play(command: list[str]) -> subprocess.CompletedProcess[str]:
        link = Path(command[-1])
        asked.append(link.resolve())
        for name in prepare.OPENVINO_FILES:
            (link.parent / name).write_text(name)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(prepare, "_run", play)
    return asked


def admitted(content: bytes, tmp_path: Path, told: Settings, home: Path) -> Card:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(content)
    return pull(str(path), told, home)


def test_what_openvino_reads_is_used_as_it_is(
    make_gguf: MakeGguf, tmp_path: Path, told: Settings, home: Path, converted: list[Path]
) -> None:
    card = admitted(make_gguf(type_name="Q8_0"), tmp_path, told, home)
    done = prepare.prepare(card, home, told)
    assert done.gguf == store.weights_path(home, card.sha256, card.file)
    assert converted == [done.gguf]
    assert sorted(path.name for path in done.openvino.iterdir()) == sorted(prepare.OPENVINO_FILES)
    assert (done.card, done.template, done.context) == ("tiny", "chatml", 512)


def test_a_second_call_does_nothing(
    make_gguf: MakeGguf, tmp_path: Path, told: Settings, home: Path, converted: list[Path]
) -> None:
    card = admitted(make_gguf(), tmp_path, told, home)
    first = prepare.prepare(card, home, told)
    assert prepare.prepare(card, home, told) == first
    assert len(converted) == 1


def test_the_digest_is_of_the_weights_not_of_the_place(
    make_gguf: MakeGguf, tmp_path: Path, told: Settings, home: Path, converted: list[Path]
) -> None:
    card = admitted(make_gguf(type_name="Q5_0"), tmp_path, told, home)
    first = prepare.prepare(card, home, told)
    store.remove(home, card.sha256)
    pull(str(tmp_path / "tiny.gguf"), told, home)
    assert prepare.prepare(card, home, told).digest == first.digest
    elsewhere = admitted(make_gguf(type_name="Q5_0"), tmp_path, told, tmp_path / "second")
    assert prepare.prepare(elsewhere, tmp_path / "second", told).digest == first.digest
    other = admitted(make_gguf(type_name="Q5_0", seed=1), tmp_path, told, tmp_path / "third")
    assert prepare.prepare(other, tmp_path / "third", told).digest != first.digest


@pytest.mark.parametrize("type_name", ["Q5_0", "Q4_1", "BF16"])
def test_other_types_are_rewritten(
    type_name: str,
    make_gguf: MakeGguf,
    tmp_path: Path,
    told: Settings,
    home: Path,
    converted: list[Path],
) -> None:
    card = admitted(make_gguf(type_name=type_name), tmp_path, told, home)
    sentences: list[str] = []
    seen: list[tuple[int, int]] = []
    done = prepare.prepare(card, home, told, lambda *both: seen.append(both), sentences.append)
    assert f"OpenVINO does not take {type_name}" in sentences[0]
    assert seen[-1][0] > 0.9 * seen[-1][1]
    assert done.gguf.name == "tiny-Q8_0.gguf"
    assert gguf.check(done.gguf).tensor_types == {"Q8_0", "F32"}
    assert [path.name for path in converted] == ["tiny-Q8_0.gguf"]


@pytest.mark.parametrize("type_name", ["Q5_0", "Q4_1", "BF16", "F16"])
def test_rewriting_keeps_keys_and_weights(
    type_name: str, make_gguf: MakeGguf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, written = tmp_path / "original.gguf", tmp_path / "written.gguf"
    original.write_bytes(make_gguf(type_name=type_name))
    header = gguf.check(original)
    monkeypatch.setattr(rewrite, "ELEMENTS_AT_ONCE", 4_096)  # many steps, and a shorter last one
    rewrite.rewrite(original, header, written)
    copy = gguf.check(written)
    assert abs(written.stat().st_size - rewrite.rewritten_size(header)) < 2_000
    assert {**copy.pairs, "general.file_type": 0} == header.pairs  # arrays stand at the same places
    assert copy.pairs["general.file_type"] == rewrite.MOSTLY_Q8_0
    before, after = (quantization.GGUFReader(path).tensors for path in (original, written))
    for old, new in zip(before, after, strict=True):
        weights = [quantization.dequantize(one.data, one.tensor_type) for one in (old, new)]
        assert old.name == new.name
        assert np.abs(weights[0] - weights[1]).max() < 0.02


def test_openvino_refuses_a_model_and_it_is_said_once(
    make_gguf: MakeGguf, tmp_path: Path, told: Settings, home: Path
) -> None:
    """The real reader, in its child process, on a file that is a GGUF but no model."""
    card = admitted(make_gguf(), tmp_path, told, home)
    sentences: list[str] = []
    done = prepare.prepare(card, home, told, tell=sentences.append)
    assert "engine llamacpp serves them" in sentences[-1]
    assert prepare.openvino_refusal(card, home) == sentences[-1]
    assert done.gguf.exists()
    assert not done.openvino.exists()
    sentences.clear()
    assert prepare.prepare(card, home, told, tell=sentences.append) == done
    assert sentences == []


def test_an_architecture_openvino_does_not_know_is_not_tried(
    make_gguf: MakeGguf, tmp_path: Path, told: Settings, home: Path, converted: list[Path]
) -> None:
    card = admitted(make_gguf(architecture="mamba"), tmp_path, told, home)
    prepare.prepare(card, home, told)
    assert "does not read mamba" in prepare.openvino_refusal(card, home)
    assert converted == []


def test_stopped_in_the_middle_leaves_nothing_that_looks_prepared(
    make_gguf: MakeGguf, tmp_path: Path, told: Settings, home: Path, converted: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    card = admitted(make_gguf(type_name="Q5_0"), tmp_path, told, home)

    def stop(command: list[str]) -> None:
        (Path(command[-1]).parent / prepare.OPENVINO_FILES[0]).write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_run", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(card, home, told)
    assert prepare.prepared(card, home) is None
    killed = home / "prepared" / f"{card.sha256}.999.unfinished"
    killed.mkdir(parents=True)  # what a killed process would have left
    prepare.prepare(card, home, told)
    assert [path.name for path in (home / "prepared").iterdir()] == [card.sha256]


def test_a_prepared_form_with_a_file_missing_is_made_again(
    make_gguf: MakeGguf, tmp_path: Path, told: Settings, home: Path, converted: list[Path]
) -> None:
    card = admitted(make_gguf(), tmp_path, told, home)
    done = prepare.prepare(card, home, told)
    (done.openvino / "openvino_model.bin").unlink()
    assert prepare.prepared(card, home) is None
    assert prepare.prepare(card, home, told) == done
    assert len(converted) == 2


def test_weights_that_change_on_disk_are_found(
    make_gguf: MakeGguf, tmp_path: Path, told: Settings, home: Path, converted: list[Path]
) -> None:
    card = admitted(make_gguf(type_name="Q5_0"), tmp_path, told, home)
    done = prepare.prepare(card, home, told)
    prepare.verify(card, home)
    for path, says in ((done.gguf, "prepared form of 'tiny'"), (None, "tiny.gguf changed on disk")):
        changed = path or store.weights_path(home, card.sha256, card.file)
        changed.chmod(0o644)
        with changed.open("r+b") as file:
            file.seek(-100, 2)
            file.write(b"changed")
        with pytest.raises(CorruptWeights, match=says):
            prepare.verify(card, home)
        assert not changed.exists()


def test_no_weights_no_space_no_template(
    make_gguf: MakeGguf, tmp_path: Path, told: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="not in the store") as caught:
        prepare.prepare(catalog.find("smollm2-135m", home), home, told)
    assert "models pull smollm2-135m" in caught.value.hint
    with pytest.raises(CannotDo, match="template"):
        prepare.prepare(catalog.find("mistral-nemo-12b", home), home, told)
    card = admitted(make_gguf(), tmp_path, told, home)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1_000}))
    with pytest.raises(NoSpace, match="are needed and"):
        prepare.prepare(card, home, told)


def test_smollm2_is_really_prepared(smollm2: Path, told: Settings, home: Path) -> None:
    card = pull(str(smollm2), told, home, as_name="tiny")
    assert card.sha256 == catalog.find("smollm2-135m", home).sha256
    sentences: list[str] = []
    done = prepare.prepare(card, home, told, tell=sentences.append)
    assert prepare.openvino_refusal(card, home) == ""
    assert all((done.openvino / name).stat().st_size for name in prepare.OPENVINO_FILES)
    assert gguf.check(done.gguf).tensor_types == {"Q8_0", "F32"}
    assert not list(done.openvino.glob("*.gguf"))
