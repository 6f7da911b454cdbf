"""From options to what a scan does: contradictions, sampling, what is in force, and the hash of what counts."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from deepscan.errors import ModelError, UsageError
from deepscan.models.lite import LITE
from deepscan.naming import in_callers_words
from deepscan.options import ScanOptions
from deepscan.runtime.artifacts.artifacts import METADATA_PREFIX, Manifest, manifest_name
from deepscan.runtime.faces.detections import SCORE_THRESHOLD
from deepscan.runtime.faces.face_detectors import AUTHORS_FACE_SCORE, DETECTION_SIDE, WholePicture
from deepscan.runtime.faces.retinaface import RetinaFace
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.settings import FULL_SIDE, ScanSettings, resolve_settings
from deepscan.runtime.system.files import HOME_VARIABLE
from deepscan.spec import DetectorSpec, LabelBand
from tests.runtime.faces.blind_retinaface import install_retinaface
from tests.runtime.tiny_detectors import (
    TINY_CLIP,
    TINY_FRAME,
    tiny_clip_artifact,
    tiny_frame_artifact,
)

PLAIN = ScanOptions(
    sampling="full",
    frames=None,
    clips=None,
    detect_every=5,
    min_face=None,
    mirror=None,
    aggregate=None,
    threshold=None,
    face_detector="yunet",
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_clip_artifact(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_frame_artifact(tmp_path_factory.mktemp("frame")))


def chosen(*models: str, **options: Any) -> ScanSettings:
    return resolve_settings(msgspec.structs.replace(PLAIN, model=models, **options))


def respecced(path: str, folder: Path, spec: DetectorSpec, **changes: Any) -> str:
    """Copy an artifact with another spec, and with other entries in its manifest."""
    model = onnx.load_model(path)
    props = {entry.key: entry.value for entry in model.metadata_props}
    inside = {"spec": spec.to_json(), **{name: str(value).lower() for name, value in changes.items()}}
    props |= {f"{METADATA_PREFIX}{name}": value for name, value in inside.items()}
    helper.set_model_props(model, props)
    data = model.SerializeToString()
    old = Path(path)
    manifest = msgspec.json.decode(old.with_name(manifest_name(old.stem)).read_bytes(), type=Manifest)
    manifest = msgspec.structs.replace(manifest, spec=spec, sha256=hashlib.sha256(data).hexdigest(), **changes)
    folder.mkdir(parents=True)
    (folder / "changed.onnx").write_bytes(data)
    (folder / manifest_name("changed")).write_bytes(msgspec.json.encode(manifest))
    return str(folder / "changed.onnx")


@pytest.mark.parametrize("models", [(), ("",), ("lite", ""), ("lite", "lite")], ids=str)
def test_each_detector_is_named_once(models: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="must name each detector once"):
        chosen(*models)


@pytest.mark.parametrize(
    ("detectors", "options", "message"),
    [
        ("frame", {"sampling": "full", "frames": 5}, "--frames goes with"),
        ("clip", {"sampling": "full", "frames": 5}, "--frames goes with"),
        ("clip", {"sampling": "full", "clips": 5}, "--clips goes with"),
        ("clip", {"sampling": "paper", "clips": 5}, "--clips goes with"),
        ("frame", {"sampling": "quick", "clips": 5}, "--clips goes with"),
        ("frame", {"sampling": "paper", "clips": 5}, "--clips goes with"),
        ("clip", {"sampling": "quick", "frames": 5}, "use --clips"),
        ("frame clip", {"sampling": "quick", "frames": 5}, "use --clips"),
        ("clip", {"sampling": "full", "mirror": True}, "--mirror is for"),
        ("frame clip", {"sampling": "full", "mirror": True}, "--mirror is for"),
        ("clip", {"sampling": "full", "face_detector": "none"}, "--face-detector none is for"),
        ("frame clip", {"sampling": "quick", "face_detector": "none"}, "--face-detector none is for"),
        ("frame clip", {"sampling": "paper"}, "give one --model"),
        ("frame lite", {"sampling": "paper"}, "give one --model"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    clip: str, frame: str, detectors: str, options: dict[str, Any], message: str
) -> None:
    known = {"clip": clip, "frame": frame, "lite": "lite"}
    with pytest.raises(UsageError, match=re.escape(in_callers_words(message))):
        chosen(*(known[name] for name in detectors.split()), **options)


@pytest.mark.parametrize(
    ("detectors", "options"),
    [
        ("frame", {"sampling": "quick", "frames": 5}),
        ("frame", {"sampling": "paper", "frames": 5}),
        ("clip", {"sampling": "paper", "frames": 5}),
        ("clip", {"sampling": "quick", "clips": 5}),
        ("frame clip", {"sampling": "quick", "clips": 5}),
        ("frame", {"sampling": "full", "mirror": True}),
        ("clip", {"sampling": "full", "mirror": False}),
        ("frame lite", {"sampling": "full", "face_detector": "none"}),
    ],
)
def test_options_that_fit_are_not_refused(clip: str, frame: str, detectors: str, options: dict[str, Any]) -> None:
    known = {"clip": clip, "frame": frame, "lite": "lite"}
    names = [known[name] for name in detectors.split()]
    settings = chosen(*names, **options)
    assert len(settings.manifests) == len(settings.scoring) == len(names)


def test_full_takes_all_frames(clip: str, frame: str) -> None:
    for names in [(frame,), (clip,), (frame, clip)]:
        assert chosen(*names, detect_every=7).sampling == Sampling("all", detect_every=7)


def test_quick_takes_single_frames_or_windows_as_long_as_the_longest_clip(
    clip: str, frame: str, tmp_path: Path
) -> None:
    assert chosen(frame, "lite", sampling="quick").sampling == Sampling("middles", count=32, nearby=True)
    assert chosen(frame, sampling="quick", frames=7).sampling == Sampling("middles", count=7, nearby=True)
    windows = Sampling("windows", count=4, window_frames=8, detect_every=5)
    assert chosen(clip, sampling="quick").sampling == windows
    assert chosen(frame, clip, sampling="quick", clips=6).sampling == dataclasses.replace(windows, count=6)
    longer = respecced(clip, tmp_path / "longer", msgspec.structs.replace(TINY_CLIP, name="longer", frames=12))
    assert chosen(clip, longer, sampling="quick").sampling == dataclasses.replace(windows, window_frames=12)


def test_paper_follows_the_authors(clip: str, frame: str) -> None:
    settings = chosen(clip, sampling="paper")
    assert settings.sampling == Sampling("first", count=20, twice=True)
    assert (settings.stride, settings.largest_face, settings.whole_pictures) == (1, False, False)
    assert settings.scoring[0].aggregate == "mean"
    assert (settings.scoring[0].spec.min_frames, settings.scoring[0].spec.min_face_pixels) == (2, 1)
    settings = chosen(frame, sampling="paper")
    assert settings.sampling == Sampling("ends", count=6)
    assert settings.largest_face
    assert settings.scoring[0].spec.min_face_pixels == 1
    assert chosen(frame, sampling="paper", frames=9).sampling.count == 9
    settings = chosen("lite", sampling="paper")
    assert settings.sampling == Sampling("middles", count=16)
    assert not settings.largest_face
    assert settings.scoring[0].aggregate == "max"


def test_the_stride_is_that_of_the_authors_in_paper_only(clip: str, tmp_path: Path) -> None:
    paper = msgspec.structs.replace(TINY_CLIP.paper, stride=3)
    wider = respecced(clip, tmp_path / "wider", msgspec.structs.replace(TINY_CLIP, paper=paper))
    assert chosen(wider, sampling="paper").stride == 3
    assert chosen(wider).stride == chosen(wider, sampling="quick").stride == 1


def test_what_the_caller_wants_comes_before_what_the_detector_and_the_authors_say(frame: str) -> None:
    [scoring] = chosen(frame).scoring
    assert (scoring.mirror, scoring.aggregate, scoring.spec.min_face_pixels) == (False, "max", 64)
    assert scoring.spec.band == TINY_FRAME.band
    for mode in ("full", "paper"):
        [scoring] = chosen(frame, sampling=mode, mirror=True, aggregate="mean", min_face=33, threshold=0.7).scoring
        assert (scoring.mirror, scoring.aggregate, scoring.spec.min_face_pixels) == (True, "mean", 33)
        assert scoring.spec.band == LabelBand(real_below=0.5, fake_from=0.7)
    [scoring] = chosen(frame, sampling="paper", aggregate="max").scoring
    assert scoring.aggregate == "max"
    [scoring] = chosen("lite", mirror=False).scoring
    assert (LITE.mirror, scoring.mirror) == (True, False)


def test_how_many_crops_decide(clip: str, frame: str) -> None:
    assert [one.decisive_frames for one in chosen(frame, clip).scoring] == [12, 8]
    assert [one.decisive_frames for one in chosen(frame, clip, sampling="quick").scoring] == [12, 8]
    assert [one.decisive_frames for one in chosen(frame, sampling="quick").scoring] == [3]
    assert [one.decisive_frames for one in chosen(frame, sampling="paper").scoring] == [3]


def test_untrained_detectors_say_so(frame: str, tmp_path: Path) -> None:
    untrained = respecced(frame, tmp_path / "untrained", TINY_FRAME, trained=False)
    assert [one.model for one in chosen(untrained).scoring] == ["tiny-frame (untrained)"]
    both = [one.model for one in chosen(frame, untrained).scoring]  # one name twice: the weights tell them apart
    assert both == ["tiny-frame@000000000000", "tiny-frame@000000000000 (untrained)"]


# The hash.


def hashed(*models: str, **options: Any) -> list[str]:
    return [scoring.settings_sha256 for scoring in chosen(*models, **options).scoring]


def test_all_that_a_score_or_its_label_depends_on_is_in_the_hash(frame: str) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"detect_every": 6},
        {"min_face": 65},
        {"mirror": True},
        {"aggregate": "mean"},
        {"threshold": 0.6},
        {"face_detector": "none"},
        {"sampling": "quick"},
        {"sampling": "quick", "frames": 31},
        {"sampling": "paper"},
        {"sampling": "paper", "frames": 7},
    ]
    hashes = [hashed(frame, **each)[0] for each in options]
    for (first, one), (second, other) in combinations(zip(options, hashes, strict=True), 2):
        assert one != other, (first, second)
    assert all(len(one) == 64 for one in hashes)


@pytest.mark.parametrize(
    ("model", "options", "same"),
    [
        ("lite", {}, {"mirror": True}),
        ("lite", {}, {"min_face": 100}),
        ("lite", {}, {"aggregate": "max"}),
        ("lite", {}, {"threshold": 0.85}),
        ("lite", {"sampling": "quick"}, {"sampling": "quick", "frames": 32}),
        ("lite", {"sampling": "quick"}, {"sampling": "quick", "detect_every": 9}),
        ("lite", {"sampling": "paper"}, {"sampling": "paper", "frames": 16, "detect_every": 9, "aggregate": "max"}),
        ("clip", {"sampling": "quick"}, {"sampling": "quick", "clips": 4}),
        ("clip", {"sampling": "paper"}, {"sampling": "paper", "frames": 20, "detect_every": 9, "aggregate": "mean"}),
        ("clip", {}, {"mirror": False}),
    ],
)
def test_what_says_the_same_in_other_words_has_the_same_hash(
    clip: str, model: str, options: dict[str, Any], same: dict[str, Any]
) -> None:
    name = clip if model == "clip" else model
    assert hashed(name, **options) == hashed(name, **same)


def test_in_full_the_hash_of_a_detector_is_that_of_the_detector_alone(clip: str, frame: str) -> None:
    together = hashed(frame, "lite", clip)
    assert together == [*hashed(frame), *hashed("lite"), *hashed(clip)]
    assert len(set(together)) == 3


def test_windows_for_another_detector_change_the_hash(clip: str, frame: str) -> None:
    assert hashed(frame, clip, sampling="quick")[0] != hashed(frame, sampling="quick")[0]
    assert hashed(frame, clip, sampling="quick")[1] == hashed(clip, sampling="quick")[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 33},
        {"frames": 9},
        {"min_frames": 4},
        {"mean": (1.0, 2.0, 3.0)},
        {"std": (1.0, 2.0, 3.0)},
        {"channel_order": "BGR"},
        {"crop": msgspec.structs.replace(TINY_CLIP.crop, reach=0.4)},
        {"min_face_pixels": 63},
        {"pooling": "logit"},
        {"calibration": msgspec.structs.replace(TINY_CLIP.calibration, offset=0.1)},
        {"band": LabelBand(real_below=0.1, fake_from=0.5)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_the_spec_says_of_scores_is_in_the_hash(clip: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    changed = respecced(clip, tmp_path / "changed", msgspec.structs.replace(TINY_CLIP, **changes))
    assert hashed(changed) != hashed(clip)


def test_titles_weights_and_files_are_not_in_the_hash(clip: str, tmp_path: Path) -> None:
    retitled = msgspec.structs.replace(TINY_CLIP, title="Another title")
    other = respecced(clip, tmp_path / "other", retitled, weights_sha256="f" * 64, weights_file="other.pth")
    assert hashed(other) == hashed(clip)
    assert chosen(other).scoring[0].weights_sha256 == "f" * 64


@pytest.mark.parametrize(
    "changes",
    [{"frames": 21}, {"stride": 2}, {"min_frames": 3}, {"choice": "middles"}, {"aggregate": "max"}],
    ids=lambda changes: next(iter(changes)),
)
def test_the_rules_of_the_authors_are_in_the_hash_where_they_are_followed(
    clip: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    paper = msgspec.structs.replace(TINY_CLIP.paper, **changes)
    changed = respecced(clip, tmp_path / "changed", msgspec.structs.replace(TINY_CLIP, paper=paper))
    assert hashed(changed) == hashed(clip)
    assert hashed(changed, sampling="paper") != hashed(clip, sampling="paper")


def test_whose_face_counts_is_in_the_hash(frame: str, tmp_path: Path) -> None:
    paper = msgspec.structs.replace(TINY_FRAME.paper, tracks="overlap")
    tracked = respecced(frame, tmp_path / "tracked", msgspec.structs.replace(TINY_FRAME, paper=paper))
    assert not chosen(tracked, sampling="paper").largest_face
    assert hashed(tracked, sampling="paper") != hashed(frame, sampling="paper")
    assert hashed(tracked) == hashed(frame)


# Face detectors.


def test_a_whole_picture_is_one_face_that_fills_it() -> None:
    found = WholePicture().detect(np.zeros((3, 48, 64, 3), dtype=np.uint8))
    assert len(found) == 3
    for faces in found:
        assert len(faces) == 1
        assert faces.boxes.tolist() == [[0, 0, 64, 48]]
        assert faces.landmarks.shape == (1, 5, 2)
        assert faces.scores.tolist() == [1]
    assert WholePicture().detect(np.zeros((0, 48, 64, 3), dtype=np.uint8)) == []


def test_no_face_detector_takes_pictures_whole(frame: str) -> None:
    settings = chosen(frame, face_detector="none")
    assert isinstance(settings.load_face_detector("cpu"), WholePicture)
    assert settings.whole_pictures
    assert not chosen(frame).whole_pictures


def test_unbroken_tracks_want_less_certain_faces_too(clip: str, frame: str) -> None:
    def certainty(settings: ScanSettings) -> str | float:
        assert settings.detection_side == DETECTION_SIDE
        return settings.face_detector_identity[1]

    assert isinstance(chosen(clip).load_face_detector("cpu"), YuNet)
    assert certainty(chosen(clip, sampling="paper")) == AUTHORS_FACE_SCORE == 0.5
    assert certainty(chosen(clip)) == certainty(chosen(frame, sampling="paper")) == SCORE_THRESHOLD


def test_without_its_weights_retinaface_is_refused(frame: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    with pytest.raises(ModelError, match="retinaface"):
        chosen(frame, face_detector="retinaface")


def test_retinaface_searches_at_full_size_where_its_authors_rules_are_followed(
    clip: str, frame: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    model = install_retinaface(tmp_path)
    for name in (clip, frame):
        settings = chosen(name, sampling="paper", face_detector="retinaface")
        assert isinstance(settings.load_face_detector("cpu"), RetinaFace)
        assert settings.detection_side == FULL_SIDE
        assert chosen(name, face_detector="retinaface").detection_side == DETECTION_SIDE
        assert hashed(name, face_detector="retinaface") != hashed(name)
    settings = chosen(frame, face_detector="retinaface")
    model.unlink()
    with pytest.raises(ModelError, match="add the weights of retinaface again"):
        settings.load_face_detector("cpu")


def test_the_smallest_face_that_the_caller_wants_is_in_force_with_unbroken_tracks_too(clip: str) -> None:
    """Their rules know no smallest face; whoever wants one has it in the spec in force."""
    assert chosen(clip, sampling="paper").scoring[0].spec.min_face_pixels == 1
    assert chosen(clip, sampling="paper", min_face=50).scoring[0].spec.min_face_pixels == 50
    assert hashed(clip, sampling="paper", min_face=50) != hashed(clip, sampling="paper")
