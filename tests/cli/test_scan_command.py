from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from deepscan.runtime.artifacts.artifacts import embedded_manifest
from tests.cli.console import DEEPSCAN, ENVIRONMENT, QUICK, Ran, deepscan, rows_of
from tests.footage import ASTRONAUT, EXAMPLES, NO_FACE, SWAPPED, TWO_FACES, example_frames, portrait, write_video
from tests.runtime.watchdog import wait_until

NAMES = ["astronaut_h264.mp4", "no_face_mpeg4.avi", "phone_portrait_hevc.mp4", "swapped_face_av1.mp4"]
NAMES += ["two_faces_vp9.webm"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """The scan of the README: every frame of every example."""
    out = tmp_path_factory.mktemp("full") / "results.csv"
    return deepscan("scan", EXAMPLES, "--out", out, "--stats"), out


def test_the_examples_get_their_labels(examples: tuple[Ran, Path]) -> None:
    ran, out = examples
    rows = {Path(row["path"]).name: row for row in rows_of(out.read_bytes())}
    assert ran.code == 0
    assert list(rows) == NAMES
    assert {name: (row["status"], row["label"]) for name, row in rows.items()} == {
        "astronaut_h264.mp4": ("scored", "real"),
        "no_face_mpeg4.avi": ("no_face", ""),
        "phone_portrait_hevc.mp4": ("scored", "real"),
        "swapped_face_av1.mp4": ("scored", "fake"),
        "two_faces_vp9.webm": ("scored", "real"),
    }
    assert float(rows["astronaut_h264.mp4"]["score"]) < 0.2
    assert float(rows["swapped_face_av1.mp4"]["score"]) > 0.85
    assert [rows[name]["faces"] for name in NAMES] == ["1", "0", "1", "1", "2"]
    assert [rows[name]["codec"] for name in NAMES] == ["h264", "mpeg4", "hevc", "av1", "vp9"]
    assert rows["two_faces_vp9.webm"]["tracks"] == "2"
    assert rows["no_face_mpeg4.avi"]["score"] == rows["no_face_mpeg4.avi"]["peak_score"] == ""


def test_the_table_in_the_readme_is_what_the_scan_gives(examples: tuple[Ran, Path]) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in readme.splitlines() if line[:2] == "| "]
    header = next(line for line in lines if line[:2] == ["path", "status"])
    shown = [dict(zip(header, line, strict=True)) for line in lines if line[0].startswith("examples/")]
    rows = rows_of(examples[1].read_bytes())
    assert [Path(row["path"]).name for row in shown] == NAMES
    for said, row in zip(shown, rows, strict=True):
        for column in ("status", "label", "faces", "tracks", "frames", "codec"):
            assert said[column] == row[column]
        for column in ("score", "peak_score"):  # other processors may round differently
            assert said[column] == row[column] == "" or float(said[column]) == pytest.approx(
                float(row[column]), abs=2e-3
            )


def test_the_rows_say_how_they_were_made(examples: tuple[Ran, Path]) -> None:
    rows = rows_of(examples[1].read_bytes())
    assert {row["weights_sha256"] for row in rows} == {embedded_manifest("lite").weights_sha256}
    assert {(row["model"], row["precision"]) for row in rows} == {("lite", "fp32")}
    assert all(row["backend"].startswith("onnxruntime-") for row in rows)
    (settings,) = {row["settings_sha256"] for row in rows}
    assert len(settings) == 64


def test_the_jsonl_beside_it_has_the_tracks_of_each_video(examples: tuple[Ran, Path]) -> None:
    lines = examples[1].with_suffix(".jsonl").read_text().splitlines()  # in the order in which they were finished
    records = sorted(map(json.loads, lines), key=lambda record: str(record["path"]))
    assert [Path(record["path"]).name for record in records] == NAMES
    assert [len(record["track_details"]) for record in records] == [1, 0, 1, 1, 2]
    for record in records:
        assert record["score"] == max((track["score"] for track in record["track_details"]), default=None)
        assert all(sum(part["clips"] for part in t["timeline"]) == t["clips"] for t in record["track_details"])


def test_the_screen_shows_a_table_totals_the_stages_and_where_results_are(examples: tuple[Ran, Path]) -> None:
    ran, out = examples
    assert ran.out == b""
    assert all(name in ran.err for name in NAMES)
    others = len([path for path in EXAMPLES.iterdir() if path.is_file()]) - len(NAMES)
    passed_over = f"passed over in folders: {others} other files"
    assert f"5 inputs: 1 no_face, 4 scored (1 fake, 0 uncertain, 3 real); {passed_over}" in ran.err.replace("\n", " ")
    assert f"Written: {out} and results.jsonl" in ran.err
    stages = [line.split()[0] for line in ran.err.partition("Where the time went")[2].splitlines() if line.strip()]
    assert [stage for stage in stages if stage in ("decode", "faces", "infer")] == ["decode", "faces", "infer"]
    assert "\x1b" not in ran.err


def test_a_good_scan_may_be_silent(tmp_path: Path) -> None:
    ran = deepscan("scan", NO_FACE, *QUICK, "--quiet", "--stats", cwd=tmp_path)
    assert (ran.code, ran.out, ran.err) == (0, b"", "")
    assert sorted(os.listdir(tmp_path)) == ["results.csv", "results.jsonl"]


def test_with_a_dash_stdout_has_the_csv_and_nothing_else_and_no_file_is_written(tmp_path: Path) -> None:
    given = [SWAPPED, tmp_path / "missing.mp4", NO_FACE, ASTRONAUT]
    ran = deepscan("scan", *given, *QUICK, "--out", "-", "--jobs", "3", cwd=tmp_path)
    assert ran.code == 1
    assert [row["path"] for row in ran.rows] == [str(path) for path in given]
    assert [row["status"] for row in ran.rows] == ["scored", "unreadable", "no_face", "scored"]
    assert "4 inputs: 1 no_face, 2 scored (1 fake, 0 uncertain, 1 real), 1 unreadable" in ran.err
    assert os.listdir(tmp_path) == []


def test_verbose_names_each_file_as_it_is_done(tmp_path: Path) -> None:
    ran = deepscan("scan", SWAPPED, NO_FACE, *QUICK, "--verbose", cwd=tmp_path)
    score = float(rows_of((tmp_path / "results.csv").read_bytes())[0]["score"])
    lines = [line.rstrip() for line in ran.err.splitlines()]
    assert f"{SWAPPED}: scored {score:.4f} fake" in lines
    assert f"{NO_FACE}: no_face" in lines


def test_a_threshold_moves_the_labels_but_not_the_scores(tmp_path: Path) -> None:
    rows = {
        threshold: deepscan("scan", ASTRONAUT, SWAPPED, *QUICK, "-q", "--out", "-", *threshold).rows
        for threshold in [(), ("--threshold", "0.95"), ("--threshold", "0.001")]
    }
    labels = [[row["label"] for row in found] for found in rows.values()]
    assert labels == [["real", "fake"], ["real", "uncertain"], ["fake", "fake"]]
    assert len({tuple(row["score"] for row in found) for found in rows.values()}) == 1
    assert len({found[0]["settings_sha256"] for found in rows.values()}) == 3


def test_the_mean_over_two_faces_is_less_than_the_highest() -> None:
    common = ("scan", TWO_FACES, "--frames", "4", "--quiet", "--out", "-")
    (highest,), (mean,) = deepscan(*common).rows, deepscan(*common, "--aggregate", "mean").rows
    assert 0.0 < float(mean["score"]) < float(highest["score"])
    assert highest["settings_sha256"] != mean["settings_sha256"]


def test_frames_alone_means_quick_and_looks_at_so_many() -> None:
    row = deepscan("scan", ASTRONAUT, "--frames", "3", "--quiet", "--out", "-").rows[0]
    named = deepscan("scan", ASTRONAUT, "--sampling", "quick", "--frames", "3", "--quiet", "--out", "-").rows[0]
    assert row["frames"] == "3"
    assert {**row, "elapsed_seconds": ""} == {**named, "elapsed_seconds": ""}


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_paths_come_from_stdin_after_those_of_the_command_line(tmp_path: Path, separator: str) -> None:
    listed = separator.join(["b.mp4", "a name, with.mp4", ""]).encode()
    ran = deepscan("scan", "z.mp4", "--from-file", "-", "--out", "-", "-q", cwd=tmp_path, stdin=listed)
    assert [row["path"] for row in ran.rows] == ["z.mp4", "b.mp4", "a name, with.mp4"]


def test_paths_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"b.mp4\na.mp4\n")
    ran = deepscan("scan", "--from-file", "list", "--out", "-", "-q", cwd=tmp_path)
    assert [row["path"] for row in ran.rows] == ["b.mp4", "a.mp4"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], ["a.mp4", "b.avi", "in/c.mp4"]),
        (["--no-recursive"], ["a.mp4", "b.avi"]),
        (["--include", "*.mp4", "--include", "*.txt"], ["a.mp4", "note.txt", "in/c.mp4"]),
        (["--exclude", "in/*", "--exclude", "b.*"], ["a.mp4"]),
    ],
)
def test_a_folder_is_searched_as_asked(tmp_path: Path, options: list[str], found: list[str]) -> None:
    for name in ("a.mp4", "b.avi", "note.txt", "in/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    ran = deepscan("scan", ".", "--out", "-", "-q", *options, cwd=tmp_path)
    assert [row["path"] for row in ran.rows] == [f"./{name}" for name in found]


def test_results_inside_the_scanned_folder_are_no_input_the_next_time(tmp_path: Path) -> None:
    shutil.copyfile(NO_FACE, tmp_path / "a.avi")
    for _ in range(2):
        assert deepscan("scan", ".", *QUICK, "-q", cwd=tmp_path).code == 0
        assert [row["path"] for row in rows_of((tmp_path / "results.csv").read_bytes())] == ["./a.avi"]
    assert sorted(os.listdir(tmp_path)) == ["a.avi", "results.csv", "results.jsonl"]


@pytest.mark.parametrize(
    "name", [b"not utf-8 \xff\xc3.avi", b'comma, "quote" and\nnewline.avi', b"=formula.avi", "視频.avi".encode()]
)
def test_any_file_name_comes_back(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    shutil.copyfile(NO_FACE, path)
    ran = deepscan("scan", ".", *QUICK, cwd=tmp_path)
    assert ran.code == 0
    (row,) = rows_of((tmp_path / "results.csv").read_bytes())
    assert os.fsencode(row["path"]) == b"./" + name
    record = json.loads((tmp_path / "results.jsonl").read_text())
    assert os.fsencode(record["path"]) == b"./" + name


def test_a_name_that_is_no_utf8_comes_back_from_stdout_byte_by_byte(tmp_path: Path) -> None:
    name = b"missing \xff\xc3.avi"
    ran = deepscan("scan", "--from-file", "-", "--out", "-", "-q", cwd=tmp_path, stdin=name)
    assert name in ran.out
    assert os.fsencode(ran.rows[0]["path"]) == name


def test_a_path_that_begins_like_a_formula_is_neutralized(tmp_path: Path) -> None:
    shutil.copyfile(NO_FACE, tmp_path / "=1+1.avi")
    assert deepscan("scan", "=1+1.avi", *QUICK, "-q", "--out", "-", cwd=tmp_path).rows[0]["path"] == "'=1+1.avi"


def test_a_name_with_a_terminals_escape_sequence_cannot_steer_the_terminal(tmp_path: Path) -> None:
    for name in ("good\x1b[31m\x07.avi", "bad\x1b[2J\r.avi"):
        (tmp_path / name).write_bytes(NO_FACE.read_bytes() if name.startswith("good") else b"")
    ran = deepscan("scan", ".", *QUICK, "--verbose", "--out", "out\x1b[31m.csv", cwd=tmp_path)
    refused = deepscan("scan", "good\x1b[31m\x07.avi", "--out", "good\x1b[31m\x07.avi", cwd=tmp_path)
    assert (ran.code, refused.code) == (1, 2)
    for text, shown in ((ran.err, ["good\\x1b[31m\\x07.avi", "out\\x1b[31m.csv"]), (refused.err, ["good\\x1b"])):
        assert all(part in text for part in shown)
        assert [sign for sign in text if not sign.isprintable() and sign != "\n"] == []


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that takes many times longer than a test waits for."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_video(path, [portrait(640, 360)] * 900, options={"preset": "ultrafast"})


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_what_has_begun_and_the_next_run_goes_on_from_there(
    tmp_path: Path, sent: signal.Signals
) -> None:
    videos = [str(NO_FACE)]
    for number in range(5):
        path = tmp_path / f"{number}.mp4"
        videos.append(str(write_video(path, example_frames(ASTRONAUT, 10 + number), options={"preset": "ultrafast"})))
    command = [DEEPSCAN, "scan", *videos, "--jobs", "1", "--verbose"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        assert child.stderr.readline().startswith(f"{NO_FACE}: no_face")
        child.send_signal(sent)
        rest = child.stderr.read()
    assert child.returncode == 130
    assert "Traceback" not in rest
    assert "Finishing the files in flight" in rest
    assert "the same command goes on from there" in rest
    rows = rows_of((tmp_path / "results.csv").read_bytes())
    assert 1 <= len(rows) < len(videos)
    assert rows[0]["path"] == str(NO_FACE)
    assert {row["status"] for row in rows} <= {"scored", "no_face"}
    ran = deepscan(*command[1:], cwd=tmp_path)
    assert ran.code == 0
    assert f"{len(rows)} of them known from earlier runs" in ran.err
    assert rows_of((tmp_path / "results.csv").read_bytes())[: len(rows)] == rows
    assert [row["path"] for row in rows_of((tmp_path / "results.csv").read_bytes())] == videos


def test_a_second_interrupt_ends_the_scan_at_once_and_loses_nothing(tmp_path: Path, long: Path) -> None:
    command = [DEEPSCAN, "scan", str(NO_FACE), str(long), "--jobs", "1", "--verbose"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        assert child.stderr.readline().startswith(f"{NO_FACE}: no_face")
        child.send_signal(signal.SIGINT)
        assert "Finishing the files in flight" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
    assert child.returncode == 130
    assert "Traceback" not in rest
    (row,) = rows_of((tmp_path / "results.csv").read_bytes())
    assert (row["path"], row["status"]) == (str(NO_FACE), "no_face")


def test_a_scan_whose_process_is_killed_leaves_no_process_and_loses_nothing(tmp_path: Path, long: Path) -> None:
    command = [DEEPSCAN, "scan", str(NO_FACE), str(long), "--jobs", "1", "--verbose"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        assert child.stderr.readline().startswith(f"{NO_FACE}: no_face")
        (worker,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        child.kill()
    wait_until(lambda: not Path(f"/proc/{worker}/cmdline").exists(), "the end of the worker")
    ran = deepscan("scan", NO_FACE, "--verbose", cwd=tmp_path)
    assert "1 of them known from earlier runs" in ran.err
    assert [row["path"] for row in rows_of((tmp_path / "results.csv").read_bytes())] == [str(NO_FACE)]


def test_an_interrupt_prints_the_finished_rows_that_waited_for_others(tmp_path: Path, long: Path) -> None:
    command = [DEEPSCAN, "scan", str(long), str(NO_FACE), "--jobs", "2", "--verbose", "--out", "-"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stderr is not None
        assert child.stdout is not None
        assert child.stderr.readline().startswith(f"{NO_FACE}: no_face".encode())
        child.send_signal(signal.SIGINT)
        assert b"Finishing the files in flight" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        printed = child.stdout.read()
        child.stderr.read()
    assert child.returncode == 130
    assert [row["path"] for row in rows_of(printed)] == [str(NO_FACE)]


def test_a_reader_of_stdout_that_leaves_ends_the_scan_with_a_code_of_its_own(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [DEEPSCAN, "scan", str(NO_FACE), "--out", "-", *QUICK]
    with open(writer, "wb") as closed:
        ran = subprocess.run(
            command, cwd=tmp_path, env=os.environ | ENVIRONMENT, stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert ran.returncode == 141
    assert b"Traceback" not in ran.stderr
