"""Real scans: no video's result depends on its neighbors, and leaving in the middle leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import deepscan
from deepscan.results import Quality, Segment, TrackResult, VideoResult
from tests.footage import ASTRONAUT, NO_FACE, PHONE, SWAPPED, TWO_FACES, example_frames, portrait, write_video
from tests.runtime.tiny_detectors import tiny_clip_artifact, tiny_frame_artifact
from tests.runtime.watchdog import children, deepscan_threads, wait_until
from tests.runtime.worker_here import workers_in_threads

pytestmark = pytest.mark.usefixtures("own_children")
EXAMPLES = [str(path.resolve()) for path in (ASTRONAUT, TWO_FACES, NO_FACE, PHONE, SWAPPED)]
HERE = pytest.mark.usefixtures("workers_here")
Facts = tuple[str, float | None, Quality | None, Segment | None, int, int, int, tuple[TrackResult, ...]]


def facts_of(result: VideoResult) -> Facts:
    """All that a video's pixels decide, bit for bit."""
    return (
        result.status,
        result.score,
        result.quality_details,
        result.peak,
        result.faces,
        result.clips,
        result.frames,
        result.details,
    )


def quick(paths: Sequence[str], *, jobs: int) -> dict[str, Facts]:
    return {result.path: facts_of(result) for result in deepscan.scan(paths, frames=3, jobs=jobs)}


@pytest.fixture(scope="module")
def alone() -> dict[str, Facts]:
    """Each example, scanned by itself."""
    found: dict[str, Facts] = {}
    with workers_in_threads():
        for path in EXAMPLES:
            found |= quick([path], jobs=1)
    assert {Path(path).name: facts[0] for path, facts in found.items()} == {
        Path(path).name: "no_face" if Path(path) == NO_FACE else "scored" for path in EXAMPLES
    }
    return found


@HERE
def test_a_detectors_result_does_not_depend_on_the_other_detectors(tmp_path: Path) -> None:
    # A face that is too small for lite, and large enough for the others.
    small = write_video(tmp_path / "small.mp4", [portrait(320, 180)] * 12)
    two = write_video(tmp_path / "two.mp4", example_frames(TWO_FACES, 12))
    models = ["lite", str(tiny_clip_artifact(tmp_path)), str(tiny_frame_artifact(tmp_path))]
    together = sorted(deepscan.scan([two, small], model=models), key=lambda result: result.row)
    assert [(result.index, result.row) for result in together] == [(n // 3, n) for n in range(6)]
    for number, model in enumerate(models):
        by_itself = sorted(deepscan.scan([two, small], model=model), key=lambda result: result.row)
        assert [facts_of(result) for result in by_itself] == [facts_of(result) for result in together[number::3]]
        assert {result.settings_sha256 for result in by_itself} == {together[number].settings_sha256}
    assert [result.status for result in together[3:]] == ["small_face", "scored", "scored"]


@HERE
@pytest.mark.parametrize(("jobs", "order"), [(1, [4, 3, 2, 1, 0]), (2, [2, 0, 4, 1, 3])])
def test_a_videos_result_does_not_depend_on_its_neighbors(alone: dict[str, Facts], jobs: int, order: list[int]) -> None:
    assert quick([EXAMPLES[place] for place in order], jobs=jobs) == alone


def test_nor_does_it_where_workers_are_processes(alone: dict[str, Facts]) -> None:
    assert quick(EXAMPLES, jobs=5) == alone


@HERE
def test_exact_times_are_as_independent_as_key_frames() -> None:
    def paper(paths: Sequence[str], jobs: int) -> dict[str, Facts]:
        scan = deepscan.scan(paths, sampling="paper", frames=2, jobs=jobs)
        return {result.path: facts_of(result) for result in scan}

    pair = [str(TWO_FACES), str(SWAPPED)]
    assert paper(pair, 2) == paper(pair[:1], 1) | paper(pair[1:], 1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two short videos with faces in them."""
    folder = tmp_path_factory.mktemp("clips")
    options = {"preset": "ultrafast", "crf": "18"}
    return [
        str(write_video(folder / f"{number}.mp4", example_frames(path, 11), options=options))
        for number, path in enumerate((TWO_FACES, SWAPPED))
    ]


@HERE
def test_in_full_scans_too_a_videos_result_does_not_depend_on_its_neighbors(clips: list[str]) -> None:
    def full(paths: Sequence[str], jobs: int) -> dict[str, Facts]:
        return {result.path: facts_of(result) for result in deepscan.scan(paths, jobs=jobs, mirror=False)}

    apart = full(clips[:1], 1) | full(clips[1:], 1)
    assert [(facts[0], facts[5], facts[6]) for facts in apart.values()] == [("scored", 22, 11), ("scored", 11, 11)]
    assert full(clips, 2) == full(clips[::-1], 1) == apart


@HERE
def test_the_same_video_given_under_two_names_gets_the_same_result_twice(tmp_path: Path) -> None:
    link = tmp_path / "again.webm"
    link.symlink_to(TWO_FACES)
    found = quick([str(TWO_FACES), str(link)], jobs=2)
    assert found[str(TWO_FACES)] == found[str(link)]
    assert found[str(link)][0] == "scored"


def open_videos() -> set[str]:
    """Return which of the examples this process and its workers have open."""
    found = set()
    for process in ("self", *children()):
        with contextlib.suppress(FileNotFoundError):  # closed, or gone, meanwhile
            for number in Path(f"/proc/{process}/fd").iterdir():
                found.add(os.readlink(number))
    return found & set(EXAMPLES)


@pytest.mark.parametrize("jobs", [1, 2])
def test_leaving_a_scan_early_leaves_no_process_no_thread_and_no_open_file(jobs: int) -> None:
    missing = "missing.mp4"  # the supervisor answers it when a second decoder asks for an input
    first, *others = sorted(EXAMPLES, key=os.path.getsize, reverse=True)
    for result in deepscan.scan([first, missing, *others], jobs=jobs):
        if jobs > 1:
            assert result.path == missing
            wait_until(lambda: bool(open_videos()), "another video is open")
        break
    assert children() == []
    assert deepscan_threads() == []
    assert open_videos() == set()


def test_an_error_of_the_caller_stops_the_scan() -> None:
    def consume(results: Iterator[VideoResult]) -> None:
        for _ in results:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume(iter(deepscan.scan([str(NO_FACE), str(PHONE), str(SWAPPED)], jobs=2)))
    assert children() == []
    assert deepscan_threads() == []
    assert open_videos() == set()
