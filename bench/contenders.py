"""One contender of a benchmark, in a process of its own: prints one line of JSON when it is done.

    python bench/contenders.py ours_choose '{"rows": [...], "card": "qwen2.5-coder-0.5b"}'

Loading a model and a warm-up are not timed. The peers get the prompts that our task makes, as chat
messages, and are asked at their best: cached prompts, one token and a grammar for a choice.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

import intramuros
from intramuros import settings
from intramuros.models import catalog
from intramuros.models.prepare import prepare
from intramuros.prompt.template import turns
from intramuros.settings import Settings
from intramuros.task import Flow, Task, document, say, task, tasks
from intramuros.types import Ask, Choose, Layout, Say

WRITTEN = 32
WARM_UP = 4


@task
def translate_32(content: str) -> Flow[str]:
    """The translation task, cut after 32 tokens so that every contender writes the same amount."""
    return (
        yield from say(
            document(
                content,
                "Translate the text of the document into German. "
                "Answer with the translation alone.",
                layout="document_first",
            ),
            max_tokens=WRITTEN,
            truncate=True,
        )
    )


def asks_of(task: Task, rows: Sequence[str], layout: Layout = "instruction_first") -> list[Ask]:
    """The first ask of each row's flow, laid out as told."""
    asks: list[Ask] = []
    for row in rows:
        ask = next(task.flow(row))
        assert isinstance(ask, Choose | Say)
        prompt = msgspec.structs.replace(ask.prompt, layout=layout)
        asks.append(msgspec.structs.replace(ask, prompt=prompt))
    return asks


def messages(ask: Ask) -> list[Any]:
    assert isinstance(ask, Choose | Say)
    return [{"role": role, "content": text} for role, text in turns(ask)]


def ours(task: Task, rows: Sequence[str], card: str, engine: str = "openvino") -> dict[str, Any]:
    """Rows through the whole of Intramuros, ledger included, in a new workspace."""
    with (
        tempfile.TemporaryDirectory() as folder,
        intramuros.open(card, workspace=folder, engine=engine) as ai,
    ):
        list(ai.session.run(task, ({"content": f"warm-up {n}."} for n in range(WARM_UP))))
        ai.session.begin()
        started = time.perf_counter()
        results = list(ai.session.run(task, ({"content": row} for row in rows)))
        seconds = time.perf_counter() - started
        tally = ai.session.tally
        return {
            "rows": len(results),
            "seconds": seconds,
            "read": tally.usage.prompt_tokens,
            "written": tally.usage.completion_tokens,
            "from_ledger": tally.from_ledger,
            "failed": tally.failed,
        }


@contextmanager
def llamacpp_server(gguf: Path, slots: int) -> Iterator[str]:
    """llama.cpp's own HTTP server on loopback; gives its address."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(gguf)
    parameters.n_parallel = slots
    parameters.n_ctx = 2048 * slots
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = os.cpu_count() or 1
    parameters.hostnames = ["127.0.0.1"]
    parameters.verbosity = 0
    parameters.warmup = True
    server = xllamacpp.Server(parameters)
    yield server.listening_address
    del server


def llamacpp(
    asks: Sequence[Ask], gguf: Path, slots: int, request: Callable[[Any, Ask], Any]
) -> dict[str, Any]:
    """The same asks to llama.cpp's server, as many at once as it has slots."""
    import openai

    with llamacpp_server(gguf, slots) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", timeout=600)
        with ThreadPoolExecutor(slots) as pool:
            list(pool.map(lambda ask: request(client, ask), asks[:WARM_UP]))
            started = time.perf_counter()
            replies = list(pool.map(lambda ask: request(client, ask), asks))
            seconds = time.perf_counter() - started
        return {
            "rows": len(replies),
            "seconds": seconds,
            "read": sum(reply.usage.prompt_tokens for reply in replies),
            "written": sum(reply.usage.completion_tokens for reply in replies),
        }


def request_choice(client: Any, ask: Ask) -> Any:
    assert isinstance(ask, Choose)
    grammar = "root ::= " + " | ".join(json.dumps(option) for option in ask.options)
    return client.chat.completions.create(
        model="peer",
        messages=messages(ask),
        max_tokens=1,
        temperature=0,
        extra_body={"grammar": grammar, "cache_prompt": True},
    )


def request_text(client: Any, ask: Ask) -> Any:
    assert isinstance(ask, Say)
    return client.chat.completions.create(
        model="peer",
        messages=messages(ask),
        max_tokens=ask.max_tokens,
        temperature=0,
        extra_body={"cache_prompt": True},
    )


def pipeline(asks: Sequence[Ask], gguf: Path, max_new_tokens: int, batch: int) -> dict[str, Any]:
    """The same asks through the Hugging Face text-generation pipeline, in batches."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    names = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**names, padding_side="left")
    model = transformers.AutoModelForCausalLM.from_pretrained(**names, dtype=torch.float32)
    writer = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    options = {"max_new_tokens": max_new_tokens, "do_sample": False, "batch_size": batch}
    chats = [messages(ask) for ask in asks]
    writer(chats[:WARM_UP], **options)
    started = time.perf_counter()
    replies = writer(chats, **options)
    seconds = time.perf_counter() - started
    texts = [reply[0]["generated_text"][-1]["content"] for reply in replies]
    read = sum(len(tokenizer.apply_chat_template(chat)["input_ids"]) for chat in chats)
    written = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    return {"rows": len(replies), "seconds": seconds, "read": read, "written": written}


def weights(card: str) -> Path:
    home = settings.home()
    return prepare(catalog.find(card, home), home, Settings({})).gguf


def ours_choose(told: dict[str, Any]) -> dict[str, Any]:
    return ours(tasks()["analyze_sentiment"], told["rows"], told["card"], told["engine"])


def ours_write(told: dict[str, Any]) -> dict[str, Any]:
    return ours(translate_32, told["rows"], told["card"], told["engine"])


def llamacpp_choose(told: dict[str, Any]) -> dict[str, Any]:
    asks = asks_of(tasks()["analyze_sentiment"], told["rows"], told["layout"])
    return llamacpp(asks, weights(told["card"]), told["slots"], request_choice)


def llamacpp_write(told: dict[str, Any]) -> dict[str, Any]:
    asks = asks_of(translate_32, told["rows"])
    return llamacpp(asks, weights(told["card"]), told["slots"], request_text)


def pipeline_choose(told: dict[str, Any]) -> dict[str, Any]:
    asks = asks_of(tasks()["analyze_sentiment"], told["rows"])
    return pipeline(asks, weights(told["card"]), 1, told["batch"])


def pipeline_write(told: dict[str, Any]) -> dict[str, Any]:
    return pipeline(
        asks_of(translate_32, told["rows"]), weights(told["card"]), WRITTEN, told["batch"]
    )


def kernel(told: dict[str, Any]) -> dict[str, Any]:
    """SQL in, parquet out, on the scripted engine: what is not the model costs this much."""
    folder = Path(told["folder"])
    query = f"select *, ai_analyze_sentiment(text) as felt from '{folder / 'rows.parquet'}'"
    with intramuros.open(workspace=folder / "workspace", engine="scripted") as ai:
        started = time.perf_counter()
        ai.sql(query, output=folder / f"out-{told['run']}.parquet")
        seconds = time.perf_counter() - started
        tally = ai.session.tally
        return {
            "rows": tally.rows,
            "seconds": seconds,
            "read": 0,
            "written": 0,
            "from_ledger": tally.from_ledger,
        }


CONTENDERS = {
    function.__name__: function
    for function in (
        ours_choose, ours_write, llamacpp_choose, llamacpp_write, pipeline_choose, pipeline_write,
        kernel,
    )
}  # fmt: skip

if __name__ == "__main__":
    result = CONTENDERS[sys.argv[1]](json.load(sys.stdin))
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(result), flush=True)
    os._exit(0)  # native servers are not always willing to stop
