"""What only llama.cpp can get wrong: token ids, exact probabilities, its socket, its memory."""

import gc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from intramuros.engines import llamacpp
from intramuros.engines.llamacpp import LlamaCpp
from intramuros.errors import CorruptWeights
from intramuros.models.prepared import Prepared
from intramuros.prompt.encoder import Encoder
from intramuros.settings import Settings
from intramuros.task import document
from intramuros.types import Choose
from tests.contract.conftest import Replies

SETTINGS = Settings({"context": 512, "threads": 1})

TEXTS = (
    "L’été où j’étais « près » de l’église, 1 250,50 € !",
    "I'm sure you'LL see 3.14 and 2026-11-22, don't you?",
    "👩‍👩‍👧‍👦 emoji 🇫🇷 ☕️ and 日本語のテキスト。",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣",
    "def f(x):\n\tif x > 0:\n        return  x**2   # c'est\r\n\r\n\n",
    "   leading,  doubled\u00a0and trailing   ",
    "a\0b",
)


@pytest.fixture(scope="module")
def engine(prepared: Prepared) -> Iterator[LlamaCpp]:
    engine = llamacpp.load(prepared, SETTINGS)
    yield engine
    engine.close()


@pytest.mark.parametrize("text", TEXTS)
def test_token_ids_are_the_ones_llama_cpp_makes(
    engine: LlamaCpp, prepared: Prepared, text: str
) -> None:
    """It reads our ids, then the text itself, and finds all but the last token already read."""
    ids = Encoder(prepared).text(text)
    request = {"id_slot": 0, "cache_prompt": True, "n_predict": 1}
    engine._server.handle_completions({**request, "prompt": ids})
    usage = engine._server.handle_completions({**request, "prompt": text})["usage"]
    assert usage["prompt_tokens"] == len(ids)
    assert usage["prompt_tokens_details"]["cached_tokens"] == len(ids) - 1


def test_chances_are_those_of_the_whole_distribution(engine: LlamaCpp, prepared: Prepared) -> None:
    encoder = Encoder(prepared)
    ask = Choose(document("A dull film, well played.", "Judge."), ("book", "book a flight", "été"))
    ids, tree = encoder.prompt(ask), encoder.trie(ask.options)
    logits = {}
    for path, children in tree.forks:
        reply = engine._server.handle_completions(
            {
                "prompt": [*ids, *path],
                "id_slot": 0,
                "n_predict": 1,
                "n_probs": 1_000_000,
                "samplers": ["temperature"],
                "temperature": 0.0,
                "cache_prompt": bool(path),
            }
        )
        whole = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        of = {token["id"]: token["logprob"] for token in whole}
        logits[path] = [of[child] for child in children]
    expected = tree.probabilities(logits)
    assert Replies(engine, [ask]).choice().probabilities == pytest.approx(expected, abs=1e-3)


def test_nothing_can_connect_to_it(engine: LlamaCpp) -> None:
    scheme, _, path = engine._server.listening_address.partition("://")
    assert scheme == "unix"
    assert not Path(path).parent.exists()


def test_a_file_that_is_no_model_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with prepared.gguf.open("rb") as whole:
        cut.write_bytes(whole.read(20_000_000))
    with pytest.raises(CorruptWeights, match="cannot load"):
        llamacpp.load(msgspec.structs.replace(prepared, gguf=cut), SETTINGS)


def test_closing_frees_the_weights(prepared: Prepared) -> None:
    held = []
    for _ in range(3):
        engine = llamacpp.load(prepared, SETTINGS)
        Replies(engine, [Choose(document("x"), ("yes", "no"))])
        engine.close()
        del engine
        gc.collect()
        held.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    assert held[2] - held[0] < prepared.gguf.stat().st_size  # two leaks would be twice that
