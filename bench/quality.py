"""Quality beside the majority and beside the same weights asked plainly by llama.cpp's server.

    python bench/quality.py --data ../shared/data

Samples are seeded; every figure has its n and its 95 % interval (Wilson). Rows that fail or answer
nothing usable count as wrong. Prompts were tuned on other rows than these.
"""

import argparse
import json
import math
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import contenders
import invoices
import rows as bench_rows

import intramuros
from intramuros.types import Choice, Result

INTENTS = {
    "book a flight": "book_flight",
    "check balance": "balance",
    "weather": "weather",
    "play music": "play_music",
}
OTHER = "something else"
SLOTS = 4


def interval(right: int, n: int) -> str:
    """Share and its Wilson 95 % interval."""
    z = 1.96
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{share:.3f} [{middle - half:.3f}, {middle + half:.3f}]"


def report(name: str, truth: Sequence[str], answers: dict[str, Sequence[str | None]]) -> None:
    majority = Counter(truth).most_common(1)[0][1] / len(truth)
    print(f"\n{name}: n = {len(truth)}, majority {majority:.3f}")
    for who, given in answers.items():
        right = sum(a == t for a, t in zip(given, truth, strict=True))
        print(f"  {who:34}{interval(right, len(truth))}")


def plainly(address: str, prompts: Sequence[str], max_tokens: int) -> list[str]:
    """Each prompt as one user message, greedy: how one would ask without us."""
    import openai

    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", timeout=600)

    def ask(prompt: str) -> str:
        reply = client.chat.completions.create(
            model="peer",
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_tokens,
            temperature=0,
        )
        return reply.choices[0].message.content or ""

    with ThreadPoolExecutor(SLOTS) as pool:
        return list(pool.map(ask, prompts))


def named(reply: str, labels: Sequence[str]) -> str | None:
    """The label that a free answer names first."""
    found = {label: reply.lower().find(label.lower()) for label in labels}
    there = {label: place for label, place in found.items() if place >= 0}
    return min(there, key=lambda label: there[label]) if there else None


def ask_ours(ai: Any, task: str, texts: Sequence[str], **arguments: Any) -> list[Result]:
    results: list[Result] = getattr(ai, task)(list(texts), detail=True, **arguments)
    return results


def likelier(result: Result, first: str, second: str) -> str | None:
    if not isinstance(result.value, Choice):
        return None
    chances = result.value.probabilities
    return first if chances[first] >= chances[second] else second


def sentiment(ai: Any, address: str, data: Path, count: int) -> None:
    reviews = bench_rows.records(data / "movie_reviews.jsonl")
    sample = random.Random(20).sample(reviews, count)
    texts, truth = [r["text"] for r in sample], [r["label"] for r in sample]
    results = ask_ours(ai, "analyze_sentiment", texts)
    prompts = [f"Is the sentiment of this text positive or negative?\n\n{text}" for text in texts]
    replies = plainly(address, prompts, 12)
    report(
        "movie_reviews, the likelier of positive and negative",
        truth,
        {
            "ai_analyze_sentiment": [likelier(r, "positive", "negative") for r in results],
            "llama.cpp server, plainly": [named(r, ["positive", "negative"]) for r in replies],
        },
    )


def intents(ai: Any, address: str, data: Path) -> None:
    rows = [r for r in bench_rows.records(data / "clinc150.jsonl") if r["split"] == "test"]
    label_of = {intent: label for label, intent in INTENTS.items()}
    ours = [r for r in rows if r["label"] in label_of]
    others = [r for r in rows if r["label"] not in label_of]
    sample = ours[:120] + random.Random(21).sample(others, 120)
    texts = [r["text"] for r in sample]
    truth = [label_of.get(r["label"], OTHER) for r in sample]
    labels = [*INTENTS, OTHER]
    results = ask_ours(ai, "classify", texts, labels=labels)
    listed = ", ".join(labels)
    prompts = [f"Classify this request as one of: {listed}.\n\n{text}" for text in texts]
    replies = plainly(address, prompts, 16)
    report(
        "clinc150 test, four intents and something else",
        truth,
        {
            "ai_classify": [
                r.value.label if isinstance(r.value, Choice) else None for r in results
            ],
            "llama.cpp server, plainly": [named(r, labels) for r in replies],
        },
    )


def extraction(ai: Any, address: str) -> None:
    made = invoices.invoices()
    results = ask_ours(ai, "extract", [i.text for i in made], labels=list(invoices.FIELDS))
    wanted = ", ".join(invoices.FIELDS)
    prompts = [f"Extract {wanted} from this text as a JSON object.\n\n{i.text}" for i in made]
    replies = [json_in(reply) for reply in plainly(address, prompts, 200)]
    print(f"\nextraction from {len(made)} invoices of our own, exact match for each field")
    for language in ("fr", "en"):
        print(f"  {language}{'':12}{'ai_extract':28}llama.cpp server, plainly")
        for field in invoices.FIELDS:
            rows = [n for n, i in enumerate(made) if i.language == language]
            right = sum((results[n].value or {}).get(field) == made[n].fields[field] for n in rows)
            plain = sum(str(replies[n].get(field)) == made[n].fields[field] for n in rows)
            print(f"    {field:12}{interval(right, len(rows)):28}{interval(plain, len(rows))}")


def json_in(reply: str) -> dict[str, Any]:
    """The first JSON object of a free answer, or nothing."""
    if found := re.search(r"\{.*?\}", reply, re.DOTALL):
        try:
            value = json.loads(found.group())
            return value if isinstance(value, dict) else {}
        except json.JSONDecodeError:
            return {}
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--reviews", type=int, default=800)
    parser.add_argument("--only", choices=["sentiment", "intents", "extraction"])
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        contenders.llamacpp_server(contenders.weights(chosen.model), SLOTS) as address,
        intramuros.open(chosen.model, workspace=folder, engine=chosen.engine) as ai,
    ):
        print(f"{chosen.model} on {chosen.engine}; a new workspace")
        parts: dict[str, Callable[[], None]] = {
            "sentiment": lambda: sentiment(ai, address, chosen.data, chosen.reviews),
            "intents": lambda: intents(ai, address, chosen.data),
            "extraction": lambda: extraction(ai, address),
        }
        for name, part in parts.items():
            if chosen.only in (None, name):
                part()


if __name__ == "__main__":
    main()
