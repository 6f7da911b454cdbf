from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.cells import cell_len

from deepscan.cli.app import app
from deepscan.cli.show_display import BLOCKS, NARROWEST_PLOT, plot
from deepscan.results import Segment, TrackResult, VideoResult
from deepscan.runtime.store.journal import line_of
from tests.cli.console import assert_one_line, deepscan

SCORED = VideoResult(
    index=0,
    row=0,
    path="/videos/party/fake.mp4",
    status="scored",
    score=0.91,
    label="fake",
    model="lite",
    faces=2,
    tracks=2,
    clips=75,
    frames=75,
    duration_seconds=4.0,
    width=1280,
    height=720,
    codec="h264",
    peak=Segment(start_seconds=2.0, end_seconds=3.0, score=0.99, clips=25),
    backend="onnxruntime-cpu",
    precision="fp32",
    weights_sha256="a" * 64,
    settings_sha256="b" * 64,
    elapsed_seconds=1.25,
    details=(
        TrackResult(
            track=0,
            start_seconds=0.0,
            end_seconds=3.0,
            score=0.91,
            clips=50,
            timeline=(
                Segment(start_seconds=0.0, end_seconds=1.0, score=0.01, clips=25),
                Segment(start_seconds=2.0, end_seconds=3.0, score=0.99, clips=25),
            ),
        ),
        TrackResult(
            track=1,
            start_seconds=3.0,
            end_seconds=4.0,
            score=0.5,
            clips=25,
            timeline=(Segment(start_seconds=3.0, end_seconds=4.0, score=0.5, clips=25),),
        ),
    ),
)
REAL = replace(SCORED, path="/videos/real.mp4", score=0.02, label="real", details=(), tracks=0, peak=None)
CRASHED = replace(
    REAL,
    path="/videos/other/real.mp4",
    status="crashed",
    reason="The decoder was killed by signal 11.",
    score=None,
    label=None,
)


def written(path: Path, *results: VideoResult) -> Path:
    """Write a journal of these results."""
    path.write_bytes(b"".join(line_of(result) for result in results))
    return path


def shown(
    path: Path, *arguments: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return what `deepscan show` prints, run in this process, on a terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setattr(sys, "argv", ["deepscan", "show", str(path), *arguments])
    with pytest.raises(SystemExit) as ended:
        app()
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return written(tmp_path / "results.jsonl", SCORED, REAL, CRASHED)


def test_without_a_video_every_row_is_in_the_table(results: Path) -> None:
    ran = deepscan("show", results)
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.text.splitlines() if "/videos/" in line]
    assert lines == [
        ["/videos/party/fake.mp4", "0.910", "fake"],
        ["/videos/real.mp4", "0.020", "real"],
        ["/videos/other/real.mp4", "crashed"],
    ]
    assert "\n  The decoder was killed by signal 11.\n" in ran.text
    assert "3 rows: 1 crashed, 2 scored (1 fake, 0 uncertain, 1 real)." in ran.text


def test_the_table_can_be_narrowed_to_a_status(results: Path) -> None:
    ran = deepscan("show", results, "--status", "crashed")
    assert "/videos/other/real.mp4" in ran.text
    assert "fake.mp4" not in ran.text
    assert "1 row: 1 crashed." in ran.text
    assert "0 rows." in deepscan("show", results, "--status", "timeout").text
    assert deepscan("show", results, "--status", "broken").code == 2


def test_the_highest_score_comes_first_and_failures_come_last(tmp_path: Path) -> None:
    unsure = replace(SCORED, path="/videos/b.mp4", score=0.6, label="uncertain")
    faceless = replace(REAL, path="/videos/a.mp4", status="no_face", score=None, label=None)
    broken = replace(CRASHED, path="/videos/0.mp4", status="unreadable")
    path = written(tmp_path / "results.jsonl", CRASHED, broken, faceless, REAL, unsure, SCORED)
    ran = deepscan("show", path)
    order = ["party/fake.mp4", "b.mp4", "real.mp4", "a.mp4", "other/real.mp4", "0.mp4"]
    assert [line.split()[0] for line in ran.text.splitlines() if line.startswith("/videos/")] == [
        f"/videos/{name}" for name in order
    ]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--label", "fake"], ["party/fake.mp4"]),
        (["--find", "REAL"], ["real.mp4", "other/real.mp4"]),
        (["--find", "real", "--status", "crashed"], ["other/real.mp4"]),
        (["--label", "real", "--find", "fake"], []),
        (["--sort", "path"], ["other/real.mp4", "party/fake.mp4", "real.mp4"]),
        (["--sort", "status"], ["other/real.mp4", "party/fake.mp4", "real.mp4"]),
        (["--sort", "time"], ["other/real.mp4", "real.mp4", "party/fake.mp4"]),
        (["--sort", "path", "--rows", "1"], ["other/real.mp4"]),
    ],
)
def test_rows_are_chosen_and_sorted_as_asked(
    results: Path,
    options: list[str],
    names: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = shown(results, *options, columns=240, capsys=capsys, monkeypatch=monkeypatch)
    assert [line.split()[0] for line in said.splitlines() if line.startswith("/videos/")] == [
        f"/videos/{name}" for name in names
    ]


@pytest.mark.parametrize("columns", [20, 40, 50, 80])
def test_nothing_is_lost_on_a_narrow_terminal(
    tmp_path: Path, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "/videos/二人の顔が映っている動画-" + "long" * 20 + ".webm"
    reason = "The decoder was killed by signal 11: convert the file with ffmpeg, then scan it once more."
    both = written(tmp_path / "r.jsonl", SCORED, replace(CRASHED, path=name, reason=reason, model="ftcn"))
    said = shown(both, columns=columns, capsys=capsys, monkeypatch=monkeypatch)
    assert max(map(cell_len, said.splitlines())) <= columns
    head, *_ = (line for line in said.splitlines() if line.startswith("video"))
    assert head.split()[:2] == ["video", "score"]
    letters = "".join(said.split())
    for kept in ("0.910", "fake", "crashed", "lite", "ftcn", "".join(reason.split())):
        assert kept in letters
    assert all(sign in said for sign in name)
    assert all(word in said for word in reason.split())  # between which lines are broken, and not in them
    one = shown(both, name, columns=columns, capsys=capsys, monkeypatch=monkeypatch)
    assert all(kept in "".join(one.split()) for kept in (name, "a" * 64, "b" * 64, "".join(reason.split())))


def test_thresholds_are_said_where_labels_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(SCORED, score=0.6, label="uncertain", real_below=0.35, fake_from=0.8)
    path = written(tmp_path / "results.jsonl", known, REAL)
    said = shown(path, columns=240, capsys=capsys, monkeypatch=monkeypatch)
    assert "lite: real below 0.35, fake from 0.8, uncertain between.\n" in said
    one = shown(path, "fake.mp4", columns=240, capsys=capsys, monkeypatch=monkeypatch)
    assert "scored, 0.6000, uncertain" in one
    assert "real below 0.35, fake from 0.8, uncertain between" in one


def test_a_csv_that_is_given_by_mistake_leads_to_the_jsonl(results: Path, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("path,status\n")
    assert "3 rows" in deepscan("show", tmp_path / "results.csv").text
    alone = results.with_name("alone.csv")
    alone.write_text("path,status\n")
    ran = deepscan("show", alone)
    assert_one_line(ran, 2)
    assert "there is no alone.jsonl beside it" in ran.err


def test_a_moment_is_no_stretch_and_a_picture_has_no_time(tmp_path: Path) -> None:
    short = replace(SCORED, peak=Segment(start_seconds=2.0, end_seconds=2.0, score=0.99, clips=1))
    picture = replace(short, path="/p.png", duration_seconds=None)
    path = written(tmp_path / "results.jsonl", short, picture)
    assert "0.9900 at 2.0 s" in deepscan("show", path, "fake.mp4").text
    assert "0.9900 at" not in deepscan("show", path, "p.png").text


def test_of_many_rows_the_first_are_shown_and_how_to_see_the_others(tmp_path: Path) -> None:
    many = written(tmp_path / "many.jsonl", *(replace(REAL, path=f"/videos/{number}.mp4") for number in range(60)))
    ran = deepscan("show", many)
    assert "/videos/49.mp4" in ran.text
    assert "/videos/50.mp4" not in ran.text
    assert "The first 50 are shown: --rows 60 shows all" in ran.text
    assert "/videos/59.mp4" in deepscan("show", many, "--rows", "60").text


def test_one_video_is_shown_with_the_course_of_its_tracks_and_what_ran(results: Path) -> None:
    ran = deepscan("show", results, "fake.mp4")
    assert ran.code == 0
    for said in (
        "/videos/party/fake.mp4",
        "scored, 0.9100, fake",
        "0.9900 at 2.0-3.0 s",
        "1280 x 720 pixels, h264, 4.0 s",
        "frames 75, faces at once 2, tracks 2, crops or clips 75",
        "lite, onnxruntime-cpu, fp32, 1.2 s",
        "a" * 64,
        "b" * 64,
    ):
        assert said in ran.text
    first, second = (line for line in ran.text.splitlines() if line.endswith(("0.910", "0.500")))
    assert first.startswith("    0  0.0-3.0 s")
    assert first.index("▁") < first.index("█")
    assert second.startswith("    1  3.0-4.0 s")
    assert "▅" in second
    assert second.index("▅") - first.rindex("█") in (0, 1)  # where one column shows both


def test_the_reason_of_a_failure_is_shown(results: Path) -> None:
    ran = deepscan("show", results, "other/real.mp4")
    assert "The decoder was killed by signal 11." in ran.text
    assert "probability of fake" not in ran.text


def test_a_video_is_called_by_its_path_or_as_much_of_its_end_as_it_takes(results: Path) -> None:
    assert "0.0200, real" in deepscan("show", results, "/videos/real.mp4").text
    assert "signal 11" in deepscan("show", results, "her/real.mp4").text
    assert_one_line(deepscan("show", results, "real.mp4"), 2)
    assert "give more of the path" in deepscan("show", results, "real.mp4").err
    assert_one_line(deepscan("show", results, "none.mp4"), 2)


def test_each_detector_of_a_video_is_shown(tmp_path: Path) -> None:
    both = written(tmp_path / "both.jsonl", SCORED, replace(SCORED, row=1, model="ftcn", score=0.25, label="real"))
    ran = deepscan("show", both, "fake.mp4")
    assert ran.text.count("/videos/party/fake.mp4") == 2
    assert "0.9100, fake" in ran.text
    assert "0.2500, real" in ran.text
    assert "ftcn" in deepscan("show", both).text


def test_later_records_replace_earlier_ones_and_damaged_lines_are_counted(tmp_path: Path) -> None:
    whole, fixed = line_of(CRASHED), line_of(replace(REAL, path=CRASHED.path))
    altered = line_of(SCORED).replace(b'"score": 0.91', b'"score": 0.11')
    path = tmp_path / "results.jsonl"
    path.write_bytes(whole + altered + b"\xff\0\n[1, 2]\n" + b"[" * 100_000 + b"\n\n" + fixed + whole[:-20])
    ran = deepscan("show", path)
    assert ran.code == 0
    assert ran.err == f"deepscan: 5 lines are damaged and were passed over: {path}\n"
    assert "1 row: 1 scored (0 fake, 0 uncertain, 1 real)." in ran.text


def test_a_row_that_was_replaced_is_shown_with_its_later_tracks(tmp_path: Path) -> None:
    path = written(tmp_path / "results.jsonl", replace(SCORED, details=()), REAL, SCORED)
    assert "probability of fake" in deepscan("show", path, "fake.mp4").text


def test_records_without_a_checksum_or_with_unknown_fields_are_read(tmp_path: Path) -> None:
    line = line_of(SCORED)
    plain = line[: line.index(b', "check"')] + b', "mood": "good"}\n'
    path = tmp_path / "results.jsonl"
    path.write_bytes(plain)
    ran = deepscan("show", path, "fake.mp4")
    assert (ran.code, ran.err) == (0, "")
    assert "█" in ran.text


def test_names_cannot_move_the_cursor_or_color_the_screen(tmp_path: Path) -> None:
    name = os.fsdecode(b"/videos/\x1b[31m[bold]\r\n\xff.mp4")
    path = written(tmp_path / "results.jsonl", replace(CRASHED, path=name, reason="\x1b]0;owned\x07", codec="\x1b[2J"))
    for ran in (deepscan("show", path), deepscan("show", path, name), deepscan("show", path, "\x1bnone")):
        assert b"\x1b" not in ran.out
        assert "\x1b" not in ran.err
        assert b"\r" not in ran.out
        assert b"\x07" not in ran.out
    assert r"/videos/\x1b[31m[bold]\r\n\udcff.mp4" in deepscan("show", path, name).text


@pytest.mark.parametrize("content", [b"path,status\na,b\n", b"{}\n", b"\0\0\0\x18ftypmp42" * 9])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    assert_one_line(deepscan("show", path), 2)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert_one_line(deepscan("show", tmp_path / "missing.jsonl"), 2)
    assert_one_line(deepscan("show", tmp_path), 2)
    (tmp_path / "empty.jsonl").touch()
    assert "0 rows." in deepscan("show", tmp_path / "empty.jsonl").text


SEGMENTS = st.builds(
    Segment,
    start_seconds=st.floats(-1.0, 1e6),
    end_seconds=st.floats(-1.0, 1e6),
    score=st.floats(0.0, 1.0),
    clips=st.just(1),
)


@given(st.lists(SEGMENTS, max_size=5), st.none() | st.floats(0.0, 1e12), st.integers(1, 300))
def test_any_track_fits_the_width_of_the_terminal(
    segments: list[Segment], duration_seconds: float | None, columns: int
) -> None:
    track = TrackResult(track=0, start_seconds=0.0, end_seconds=1e6, score=0.5, clips=1, timeline=tuple(segments))
    head, line, axis = plot([track], duration_seconds, columns)
    label = line.index("s") + 3
    assert set(line[label:-5]) <= {*BLOCKS, " "}
    assert (set(line[label:-5]) & set(BLOCKS)) or not segments
    assert cell_len(line) <= max(columns, label + NARROWEST_PLOT + 7)
    assert cell_len(axis) <= max(columns, label + 40)
    assert len(head) >= 1


def test_help_of_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, deepscan.cli.main as main\n"
        "assert not {'rich.table', 'msgspec', 'numpy', 'av', 'onnxruntime'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
