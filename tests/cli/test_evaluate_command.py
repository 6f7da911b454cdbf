"""`deepscan evaluate`: what stands on the screen and in its files, scans before it, and bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.cells import cell_len

from deepscan.evaluation.figures import Evaluation
from deepscan.results import Label, Segment, VideoResult
from deepscan.runtime.store.journal import line_of
from tests.cli.console import QUICK, Ran, assert_one_line, deepscan
from tests.footage import EXAMPLES
from tests.runtime.result_rows import row

COUNT = 60
FAST = ("--resamples", "100")
RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"


def label_of(score: float) -> Label:
    return "fake" if score >= 0.7 else "real" if score < 0.3 else "uncertain"


def results_of(model: str, shift: float) -> list[VideoResult]:
    """Return results of videos in /videos, of which those with an even number are fake."""
    random = np.random.default_rng(1)
    found = []
    for number in range(COUNT):
        logit = random.normal() + (-shift if number % 2 else shift)
        score = float(1 / (1 + np.exp(-logit)))
        fields = {"score": score, "label": label_of(score), "real_below": 0.3, "fake_from": 0.7}
        peak = Segment(start_seconds=number, end_seconds=number + 0.5, score=score, clips=1)
        place = {"path": f"/videos/{number}.mp4", "codec": "h264" if number % 3 else "vp9", "model": model}
        found.append(row(number, status="scored", peak=peak, **fields, **place))
    return found


def truth_lines(count: int = COUNT) -> list[str]:
    cells = (("real", "") if number % 2 else ("fake", "swap" if number % 4 else "reenact") for number in range(count))
    return ["path,label,method", *(f"{number}.mp4,{','.join(each)}" for number, each in enumerate(cells))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the results of two detectors, in r.jsonl, and with truth.csv."""
    rows = results_of("lite", 2.0) + results_of("weak", 0.1)
    rows[4] = row(4, path="/videos/4.mp4", model="lite")
    rows[5] = row(5, path="/videos/5.mp4", model="lite", status="unreadable")
    (tmp_path / "r.jsonl").write_bytes(b"".join(line_of(each) for each in rows))
    (tmp_path / "truth.csv").write_text("\n".join([*truth_lines(COUNT - 1), "absent.mp4,fake,swap"]))
    return tmp_path


def evaluated(folder: Path, *arguments: str, **environment: str) -> Ran:
    return deepscan(
        "evaluate", "r.jsonl", "--labels", "truth.csv", *FAST, *arguments, cwd=folder, env=environment or None
    )


def test_the_screen_has_figures_with_intervals_counts_and_what_is_left_out(folder: Path) -> None:
    ran = evaluated(folder)
    assert (ran.code, ran.err) == (0, "")
    text = ran.text
    assert "1 result has no label and is left out: /videos/59.mp4." in text
    assert "1 label is of a video without a result: absent.mp4." in text
    assert "lite: 30 fakes and 29 genuine videos, 57 of 59 scored (97%); the others: 1 no_face, 1 unreadable." in text
    assert "lite: real below 0.3, fake from 0.7, uncertain between." in text
    auc = re.search(
        r"^AUC +(0\.9\d\d) \[0\.\d{3}, [01]\.\d{3}\] +(0\.\d{3}) \[0\.\d{3}, [01]\.\d{3}\]$", text, re.MULTILINE
    )
    assert auc is not None
    assert float(auc[2]) < float(auc[1])  # with errors counted
    assert re.search(r"^fakes +29/30  0\.\d\d \[", text, re.MULTILINE)
    assert re.search(r"^swap \* +15 +28/29  ", text, re.MULTILINE)
    assert re.search(r"^vp9 \*  ", text, re.MULTILINE)
    assert "* A small sample: fewer than 20 groups of either class." in text
    assert re.search(r"^  lite is better than weak by 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] in AUC\.$", text, re.MULTILINE)
    assert "On the 29 fakes and 28 genuine videos that lite and weak have both scored:" in text
    worst = re.search(
        r"^(\d+)\.mp4 +0\.\d{3}  (?:real|uncertain) +\1\.0-\1\.5 s  (?:swap|reenact)$", text, re.MULTILINE
    )
    assert worst is not None
    assert text.count("By method:") == 2


def test_the_screen_fits_a_terminal_of_80_columns(folder: Path) -> None:
    ran = evaluated(folder, COLUMNS="80", FORCE_COLOR="1")
    plain = re.sub(r"\x1b\[[\d;]*m", "", ran.text)
    assert "false alarms" in plain
    assert [line for line in plain.splitlines() if cell_len(line) > 80] == []


def test_few_factors_and_few_errors_are_shown_if_asked_for(folder: Path) -> None:
    ran = evaluated(folder, "--by", "codec", "--worst", "1")
    assert "By codec:" in ran.text
    assert "By method:" not in ran.text
    assert len(re.findall(r"^\d+\.mp4 ", ran.text, re.MULTILINE)) <= 4
    assert_one_line(evaluated(folder, "--by", "color"), 2)


def test_json_and_csv_hold_every_figure(folder: Path) -> None:
    ran = evaluated(folder, "--json", "e.json", "--csv", "e.csv")
    assert ran.code == 0, ran.err
    found = msgspec.json.decode((folder / "e.json").read_bytes(), type=Evaluation)
    assert [each.detector for each in found.detectors] == ["lite", "weak"]
    rows = list(csv.DictReader(io.StringIO((folder / "e.csv").read_text())))
    lite = found.detectors[0]
    (auc,) = (
        each
        for each in rows
        if (each["detector"], each["factor"], each["unscored"], each["figure"])
        == ("lite", "overall", "as errors", "auc")
    )
    assert float(auc["estimate"]) == lite.overall.as_errors["auc"].value
    assert (auc["fakes"], auc["scored_fakes"]) == ("30", "29")
    (gain,) = (each for each in rows if (each["factor"], each["figure"]) == ("difference", "auc"))
    assert (gain["detector"], float(gain["low"])) == ("lite minus weak", found.differences[0].figures["auc"].low)
    assert {each["value"] for each in rows if each["factor"] == "method"} == {"swap", "reenact", "macro mean"}
    assert evaluated(folder, "--json", "e.json").code == 0  # its own file is replaced
    printed = evaluated(folder, "--csv", "-")
    assert printed.out == (folder / "e.csv").read_bytes()
    assert "AUC" in printed.err


def test_plots_and_the_page_are_written_where_asked(folder: Path) -> None:
    for _ in range(2):  # its own files are replaced
        ran = evaluated(folder, "--by", "method", "--worst", "1", "--plots", "plots", "--html", "e.html")
        assert ran.code == 0, ran.err
    assert {"roc.svg", "det.svg", "reliability.svg", "auc.svg"} <= {path.name for path in folder.glob("plots/*")}
    assert "is better than weak by" in (folder / "e.html").read_text()


def test_a_missing_package_is_named_before_anything_is_computed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    ran = evaluated(folder, "--html", "e.html")
    assert_one_line(ran, 3)
    assert "--html needs the package matplotlib: run `" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json", "-", "--csv", "-"], "exclude each other"),
        (["--json", "truth.csv"], "was not written by deepscan"),
        (["--csv", "r.jsonl"], "was not written by deepscan"),
        (["--html", "truth.csv"], "was not written by deepscan"),
        (["--resamples", "1"], "whole number from 2"),
        (["--split", "test"], "has no split 'test'"),
        (["--real", "."], "--labels excludes --real"),
        (["--frames", "3"], "scanned already"),
    ],
)
def test_wrong_usage_is_refused_in_a_sentence(folder: Path, arguments: list[str], said: str) -> None:
    ran = evaluated(folder, *arguments)
    assert_one_line(ran, 2)
    assert said in ran.err


@pytest.mark.parametrize("given", [[], ["r.jsonl"], ["absent.jsonl", "--labels", "truth.csv"], ["--real", "absent"]])
def test_missing_input_is_named(folder: Path, given: list[str]) -> None:
    assert_one_line(deepscan("evaluate", *given, cwd=folder), 2)


BAD_LABELS: dict[str, bytes] = {
    "is empty": b"",
    "has no rows": b"path,label\n",
    "has no such columns": b"file,verdict\n1.mp4,fake\n",
    "has zeros and ones": b"path,label\n1.mp4,1\n",
    "contradicts itself": b"path,label\n1.mp4,fake\n1.mp4,real\n",
    "is of other videos": b"path,label\nother.mp4,fake\n",
    "is no text": bytes(range(256)) * 20,
    "has broken quotes": b'path,label\n"1.mp4,fake\n',
    "has long rows": b"path,label\n1.mp4,fake,x,y\n",
    "is UTF-16": "path,label\n1.mp4,fake\n".encode("utf-16"),
}


@pytest.mark.parametrize("labels", BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_bad_labels_are_refused_in_a_sentence(folder: Path, labels: bytes) -> None:
    (folder / "truth.csv").write_bytes(labels)
    assert_one_line(evaluated(folder), 2)


def of_another_version(lines: bytes) -> bytes:
    return lines.replace(b'"status"', b'"state"')


BAD_RESULTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "of another version": of_another_version,
    "without columns": lambda _: b'{"path": "/videos/1.mp4", "score": 0.5}\n',
    "a picture": lambda _: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9,
    "a list": lambda _: b"[1, 2, 3]\n",
}


@pytest.mark.parametrize("damage", BAD_RESULTS.values(), ids=BAD_RESULTS.keys())
def test_bad_results_are_refused_in_a_sentence(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    (folder / "r.jsonl").write_bytes(damage((folder / "r.jsonl").read_bytes()))
    assert_one_line(evaluated(folder), 2)


def test_labels_that_are_the_results_are_refused(folder: Path) -> None:
    ran = deepscan("evaluate", "r.jsonl", "--labels", "./r.jsonl", cwd=folder)
    assert_one_line(ran, 2)
    assert "holds the results" in ran.err


def test_a_byte_order_mark_and_results_of_some_other_version_do_no_harm(folder: Path) -> None:
    (folder / "truth.csv").write_bytes(b"\xef\xbb\xbf" + (folder / "truth.csv").read_bytes())
    with open(folder / "r.jsonl", "ab") as file:
        file.write(of_another_version(line_of(results_of("lite", 1.0)[0])))
    ran = evaluated(folder)
    assert ran.code == 0, ran.err
    assert "1 damaged line of r.jsonl left out." in ran.text


def test_no_number_as_a_score_is_counted_and_left_out(folder: Path) -> None:
    records = [each.to_dict() for each in results_of("lite", 2.0)]
    records[7]["score"] = float("nan")
    (folder / "r.jsonl").write_text("\n".join(map(json.dumps, records)))
    ran = evaluated(folder)
    assert ran.code == 0, ran.err
    assert "58 of 59 scored (98%); the others: 1 without a valid number." in ran.text
    assert "1 score is no number from 0 to 1 and left out." in ran.text


@pytest.mark.parametrize(("kept", "lacking"), [("real", "there is no fake"), ("fake", "there is no genuine video")])
def test_one_class_alone_gives_what_it_can(folder: Path, kept: str, lacking: str) -> None:
    lines = truth_lines()
    (folder / "truth.csv").write_text("\n".join([lines[0], *(line for line in lines if f",{kept}," in line)]))
    ran = evaluated(folder)
    assert ran.code == 0, ran.err
    assert re.search(r"^AUC +-", ran.text, re.MULTILINE)
    assert lacking in ran.text
    assert re.search(r"^Brier score +0\.\d{3} \[0", ran.text, re.MULTILINE)
    assert re.search(rf"^{'genuine' if kept == 'real' else 'fakes'} +\d+/30  [01]\.\d\d \[", ran.text, re.MULTILINE)


def test_the_recipe_scans_first_and_evaluates_again_as_printed(tmp_path: Path) -> None:
    (section,) = re.findall(r"^## How often it is wrong on your videos\n(.*?)^## ", RECIPES.read_text(), re.M | re.S)
    first, again = re.findall(r"^    (deepscan evaluate .*)$", section, re.MULTILINE)
    for place, name in (("originals", "astronaut_h264.mp4"), ("swaps/faceswap", "swapped_face_av1.mp4")):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(EXAMPLES / name, tmp_path / place)
    (tmp_path / "originals" / "cut.mp4").write_bytes((EXAMPLES / "astronaut_h264.mp4").read_bytes()[:3000])
    ran = deepscan(*first.split()[1:], "--frames", "3", cwd=tmp_path)
    assert ran.code == 1, ran.err  # one video could not be scanned
    assert "Labels: originals, swaps (real/ and fake/METHOD/)" in ran.text
    assert "1 fake and 2 genuine videos, 2 of 3 scored (67%); the others: 1 unreadable." in ran.text
    assert "By method:" not in ran.text or "faceswap" in ran.text
    again_at_once = deepscan(*first.split()[1:], "--frames", "3", "--quiet", cwd=tmp_path)
    assert (again_at_once.code, again_at_once.out) == (1, ran.out)
    assert again_at_once.err == ""
    lines = ["path,label,method", "swapped_face_av1.mp4,fake,faceswap", "astronaut_h264.mp4,real,", "cut.mp4,real,"]
    (tmp_path / "truth.csv").write_text("\n".join(lines))
    ran = deepscan(*again.split()[1:], cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["figures.csv", "labeled.csv", "truth.csv"]


def test_a_folder_with_a_known_layout_brings_its_labels(tmp_path: Path) -> None:
    data = tmp_path / "data" / "Celeb-DF"
    for place, name in (
        ("Celeb-real/id1_0001.mp4", "astronaut_h264.mp4"),
        ("Celeb-synthesis/id1_id2_0001.mp4", "swapped_face_av1.mp4"),
        ("unlabeled/x.mp4", "phone_portrait_hevc.mp4"),
    ):
        (data / place).parent.mkdir(parents=True)
        os.link(EXAMPLES / name, data / place)
    (data / "List_of_testing_videos.txt").write_text("1 Celeb-real/id1_0001.mp4\n0 Celeb-synthesis/id1_id2_0001.mp4\n")
    ran = deepscan("evaluate", data, "--split", "test", *QUICK, *FAST, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert f"Labels: {data} (Celeb-DF v1)" in ran.text
    assert "1 fake and 1 genuine video, 2 of 2 scored (100%)." in ran.text
    assert (tmp_path / "results.csv").exists()


def test_a_per_frame_file_adds_figures_of_crops(folder: Path) -> None:
    ran = deepscan("scan", EXAMPLES, *QUICK, "--out", "s.csv", "--per-frame", "frames.parquet", cwd=folder)
    assert ran.code == 0, ran.err
    (folder / "few.csv").write_text("path,label\nswapped_face_av1.mp4,fake\ntwo_faces_vp9.webm,real\n")
    ran = deepscan(
        "evaluate",
        "s.jsonl",
        "--labels",
        "few.csv",
        *FAST,
        "--per-frame",
        "frames.parquet",
        "--json",
        "f.json",
        cwd=folder,
    )
    assert ran.code == 0, ran.err
    assert "Per crop or clip, with the label of its video:" in ran.text
    (found,) = msgspec.json.decode((folder / "f.json").read_bytes(), type=Evaluation).detectors
    assert found.frame_level is not None
    assert (found.frame_level.fakes, found.frame_level.genuine) == (3, 6)
    assert found.frame_level.figures["auc"].value == 1.0
    refused = deepscan("evaluate", "s.jsonl", "--labels", "few.csv", "--per-frame", "absent.parquet", cwd=folder)
    assert_one_line(refused, 2)
    assert "absent.parquet cannot be read" in refused.err
