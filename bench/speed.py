"""Speed side by side, in one run: ours, llama.cpp's server, and the Hugging Face pipeline.

    make bench                                   # our own sentences, qwen2.5-coder-0.5b
    make bench BENCH="--rows reviews.jsonl --column text"

Same weights (the prepared file), same rows, same machine, one contender after the other, each in a
process of its own and ours in a new workspace. Figures of one run compare; those of two do not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import rows as bench_rows

HERE = Path(__file__).parent
FEW = 48
"""Rows on which a peer's settings are tried before the best one gets all rows."""


def measure(contender: str, told: dict[str, Any]) -> dict[str, Any]:
    """One contender in a process of its own; its stderr only where it fails."""
    done = subprocess.run(
        [sys.executable, str(HERE / "contenders.py"), contender],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"error: {contender} failed\n\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def best(contender: str, told: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Try every setting on a few rows, and give all rows to the fastest."""
    few = {**told, "rows": told["rows"][:FEW]}
    speeds = []
    for choice in choices:
        tried = measure(contender, {**few, **choice})
        speeds.append(tried["rows"] / tried["seconds"])
        print(f"  {contender} {choice}: {speeds[-1]:.2f} rows/s on {FEW} rows", file=sys.stderr)
    fastest = choices[speeds.index(max(speeds))]
    return {**measure(contender, {**told, **fastest}), "setting": fastest}


def show(title: str, results: dict[str, dict[str, Any]]) -> None:
    print(f"\n{title}")
    print(f"{'':26}{'rows/s':>10}{'tok/s read':>12}{'written':>9}{'peak MB':>9}{'ours is':>9}")
    reference = results["ours"]["rows"] / results["ours"]["seconds"]
    for name, result in results.items():
        seconds = result["seconds"]
        speed = result["rows"] / seconds
        print(
            f"{name:26}{speed:>10.2f}{result['read'] / seconds:>12.0f}"
            f"{result['written'] / seconds:>9.0f}{result['peak_mb']:>9}{reference / speed:>8.2f}×"
            f"  {result.get('setting', '')}"
        )
    first = results["ours"]
    print(f"{first['rows']} rows, from ledger: {first['from_ledger']}, failed: {first['failed']}")


def peers(kind: str, told: dict[str, Any], layouts: list[str]) -> dict[str, dict[str, Any]]:
    slots = [{"slots": n, "layout": layout} for n in (1, 4, 16) for layout in layouts]
    batches = [{"batch": n} for n in (4, 16)]
    return {
        "llama.cpp server, best": best(f"llamacpp_{kind}", told, slots),
        "HF pipeline, best": best(f"pipeline_{kind}", told, batches),
    }


def kernel(count: int) -> None:
    """What is not the model: SQL in, parquet out on the scripted engine; then from the ledger."""
    with tempfile.TemporaryDirectory() as folder:
        column = pa.array([f"row number {n} of a long table" for n in range(count)])
        pq.write_table(pa.table({"text": column}), Path(folder) / "rows.parquet")
        print(f"\nkernel, scripted engine, SQL in, parquet out, {count:,} distinct rows")
        for run in ("first", "second"):
            result = measure("kernel", {"folder": folder, "run": run})
            print(
                f"{run:26}{result['rows'] / result['seconds']:>10,.0f} rows/s"
                f"{result['peak_mb']:>9} MB peak, from ledger: {result['from_ledger']:,}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, help="csv or JSON lines (default: our own sentences)")
    parser.add_argument("--column", default="text")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--choose", type=int, default=400, help="rows of the choice")
    parser.add_argument("--write", type=int, default=64, help="rows of the translation")
    parser.add_argument("--kernel", type=int, default=1_000_000, help="rows of the kernel's run")
    parser.add_argument("--only", choices=["choose", "write", "kernel"])
    chosen = parser.parse_args()
    told = {"card": chosen.model, "engine": chosen.engine}
    if chosen.only in (None, "choose"):
        told["rows"] = bench_rows.texts(chosen.rows, chosen.column, chosen.choose)
        results = {"ours": measure("ours_choose", told)}
        results.update(peers("choose", told, ["instruction_first", "document_first"]))
        show(f"analyze_sentiment, {chosen.model}", results)
    if chosen.only in (None, "write"):
        told["rows"] = bench_rows.texts(chosen.rows, chosen.column, chosen.write)
        results = {"ours": measure("ours_write", told)}
        results.update(peers("write", told, ["instruction_first"]))
        show(f"translate, 32 tokens written, {chosen.model}", results)
    if chosen.only in (None, "kernel"):
        kernel(chosen.kernel)


if __name__ == "__main__":
    main()
