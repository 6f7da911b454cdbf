"""What scripts rely on: exit codes, records on stdout, empty folders and lists, a CSV for Excel."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from deepscan.cli.app import app
from deepscan.runtime.store.writers import BOM, CSV_HEADER
from tests.cli.console import QUICK, assert_one_line, deepscan
from tests.footage import ASTRONAUT, NO_FACE, SWAPPED


def test_records_on_stdout_are_in_the_order_of_the_inputs_and_the_label_decides_the_exit_code(tmp_path: Path) -> None:
    given = [NO_FACE, tmp_path / "missing.mp4", SWAPPED, ASTRONAUT]
    log = tmp_path / "scan.log"
    ran = deepscan(
        "scan", *given, "--frames", "3", "--jsonl", "-", "--fail-on", "fake", "--log", log, "--jobs", "3", cwd=tmp_path
    )
    assert ran.code == 4  # and not 1, though a file is missing
    records: list[dict[str, Any]] = [json.loads(line) for line in ran.text.splitlines()]
    assert [record["path"] for record in records] == [str(path) for path in given]
    assert [record["label"] for record in records] == [None, None, "fake", "real"]
    assert (records[2]["real_below"], records[2]["fake_from"]) == (0.5, 0.85)
    assert records[2]["track_details"][0]["timeline"]
    assert os.listdir(tmp_path) == ["scan.log"]
    finished = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "file_finished"]
    assert {(line["file"], line["score"], line["label"]) for line in finished} == {
        (record["path"], record["score"], record["label"]) for record in records
    }
    saved = tmp_path / "saved.jsonl"
    saved.write_bytes(ran.out)
    assert "4 rows: 1 no_face, 2 scored (1 fake, 0 uncertain, 1 real), 1 unreadable." in deepscan("show", saved).text


def test_labels_that_are_not_asked_for_do_not_change_the_exit_code(tmp_path: Path) -> None:
    uncertain = ("scan", SWAPPED, *QUICK, "--quiet", "--threshold", "0.99", "--fail-on")
    assert deepscan(*uncertain, "fake", cwd=tmp_path).code == 0
    assert deepscan(*uncertain, "uncertain", cwd=tmp_path).code == 4  # also of what earlier runs have found


def test_a_csv_for_excel_begins_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    printed = deepscan("scan", "empty", "--csv-bom", "--out", "-", "--quiet", cwd=tmp_path)
    assert printed.out.decode() == BOM + CSV_HEADER
    assert deepscan("scan", "empty", "--csv-bom", "--quiet", cwd=tmp_path).code == 0
    assert (tmp_path / "results.csv").read_bytes().startswith(b"\xef\xbb\xbfpath,status,")


@pytest.mark.parametrize("arguments", [["empty"], ["texts"], ["empty", "texts"], ["--from-file", "-"]])
def test_nothing_found_is_no_row_and_no_failure(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("not a video")
    ran = deepscan("scan", *arguments, "--out", "r.csv", cwd=tmp_path)
    assert (ran.code, ran.out) == (0, b"")
    assert (tmp_path / "r.csv").read_text() == CSV_HEADER
    assert ran.err.count("deepscan: ") == max(1, len([name for name in arguments if not name.startswith("-")]))
    assert "0 inputs" in ran.err
    assert "frames" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--jsonl", "r.jsonl"], "--out FILE.csv"),
        (["--jsonl", "-", "--out", "r.csv"], "exclude each other"),
        (["--jsonl", "-", "--out", "-"], "exclude each other"),
        (["--jsonl", "-", "--csv-bom"], "--csv-bom applies to a CSV"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    ran = deepscan("scan", NO_FACE, *arguments, cwd=tmp_path)
    assert_one_line(ran, 2)
    assert said in ran.err
    assert os.listdir(tmp_path) == []


def test_a_dry_run_of_what_would_be_printed_lists_everything(tmp_path: Path) -> None:
    ran = deepscan("scan", NO_FACE, "--dry-run", "--jsonl", "-", cwd=tmp_path)
    assert (ran.code, ran.text) == (0, f"1\tscan\t{NO_FACE}\n")
    assert "1 input: 1 to scan, 0 done, 0 with the same content as others." in ran.err


COMMANDS = ("", "scan", "show", "models", "doctor", "export", "bench", "weights", "weights add", "weights remove")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_short_too_and_fits_eighty_columns(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    texts = []
    for option in ("-h", "--help"):
        with pytest.raises(SystemExit) as ended:
            app([*command.split(), option])
        assert ended.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert max(map(len, texts[0].splitlines())) <= 80
    if command == "scan":
        panels = ("Options", "Inputs", "What is scored", "Speed", "Limits", "Results", "Going on")
        places = [texts[0].index(f"─ {panel} ─") for panel in panels]
        assert places == sorted(places)
    if command in ("scan", "show", "export", "bench"):
        described, _, examples = texts[0].partition("Examples:")
        assert f"deepscan {command} " in examples
        assert [option for option in re.findall(r"--[a-z0-9-]+", examples) if f" {option} " not in described] == []
