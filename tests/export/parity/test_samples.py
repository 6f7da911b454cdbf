from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import deepscan
from deepscan.errors import UsageError
from deepscan.export.parity import sample_collector
from deepscan.export.parity.samples import PACKAGED_SEED, PACKAGED_VIDEO, gather_samples, packaged_samples
from deepscan.models.lite import LITE
from deepscan.models.registry import BUILTIN, find_detector
from deepscan.options import DETECT_EVERY
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.cropping import FaceInput
from deepscan.runtime.pipeline import infer_stage, pipeline_scan
from deepscan.runtime.pipeline.messages import ToInfer, VideoScored
from deepscan.spec import DetectorSpec
from tests.footage import ASTRONAUT, NO_FACE, TWO_FACES, flat, portrait, write_video
from tests.runtime.here import scan_here
from tests.runtime.tiny_detectors import TINY_CLIP, TINY_FRAME, tiny_clip_artifact

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 320, 180
FACE = portrait(WIDTH, HEIGHT)
PACKAGED = Path(deepscan.__file__).parent / "assets" / PACKAGED_VIDEO


def film(path: Path, frames: int, *, nobody: int = 0) -> str:
    """Write a video in which a face is seen for so many frames, after others without, growing darker."""
    shown = [np.asarray(FACE * (1 - 0.5 * number / frames), dtype=np.uint8) for number in range(frames)]
    return str(write_video(path, [flat([90, 90, 90], WIDTH, HEIGHT)] * nobody + shown, options={"preset": "ultrafast"}))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("films")
    lengths = {"a": 40, "b": 40, "c": 3, "d": 12}
    return {name: film(folder / f"{name}.mp4", frames) for name, frames in lengths.items()}


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[FaceInput]]:
    """A function that scans for real and returns what reached the last stage."""
    seen: list[FaceInput] = []

    class Watched(infer_stage.InferStage):
        def __call__(self, messages: Sequence[ToInfer]) -> list[VideoScored]:  # type: ignore[override]
            seen.extend(message for message in messages if isinstance(message, FaceInput))
            return list(super().__call__(messages))

    monkeypatch.setattr(pipeline_scan, "InferStage", Watched)

    def run(*paths: str | Path, **arguments: object) -> list[FaceInput]:
        seen.clear()
        results = list(scan_here(paths, **arguments))  # type: ignore[arg-type]
        assert all(result.status == "scored" for (result,) in results)
        return list(seen)

    return run


def test_crops_are_those_of_a_scan(scanned: Callable[..., list[FaceInput]]) -> None:
    gathered = gather_samples([ASTRONAUT], LITE, count=5, seed=3)
    crops = {host_array(face.pixels).tobytes(): face for face in scanned(ASTRONAUT, sampling="paper", frames=10)}
    assert len(crops) == 10
    assert gathered.items.shape == (5, *LITE.item_shape)
    for item, source in zip(gathered.items, gathered.sources, strict=True):
        face = crops.pop(item.tobytes())
        assert source == f"{ASTRONAUT.name} at {face.start_seconds:.1f} s"


def test_clips_are_those_of_a_scan(scanned: Callable[..., list[FaceInput]], tmp_path: Path) -> None:
    model = str(tiny_clip_artifact(tmp_path))
    gathered = gather_samples([TWO_FACES], TINY_CLIP, count=4, seed=0)
    clips = {host_array(face.pixels).tobytes() for face in scanned(TWO_FACES, model=model, sampling="quick", clips=8)}
    assert len(clips) == 16  # windows, not the whole video
    assert {item.tobytes() for item in gathered.items} <= clips
    assert len({item.tobytes() for item in gathered.items}) == 4


def test_all_clips_of_a_short_video_are_those_of_a_full_scan(
    scanned: Callable[..., list[FaceInput]], films: dict[str, str], tmp_path: Path
) -> None:
    model = str(tiny_clip_artifact(tmp_path))
    gathered = gather_samples([films["d"]], TINY_CLIP, count=50, seed=0)
    clips = scanned(films["d"], model=model)
    assert [item.tobytes() for item in gathered.items] == [host_array(face.pixels).tobytes() for face in clips]
    assert len(clips) == 2
    assert deepscan.ScanOptions().detect_every == DETECT_EVERY


def test_videos_give_alike_and_what_a_short_one_lacks_comes_from_the_others(films: dict[str, str]) -> None:
    gathered = gather_samples(films.values(), TINY_FRAME, count=25, seed=0)
    given = Counter(gathered.videos)
    assert (given[films["c"]], len(gathered.items)) == (3, 25)
    assert sorted(given[films[name]] for name in "abd") == [7, 7, 8]


def test_clips_are_shared_alike_too(films: dict[str, str]) -> None:
    paths = [films["a"], films["d"]]
    gathered = gather_samples(paths, TINY_CLIP, count=6, seed=0)
    assert Counter(gathered.videos) == {films["a"]: 4, films["d"]: 2}


def test_a_video_whose_faces_are_hard_to_find_is_looked_at_again(tmp_path: Path) -> None:
    late = film(tmp_path / "late.mp4", 24, nobody=108)
    # Of the first 8 places one shows the face, of the next 24 four.
    assert len(gather_samples([late], TINY_FRAME, count=4, seed=0).items) == 4
    both = gather_samples([late, film(tmp_path / "all.mp4", 40)], TINY_FRAME, count=24, seed=0)
    assert Counter(both.videos)[late] == 12
    assert len({item.tobytes() for item in both.items}) == 24
    # Of the first 2 places none shows the face, of the next 6 one.
    alone = gather_samples([late], TINY_FRAME, count=1, seed=0)
    assert (len(alone.items), alone.skipped) == (1, ())


def test_samples_are_spread_over_the_length(films: dict[str, str]) -> None:
    for seed in range(4):
        gathered = gather_samples([films["a"]], TINY_FRAME, count=4, seed=seed)
        seconds = [float(source.split(" ")[-2]) for source in gathered.sources]
        assert [int(time / 1.6 * 4) for time in seconds] == [0, 1, 2, 3]


def test_everybody_in_a_frame_is_taken() -> None:
    items = gather_samples([TWO_FACES], TINY_FRAME, count=4, seed=0).items
    one: list[Pixels] = []
    other: list[Pixels] = []
    for item in items:
        distances = [np.abs(item.astype(int) - items[0]).mean(), np.abs(item.astype(int) - items[1]).mean()]
        (one if distances[0] < distances[1] else other).append(item)
    assert len(one) == len(other) == 2


def test_a_crowd_is_not_taken_all_at_once(tmp_path: Path) -> None:
    crowd = np.tile(portrait(240, 136), (2, 2, 1))
    path = write_video(tmp_path / "crowd.mp4", [crowd] * 12)
    gathered = gather_samples([path], msgspec.structs.replace(TINY_FRAME, min_face_pixels=20), count=4, seed=0)
    assert sorted(Counter(gathered.sources).values()) == [2, 2]


def test_the_order_of_the_paths_does_not_matter_and_the_seed_does(films: dict[str, str]) -> None:
    paths = list(films.values())
    forwards, backwards = (gather_samples(some, TINY_FRAME, count=6, seed=5) for some in (paths, paths[::-1]))
    assert forwards.sha256 == backwards.sha256
    assert (forwards.sources, forwards.videos) == (backwards.sources, backwards.videos)
    assert list(forwards.videos) == sorted(forwards.videos)
    assert len({gather_samples(paths, TINY_FRAME, count=6, seed=seed).sha256 for seed in range(5)}) > 1


def test_of_more_videos_than_wanted_items_some_give_one_each(films: dict[str, str]) -> None:
    chosen = set()
    for seed in range(6):
        gathered = gather_samples(films.values(), TINY_FRAME, count=2, seed=seed)
        assert len(set(gathered.videos)) == len(gathered.videos) == 2
        chosen |= set(gathered.videos)
    assert len(chosen) > 2


def test_videos_that_were_not_asked_at_first_stand_in_for_those_without_faces(
    films: dict[str, str], tmp_path: Path
) -> None:
    empty = [str(write_video(tmp_path / f"{n}.mp4", [flat([90] * 3, WIDTH, HEIGHT)] * 4)) for n in range(3)]
    for seed in range(4):
        gathered = gather_samples([*empty, films["c"], films["d"]], TINY_FRAME, count=2, seed=seed)
        assert sorted(gathered.videos) == [films["c"], films["d"]]


def test_what_cannot_be_used_is_named_and_left_out(films: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    small = write_video(tmp_path / "small.mp4", [portrait(128, 72)] * 4)
    gathered = gather_samples([broken, NO_FACE, small, films["d"]], TINY_FRAME, count=3, seed=0)
    assert set(gathered.videos) == {films["d"]}
    by_path = dict(line.split(": ", 1) for line in gathered.skipped)
    assert set(by_path) == {str(broken), str(NO_FACE), str(small)}
    assert by_path[str(NO_FACE)] == "no face was found"
    assert by_path[str(small)] == "all faces are smaller than 64 pixels"


def test_nothing_usable_is_an_error_that_says_why(films: dict[str, str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.mp4")
    needs_more = msgspec.structs.replace(TINY_CLIP, min_frames=8)
    with pytest.raises(UsageError, match="give videos with faces") as caught:
        gather_samples([missing, films["c"]], needs_more, count=3, seed=0)
    assert f"{missing}: The file cannot be found" in str(caught.value)
    assert f"{films['c']}: faces were seen for up to 3 frames, and 8 are needed" in str(caught.value)


def test_of_many_unusable_videos_a_few_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"4\.mp4.*; and 2 others\)") as caught:
        gather_samples([f"{tmp_path}/{number}.mp4" for number in range(7)], TINY_FRAME, count=3, seed=0)
    assert "5.mp4" not in str(caught.value)


@pytest.mark.parametrize("count", [0, -1])
def test_less_than_one_sample_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        packaged_samples(LITE, count=count)


def test_a_file_given_twice_counts_once(films: dict[str, str]) -> None:
    path = Path(films["d"])
    again = path.parent / ".." / path.parent.name / path.name
    gathered = gather_samples([path, again, path], TINY_FRAME, count=6, seed=0)
    assert len({item.tobytes() for item in gathered.items}) == len(gathered.items) == 6


def test_labels_go_with_the_videos(films: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(films["a"]).parent)
    labels = {films["a"]: True, "d.mp4": False, str(tmp_path / "other.mp4"): True}
    gathered = gather_samples([films["a"], films["c"], films["d"]], TINY_FRAME, count=6, seed=0, labels=labels)
    known = dict(zip(gathered.videos, gathered.fakes, strict=True))
    assert known == {films["a"]: True, films["c"]: None, films["d"]: False}
    assert gather_samples([films["c"]], TINY_FRAME, count=1, seed=0).fakes == (None,)


def test_labels_of_other_videos_are_a_mistake(films: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No label is for one of the videos \(1 label\)"):
        gather_samples([films["c"]], TINY_FRAME, count=1, seed=0, labels={str(tmp_path / "c.mp4"): True})


def test_progress_is_logged(films: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, sample_collector.__name__)
    gather_samples([films["d"]], TINY_FRAME, count=3, seed=0)
    assert caplog.messages == [f"cutting faces: {number} of 3" for number in (1, 2, 3, 3, 3, 3)]


def test_an_error_while_gathering_stops_the_threads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: logging.LogRecord) -> bool:
        raise KeyboardInterrupt

    caplog.set_level(logging.INFO, sample_collector.__name__)
    monkeypatch.setattr(sample_collector.log, "filters", [refuse])
    with pytest.raises(KeyboardInterrupt) as caught:
        gather_samples([ASTRONAUT], TINY_FRAME, count=30, seed=0)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("deepscan-")]
    assert caught.tb  # what it holds on to was there all the time


def small_spec(spec: DetectorSpec) -> DetectorSpec:
    """Return the spec with small crops, which are quicker to hold and to compare."""
    return msgspec.structs.replace(spec, size=48)


# One detector for each way of cutting faces.
SPECS = [detector.spec for detector in BUILTIN.values()]
CUTS = {(type(spec.crop), spec.frames, spec.min_face_pixels): spec.name for spec in SPECS}


@pytest.mark.parametrize("name", CUTS.values())
def test_the_packaged_video_has_faces_for_every_detector(name: str) -> None:
    spec = small_spec(find_detector(name).spec)
    wanted = 16 if spec.kind == "clip" else 48
    gathered = packaged_samples(spec, count=wanted)
    assert gathered.items.shape == (wanted, *spec.item_shape)
    assert len({item.tobytes() for item in gathered.items}) == wanted
    assert set(gathered.fakes) == {None}
    assert not gathered.skipped
    # From every shot of 1.28 seconds, one or three.
    shots = Counter(int(float(source.split(" ")[-2]) / 1.28 + 0.045) for source in gathered.sources)
    assert shots == dict.fromkeys(range(16), wanted // 16)


def test_a_few_packaged_samples_are_of_both_people_wherever_the_package_lies(tmp_path: Path) -> None:
    spec = small_spec(find_detector("recce").spec)
    gathered = packaged_samples(spec, count=5)
    elsewhere = shutil.copy(PACKAGED, tmp_path / "elsewhere.mp4")
    assert gather_samples(elsewhere, spec, count=5, seed=PACKAGED_SEED).sha256 == gathered.sha256
    shots = [int(float(source.split(" ")[-2]) / 1.28) for source in gathered.sources]
    collins = {0, 3, 5, 6, 9, 10, 12, 15}
    assert len({shot in collins for shot in shots}) == 2
