"""The shell on the scripted engine: what goes to stdout and stderr, and the exit codes."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from intramuros.cli import main

LETTERS = "id,text\n1,The lamp is broken\n2,Merci pour tout\n3,\n"


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A csv file in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "letters.csv"
    path.write_text(LETTERS, encoding="utf-8")
    return path


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_sql_prints_results_alone_on_stdout(letters: Path, capsys: Any) -> None:
    query = "select id, ai_analyze_sentiment(text) as felt from 'letters.csv' order by id"
    assert main(["sql", "--engine", "scripted", query]) == 0
    out, err = capsys.readouterr()
    assert out == "id,felt\n1,positive\n2,positive\n3,\n"
    assert "asked: 2, from ledger: 0, failed: 0" in err


def test_a_second_run_is_answered_from_the_ledger(letters: Path, capsys: Any) -> None:
    query = "select ai_gen(text) from 'letters.csv'"
    main(["sql", "--engine", "scripted", query])
    first = capsys.readouterr()
    assert main(["sql", "--engine", "scripted", query]) == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert "asked: 0, from ledger: 2" in second.err


def test_json_gives_a_line_for_each_row(letters: Path, capsys: Any) -> None:
    query = "select ai_analyze_sentiment(text, detail => true) as f from 'letters.csv' where id = 1"
    main(["sql", "--engine", "scripted", "--format", "json", query])
    (row,) = lines(capsys.readouterr().out)
    assert row["f"]["value"] == "positive"
    assert row["f"]["probability"] == 1.0
    assert row["f"]["card"] == "scripted"


def test_a_table_is_aligned(letters: Path, capsys: Any) -> None:
    main(["sql", "--engine", "scripted", "--format", "table", "select id, text from 'letters.csv'"])
    assert capsys.readouterr().out.splitlines()[2] == " 1  The lamp is broken"


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
def test_output_is_a_file_and_stdout_stays_empty(letters: Path, capsys: Any, suffix: str) -> None:
    query = "select id, ai_gen(text) as said from 'letters.csv'"
    assert main(["sql", "--engine", "scripted", "--output", f"out.{suffix}", query]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"3 rows written to out.{suffix}" in err
    if suffix == "parquet":
        assert pq.read_table("out.parquet")["said"].to_pylist()[1] == "Merci pour tout"


def test_the_query_may_come_from_a_file(letters: Path, capsys: Any) -> None:
    Path("query.sql").write_text("select 1 as one")
    assert main(["sql", "--engine", "scripted", "--file", "query.sql"]) == 0
    assert capsys.readouterr().out == "one\n1\n"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        pytest.param(["sql"], 2, "give a statement or --file", id="no-query"),
        pytest.param(["sql", "selec 1"], 2, "syntax error", id="syntax"),
        pytest.param(
            ["sql", "select * from 'none.csv'"], 2, "no file named 'none.csv'", id="no-file"
        ),
        pytest.param(["sql", "select ai_clasify('x')"], 2, "ai_clasify", id="unknown-function"),
        pytest.param(["sql", "select ai_gen(7)"], 2, "INTEGER", id="not-text"),
        pytest.param(["sql", "select ai_classify('x', ['a'])"], 2, "1 labels", id="one-label"),
        pytest.param(
            ["sql", "select ai_classify('x', ['a', 'a'])"], 2, "given twice", id="duplicate-label"
        ),
        pytest.param(
            ["sql", "select ai_extract('x', 'not json')"], 2, "schema is not JSON", id="no-schema"
        ),
        pytest.param(["sql", "--file", "none.sql"], 2, "no file 'none.sql'", id="no-sql-file"),
        pytest.param(
            ["sql", "--output", "out.xls", "select 1"], 2, "does not say what to write", id="suffix"
        ),
        pytest.param(["run", "gen", "none.txt"], 2, "no file 'none.txt'", id="no-input"),
    ],
)
def test_mistakes_get_a_sentence_and_exit_code_2(
    letters: Path, capsys: Any, arguments: list[str], code: int, sentence: str
) -> None:
    assert main([*arguments, "--engine", "scripted"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: " in err
    assert sentence in err
    assert "Traceback" not in err


def test_an_unknown_model_suggests_the_nearest(
    letters: Path, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTRAMUROS_HOME", str(tmp_path / "home"))
    assert main(["sql", "--model", "qwen2.5-codr-1.5b", "select ai_gen('x')"]) == 2
    err = capsys.readouterr().err
    assert "no model named 'qwen2.5-codr-1.5b'" in err
    assert "qwen2.5-coder-1.5b" in err


def test_a_model_that_was_not_pulled_says_how_to(
    letters: Path, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTRAMUROS_HOME", str(tmp_path / "home"))
    assert main(["sql", "select ai_gen('x')"]) in (1, 2)
    assert "intramuros models pull qwen2.5-coder-1.5b" in capsys.readouterr().err


def test_failed_rows_are_null_and_can_be_listed(letters: Path, capsys: Any) -> None:
    query = (
        "create temp table t as "
        "select ai_gen(text || chr(0)) as said from 'letters.csv' where id < 3;"
        "select function, kind, sentence from ai_failures()"
    )
    assert main(["sql", "--engine", "scripted", "--format", "json", query]) == 0
    out, err = capsys.readouterr()
    assert [row["kind"] for row in lines(out)] == ["nul_byte", "nul_byte"]
    assert "failed: 2" in err


def test_on_error_raise_ends_the_run_with_code_1(letters: Path, capsys: Any) -> None:
    query = "select ai_gen(text || chr(0)) from 'letters.csv'"
    assert main(["sql", "--engine", "scripted", "--on-error", "raise", query]) == 1
    assert "NUL byte" in capsys.readouterr().err


def test_max_error_ratio_ends_the_run_with_code_1(letters: Path, capsys: Any) -> None:
    query = "select ai_gen(text || chr(0)) from 'letters.csv'"
    assert main(["sql", "--engine", "scripted", "--max-error-ratio", "0.5", query]) == 1
    assert "more than max_error_ratio 0.5 allows" in capsys.readouterr().err


def test_run_reads_lines_and_gives_a_line_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    assert main(["run", "gen", "--engine", "scripted"]) == 0
    assert capsys.readouterr().out == "one\ntwo\n"


def test_run_takes_its_flags_from_the_signature(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Facture 4711\n"))
    assert main(["run", "extract", "--labels", "number,company", "--engine", "scripted"]) == 0
    assert lines(capsys.readouterr().out) == [{"number": "", "company": ""}]


def test_run_reads_json_lines_and_gives_details(letters: Path, capsys: Any) -> None:
    Path("rows.jsonl").write_text('{"body": "one"}\n{"body": null}\n')
    flags = ["--field", "body", "--detail", "--engine", "scripted"]
    assert main(["run", "analyze_sentiment", "rows.jsonl", *flags]) == 0
    first, second = lines(capsys.readouterr().out)
    assert (first["value"], first["probability"], first["card"]) == ("positive", 1.0, "scripted")
    assert second["value"] is None
    assert second["failure"] is None


def test_run_takes_the_whole_input_as_one_text(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    main(["run", "summarize", "--whole", "--max-words", "5", "--engine", "scripted"])
    assert capsys.readouterr().out == "one\ntwo\n"


def test_tasks_are_listed_with_their_arguments(capsys: Any) -> None:
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert "ai_translate(content, to_lang)" in out
    assert "ai_summarize(content, [max_words])" in out


def test_models_are_listed(capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTRAMUROS_HOME", str(tmp_path))
    assert main(["models", "list"]) == 0
    assert "smollm2-135m" in capsys.readouterr().out
    assert main(["models", "show", "smollm2-135m"]) == 0
    assert "Apache-2.0" in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_error(letters: Path) -> None:
    command = (
        f"{sys.executable} -m intramuros.cli sql --engine scripted 'from range(200000)' | head -1"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "range\n"
    assert "Traceback" not in done.stderr
