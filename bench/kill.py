"""kill -9 in the middle of 2,000 rows, then the same again: how many rows are asked twice.

    python bench/kill.py --model smollm2-135m --after 20

The first run is killed; the ledger is counted; the second run says how many it had to ask. Asked
twice are the rows that were in flight: those that the first run began and could not record.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rows as bench_rows

from intramuros.ledger import Ledger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--after", type=float, default=20, help="seconds until kill -9")
    chosen = parser.parse_args()
    own = bench_rows.own_sentences(400)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        lines = (f'"{own[n % 400]} Letter {n}."' for n in range(chosen.rows))
        table.write_text("text\n" + "\n".join(lines), encoding="utf-8")
        query = f"select ai_analyze_sentiment(text) as felt, count(*) from '{table}' group by 1"
        workspace = Path(folder) / "workspace"
        command = [sys.executable, "-m", "intramuros.cli", "sql", "--model", chosen.model, query]
        environment = {**os.environ, "INTRAMUROS_WORKSPACE": str(workspace)}
        first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        time.sleep(chosen.after)
        first.send_signal(signal.SIGKILL)
        first.wait()
        ledger = Ledger(workspace)
        kept = ledger.counts().answers
        ledger.close()
        second = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        found = re.search(r"asked: ([\d,]+), from ledger: ([\d,]+)", second.stderr)
        assert found, second.stderr
        asked, remembered = (int(number.replace(",", "")) for number in found.groups())
        print(f"killed after {chosen.after:g} s: {kept} of {chosen.rows} rows in the ledger")
        print(f"second run: asked {asked}, from ledger {remembered}; lost: {kept - remembered}")
        assert asked + remembered == chosen.rows
        assert remembered == kept


if __name__ == "__main__":
    main()
