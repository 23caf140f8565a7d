"""Pulling from a hub: named and pinned, resumed, refused, and without giving its token away."""

from pathlib import Path

import pytest

from intramuros.errors import (
    BadArgument,
    CannotDo,
    CorruptWeights,
    DownloadFailed,
    NotFound,
    Refused,
)
from intramuros.models import catalog, pins, shelf, store
from intramuros.models.catalog import Hub
from intramuros.models.pull import parse_hub_name, pull
from intramuros.settings import Settings
from tests.models.conftest import MakeGguf
from tests.models.hub_stand_in import HubStandIn, Repository


def content_of(home: Path, card: catalog.Card) -> bytes:
    return store.weights_path(home, card.sha256, card.file).read_bytes()


def test_a_named_file_is_pulled_pinned_and_described(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": content, "README.md": b"hello"})
    seen: list[tuple[int, int]] = []
    card = pull("hf:maker/tiny/tiny.gguf", told, home, lambda *both: seen.append(both))
    assert content_of(home, card) == content
    assert seen[-1] == (len(content), len(content))
    assert pins.read(home)["maker/tiny/tiny.gguf@main"].commit == "a" * 40
    assert (card.name, card.family, card.context, card.template) == ("tiny", "llama", 512, "chatml")
    assert catalog.find("tiny", home) == card


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("hf:a/b", Hub("a/b", "")),
        ("hf:a/b@v1", Hub("a/b", "", "v1")),
        ("hf:a/b.c/d.gguf", Hub("a/b.c", "d.gguf")),
        ("hf:a/b/c/d.gguf@refs/pr/1", Hub("a/b", "c/d.gguf", "refs/pr/1")),
    ],
)
def test_names_on_the_hub(name: str, source: Hub) -> None:
    assert parse_hub_name(name) == source


@pytest.mark.parametrize("name", ["hf:", "hf:a", "hf:a//b", "hf:a/b@", "hf:a b/c", "hf:a/b\0"])
def test_what_is_no_name_on_the_hub(name: str, told: Settings, home: Path) -> None:
    with pytest.raises(BadArgument):
        pull(name, told, home)


def test_the_only_file_or_the_preferred_one_is_chosen(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    files = {
        "tiny-Q2_K.gguf": b"",
        "tiny-Q4_K_M.gguf": content,
        "tiny-f16-00001-of-00002.gguf": b"",
    }
    hub.repositories["maker/tiny"] = Repository(files)
    assert pull("hf:maker/tiny", told, home).file == "tiny-Q4_K_M.gguf"
    del files["tiny-Q4_K_M.gguf"]
    files["tiny-Q8_0.gguf"] = content
    with pytest.raises(BadArgument, match="2 GGUF files") as caught:
        pull("hf:maker/tiny", told, home)
    assert "hf:maker/tiny/tiny-Q2_K.gguf" in caught.value.hint


def test_a_cut_connection_is_resumed(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": content})
    hub.cuts = [50_000]
    assert content_of(home, pull("hf:maker/tiny", told, home)) == content
    ranges = [request.headers.get("range") for request in hub.asked("/storage/")]
    assert ranges == [None, "bytes=50000-"]


def test_the_token_stays_at_the_hub(
    hub: HubStandIn,
    told: Settings,
    home: Path,
    make_gguf: MakeGguf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf()})
    pull("hf:maker/tiny", told, home)
    assert hub.asked("/api/models/")[0].headers["authorization"] == "Bearer hf_secret"
    assert "authorization" not in hub.asked("/storage/")[0].headers


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf:maker/none/tiny.gguf", "shows no repository maker/none"),
        ("hf:maker/tiny/tiny.gguf@v9", "no revision 'v9'"),
    ],
)
def test_what_the_hub_does_not_have(
    name: str, says: str, hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf()})
    with pytest.raises(DownloadFailed, match=says):
        pull(name, told, home)


def test_a_file_that_is_not_there_suggests_the_nearest(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf()})
    with pytest.raises(NotFound, match=r"no file in maker/tiny named 'tinny\.gguf'") as caught:
        pull("hf:maker/tiny/tinny.gguf", told, home)
    assert "did you mean: tiny.gguf" in caught.value.hint


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_names_the_token(
    status: int, hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf()}, gate=status)
    with pytest.raises(DownloadFailed, match="gated") as caught:
        pull("hf:maker/tiny", told, home)
    assert "HF_TOKEN" in caught.value.hint


def test_a_hub_that_is_broken(hub: HubStandIn, told: Settings, home: Path) -> None:
    hub.broken_with = 503
    with pytest.raises(DownloadFailed, match="answered 503"):
        pull("hf:maker/tiny", told, home)


def test_a_corrupt_file_is_refused_and_deleted(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    digests = {"tiny.gguf": "1" * 64}
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf()}, digests=digests)
    with pytest.raises(CorruptWeights, match="were deleted"):
        pull("hf:maker/tiny", told, home)
    assert list((home / "partial").iterdir()) == []
    assert pins.read(home) == {}
    assert "tiny" not in catalog.cards(home)


def test_a_name_that_means_other_bytes_later_is_refused(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf()})
    first = pull("hf:maker/tiny/tiny.gguf", told, home)
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf(seed=1)}, commit="d" * 40)
    for _ in range(2):
        with pytest.raises(CorruptWeights, match="was pinned as") as caught:
            pull("hf:maker/tiny/tiny.gguf", told, home, as_name="again")
        assert f"hf:maker/tiny/tiny.gguf@{'a' * 40}" in caught.value.hint
        if first.name in catalog.cards(home):
            shelf.remove(first.name, home)
    hub.repositories["maker/tiny"].files["tiny.gguf"] = make_gguf(seed=2)
    pins.drop(home, "maker/tiny/tiny.gguf@main")
    assert pull("hf:maker/tiny/tiny.gguf", told, home).sha256 != first.sha256


def test_another_commit_with_the_same_bytes_is_no_difference(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": content})
    first = pull("hf:maker/tiny", told, home)
    hub.repositories["maker/tiny"].commit = "d" * 40
    assert pull("hf:maker/tiny", told, home).sha256 == first.sha256
    assert len(hub.asked("/storage/")) == 1


def test_a_shipped_card_is_pinned_by_its_first_pull(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    (source,) = catalog.find("qwen2.5-7b", home).sources
    assert isinstance(source, Hub)
    hub.repositories[source.repo] = Repository({source.file: content})
    assert catalog.find("qwen2.5-7b", home).sha256 == ""
    card = pull("qwen2.5-7b", told, home)
    assert catalog.find("qwen2.5-7b", home) == card
    assert (card.size, content_of(home, card)) == (len(content), content)
    shelf.remove("qwen2.5-7b", home)
    hub.repositories[source.repo].files[source.file] = make_gguf(seed=1)
    with pytest.raises(CorruptWeights, match="was pinned as"):
        pull("qwen2.5-7b", told, home)
    shelf.remove("qwen2.5-7b", home, forget=True)
    assert pull("qwen2.5-7b", told, home).sha256 != card.sha256


def test_a_file_without_a_sha256_is_not_pulled(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf()}, small=("tiny.gguf",))
    with pytest.raises(DownloadFailed, match="no SHA-256"):
        pull("hf:maker/tiny", told, home)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("pytorch_model.bin", "pickles"),
        ("model.safetensors", "safetensors, which are read from a later step"),
        ("README.md", "no GGUF file"),
    ],
)
def test_repositories_of_other_forms(
    file: str, says: str, hub: HubStandIn, told: Settings, home: Path
) -> None:
    hub.repositories["maker/tiny"] = Repository({file: b"1"})
    with pytest.raises(Refused, match=says):
        pull("hf:maker/tiny", told, home)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hf:maker/tiny/model.pt", Refused),
        ("hf:maker/tiny/model.safetensors", Refused),
        ("hf:maker/tiny/model-00001-of-00002.gguf", CannotDo),
        ("hf:maker/tiny/model.txt", BadArgument),
    ],
)
def test_files_of_other_forms_are_refused_before_any_question(
    name: str, kind: type[Exception], hub: HubStandIn, told: Settings, home: Path
) -> None:
    with pytest.raises(kind):
        pull(name, told, home)
    assert hub.requests == []


@pytest.mark.parametrize(
    "template", ["[INST]{{ x }}[/INST]", "<|im_start|>{% if enable_thinking %}"]
)
def test_a_file_with_another_template_is_refused_and_not_kept(
    template: str, hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf(template=template)})
    with pytest.raises(CannotDo, match="template"):
        pull("hf:maker/tiny", told, home)
    assert list((home / "weights").iterdir()) == []
    assert "tiny" not in catalog.cards(home)


def test_the_name_of_another_model_is_not_taken(
    hub: HubStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf()})
    with pytest.raises(BadArgument, match="a model named 'smollm2-135m' already"):
        pull("hf:maker/tiny", told, home, as_name="SmolLM2-135M")
