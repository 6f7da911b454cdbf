from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from deepscan import Scan, VideoResult
from deepscan.cli.scan_display import ROWS_SHOWN, ScanDisplay, per_second
from deepscan.results import Segment
from deepscan.runtime.media.inputs import InputPlan, PlannedInput

SCORED = VideoResult(
    index=0,
    row=0,
    path="v/real.mp4",
    status="scored",
    score=0.1,
    label="real",
    model="lite",
    duration_seconds=4.0,
    faces=1,
    frames=100,
    peak=Segment(start_seconds=2.0, end_seconds=2.1, score=0.2, clips=1),
    backend="onnxruntime-cpu",
    precision="fp32",
    weights_sha256="a" * 64,
    settings_sha256="b" * 64,
    elapsed_seconds=1.0,
    real_below=0.35,
    fake_from=0.8,
)
FAKE = replace(SCORED, row=1, path="v/fake.mp4", score=0.91, label="fake")
UNSURE = replace(SCORED, row=2, path="v/unsure.mp4", score=0.5, label="uncertain", reason="1 sighting was too small")
FACELESS = replace(
    SCORED,
    row=3,
    path="v/none.mp4",
    status="no_face",
    score=None,
    label=None,
    peak=None,
    real_below=None,
    fake_from=None,
)
BROKEN = replace(FACELESS, row=4, path="v/bad.mp4", status="unreadable", reason="The file is empty: copy it again.")


@dataclass
class Ended:
    """A scan that is over, as far as the display asks."""

    plan: InputPlan
    models: tuple[str, ...] = ("lite",)
    finished: int = 1
    device: str = "cpu"
    frames: int = 0
    per_frame: str | None = None

    @property
    def progress(self) -> Any:
        return SimpleNamespace(frames=self.frames, faces=0)


def closing(
    *results: VideoResult,
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    frames: int = 0,
    **closed: Any,
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    plan = InputPlan(tuple(PlannedInput(result.path, 1) for result in results), skipped=1)
    display = ScanDisplay(cast("Scan", Ended(plan, frames=frames)), quiet=False, verbose=False)
    for result in results:
        display.show(result)
    display.close(**{"stats": False, "interrupted": False, "written": None, **closed})
    return capsys.readouterr().err.splitlines()


def test_the_highest_score_comes_first_and_the_thresholds_stand_below(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = closing(
        BROKEN, FACELESS, SCORED, UNSURE, FAKE, columns=80, capsys=capsys, monkeypatch=monkeypatch, frames=1
    )
    assert lines[0] == "In v/:"
    names = [line.split()[0] for line in lines if ".mp4" in line and not line.startswith("unreadable")]
    assert names == ["fake.mp4", "unsure.mp4", "real.mp4", "none.mp4"]
    assert "  1 sighting was too small" in lines
    assert "0.200 at 2 s" in lines[3]
    assert "lite: real below 0.35, fake from 0.8, uncertain between." in lines
    assert "unreadable: v/bad.mp4: The file is empty: copy it again." in lines
    assert "passed over in folders: 1 other file. 1 frame in 0." in lines[-1]
    assert lines[-1].startswith("5 inputs: 1 no_face, 3 scored (1 fake, 1 uncertain, 1 real), 1 unreadable")


@pytest.mark.parametrize(("columns", "last"), [(20, "score"), (40, "label"), (80, "frames")])
def test_a_narrow_terminal_keeps_name_and_score(
    columns: int, last: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = replace(FAKE, path="v/recording_of_the_second_day.mp4")
    lines = closing(long, SCORED, columns=columns, capsys=capsys, monkeypatch=monkeypatch)
    head = lines[1].split()
    assert head[:2] == ["video", "score"]
    assert head[-1] == last
    assert "0.910" in lines[3]
    assert all(len(line) <= columns for line in lines[:5])


def test_of_one_everything_is_singular_and_of_nothing_there_is_no_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = closing(SCORED, columns=80, capsys=capsys, monkeypatch=monkeypatch, interrupted=True)
    assert one[0] == "Interrupted: 1 of 1 input finished."
    assert one[-1] == "1 input: 1 scored (0 fake, 0 uncertain, 1 real); passed over in folders: 1 other file."
    nothing = closing(columns=80, capsys=capsys, monkeypatch=monkeypatch, interrupted=True)
    assert nothing == ["Interrupted: 1 of 0 inputs finished."]
    assert closing(columns=80, capsys=capsys, monkeypatch=monkeypatch) == [
        "0 inputs; passed over in folders: 1 other file."
    ]


def test_of_many_results_only_scores_are_in_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [replace(FACELESS, row=row, path=f"v/{row}.mp4") for row in range(ROWS_SHOWN + 1)]
    lines = closing(*many, columns=80, capsys=capsys, monkeypatch=monkeypatch)
    assert len(lines) == 1
    lines = closing(*many, SCORED, columns=80, capsys=capsys, monkeypatch=monkeypatch)
    assert lines[0] == f"The highest score of {ROWS_SHOWN + 2} results:"


def test_the_command_that_says_more_can_be_pasted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = closing(BROKEN, columns=80, capsys=capsys, monkeypatch=monkeypatch, written=Path("my results.csv"))
    assert "More about them: deepscan show 'my results.jsonl' --status unreadable" in lines


def test_a_picture_has_no_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = closing(replace(SCORED, duration_seconds=None), columns=80, capsys=capsys, monkeypatch=monkeypatch)
    assert " at " not in "".join(lines)


@pytest.mark.parametrize(
    ("rate", "said"), [(0.0, "0 frames/s"), (0.04, "0.04 frames/s"), (1.0, "1 frame/s"), (63.4, "63 frames/s")]
)
def test_a_rate_is_never_rounded_to_nothing(rate: float, said: str) -> None:
    assert per_second(rate) == said
