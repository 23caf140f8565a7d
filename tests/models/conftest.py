"""Fixtures of the model tests: an empty store, tiny GGUF files, a hub and an index on loopback."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from intramuros import settings
from intramuros.models import catalog, fetch, store
from tests.models.hub_stand_in import HubStandIn
from tests.models.index_stand_in import IndexStandIn

MakeGguf = Callable[..., bytes]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client finds no account of this user's, and nobody waits between attempts."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(fetch, "PAUSE", 0.0)


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def index() -> Iterator[IndexStandIn]:
    with IndexStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def told(hub: HubStandIn, index: IndexStandIn) -> settings.Settings:
    """Settings that name the two stand-ins."""
    return settings.Settings({"hub": hub.address, "pypi_index": f"{index.address}/simple"})


@pytest.fixture
def make_gguf(tmp_path: Path) -> MakeGguf:
    """Makes the bytes of a tiny GGUF file; `padding` makes it longer by that many numbers."""

    def make(
        template: str = CHATML,
        architecture: str = "llama",
        padding: int = 40_000,
        type_name: str = "F32",
        seed: int = 0,
    ) -> bytes:
        path = tmp_path / "made.gguf"
        random = np.random.default_rng(seed)
        writer = gguf.GGUFWriter(str(path), architecture)
        writer.add_context_length(512)
        writer.add_file_type(0)
        writer.add_chat_template(template)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b", "<|im_start|>", "<|im_end|>", "é"])
        writer.add_token_types([1, 1, 3, 3, 1])
        writer.add_eos_token_id(3)
        kind = gguf.GGMLQuantizationType[type_name]
        matrix = random.standard_normal((-(-padding // 256), 256), dtype=np.float32)
        writer.add_tensor("token_embd.weight", gguf.quants.quantize(matrix, kind), raw_dtype=kind)
        writer.add_tensor("output_norm.weight", np.ones(256, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()

    return make


@pytest.fixture
def smollm2() -> Path:
    """The file of smollm2-135m in the user's own store."""
    home = settings.home()
    card = catalog.find("smollm2-135m", home)
    path = store.weights_path(home, card.sha256, card.file)
    if not path.exists():
        pytest.skip("the weights of smollm2-135m are not in the store")
    return path
