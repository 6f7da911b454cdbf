from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.errors import ModelError
from deepscan.models.lite import LITE
from deepscan.models.registry import BUILTIN, find_detector
from deepscan.spec import (
    Calibration,
    ClipCrop,
    CropPolicy,
    DetectorSpec,
    LabelBand,
    Landmarks,
    PaperProtocol,
    SimilarityCrop,
    SquareCrop,
    spec_from_json,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=1e-6, max_value=1e6)
targets: st.SearchStrategy[Landmarks] = st.tuples(*[st.tuples(finite, finite)] * 5)
similarity_crops = st.builds(SimilarityCrop, target=targets)
crops: dict[str, st.SearchStrategy[CropPolicy]] = {
    "frame": st.one_of(st.builds(SquareCrop, scale=positive, shift_down=finite), similarity_crops),
    "clip": st.one_of(similarity_crops, st.builds(ClipCrop, target=targets, reach=positive)),
}


@st.composite
def specs(draw: st.DrawFn) -> DetectorSpec:
    kind: Literal["frame", "clip"] = draw(st.sampled_from(["frame", "clip"]))
    low, high = sorted([draw(st.floats(0, 1)), draw(st.floats(0, 1))])
    frames = 1 if kind == "frame" else draw(st.integers(2, 64))
    crop = draw(crops[kind])
    return DetectorSpec(
        name=draw(st.text()),
        title=draw(st.text()),
        kind=kind,
        size=draw(st.integers(1, 1024)),
        frames=frames,
        min_frames=draw(st.integers(1, frames)),
        mean=draw(st.tuples(finite, finite, finite)),
        std=draw(st.tuples(positive, positive, positive)),
        channel_order=draw(st.sampled_from(["RGB", "BGR"])),
        crop=crop,
        min_face_pixels=draw(st.integers(0, 500)),
        mirror=kind == "frame" and draw(st.booleans()),
        pooling=draw(st.sampled_from(["logit", "score"])),
        calibration=Calibration(scale=draw(finite), offset=draw(finite)),
        band=LabelBand(real_below=low, fake_from=high),
        paper=PaperProtocol(
            choice=draw(st.sampled_from(["first", "middles", "ends"])),
            frames=draw(st.integers(1, 1000)),
            tracks="unbroken" if isinstance(crop, ClipCrop) else draw(st.sampled_from(["overlap", "largest"])),
            stride=draw(st.integers(1, 64)),
            min_frames=draw(st.integers(1, frames)),
            min_face_pixels=draw(st.integers(0, 500)),
            aggregate=draw(st.sampled_from(["max", "mean"])),
        ),
    )


def changed(**changes: Any) -> str:
    """Return the record of `lite` with some fields, also of inner records (`band__real_below`), set or removed."""
    record = json.loads(LITE.to_json())
    for name, value in changes.items():
        *outer, last = name.split("__")
        place = record[outer[0]] if outer else record
        place[last] = value
        if value is ...:
            del place[last]
    return json.dumps(record)


def similarity_of(landmarks: int) -> dict[str, Any]:
    return {"rule": "similarity", "target": [[0.5, 0.25]] * landmarks}


@given(specs())
def test_a_spec_survives_json_in_one_line(spec: DetectorSpec) -> None:
    text = spec.to_json()
    assert "\n" not in text
    assert spec_from_json(text, source="x.onnx") == spec


@pytest.mark.parametrize("spec", [detector.spec for detector in BUILTIN.values()], ids=list(BUILTIN))
def test_the_specs_of_all_detectors_survive_json(spec: DetectorSpec) -> None:
    assert spec_from_json(spec.to_json(), source="x.onnx") == spec


def test_the_form_of_an_items_pixels_follows_from_the_kind() -> None:
    assert (LITE.input_name, LITE.item_shape) == ("faces", (224, 224, 3))
    clips = find_detector("ftcn").spec
    assert (clips.input_name, clips.item_shape) == ("clips", (32, 224, 224, 3))


def test_an_unchanged_record_is_accepted() -> None:
    assert spec_from_json(changed(), source="x.onnx") == LITE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        changed(surprise=1),
        changed(crop__surprise=1),
        changed(band__surprise=1),
        changed(calibration__surprise=1),
        changed(paper__surprise=1),
        changed(name=...),
        changed(calibration__offset=...),
        changed(name=3),
        changed(size="224"),
        changed(size=224.5),
        changed(mirror=1),
        changed(mean=[127.0, 127.0]),
        changed(kind="video"),
        changed(channel_order="GBR"),
        changed(pooling="median"),
        changed(crop__rule="circle"),
        changed(crop__rule=...),
        changed(crop__rule="similarity"),
        changed(crop__reach=0.5),
        changed(paper=...),
        changed(paper__choice="random"),
        changed(paper__tracks="all"),
        changed(paper__aggregate=None),
        changed(schema=1),
        changed(schema=3),
    ],
)
def test_a_record_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"^x\.onnx carries a detector spec that this version cannot read"):
        spec_from_json(text, source="x.onnx")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 0}, "at least 1"),
        ({"paper__frames": 0}, "at least 1"),
        ({"paper__stride": 0}, "at least 1"),
        ({"kind": "clip", "frames": 0}, "at least 1"),
        ({"frames": 32}, "a frame detector cannot take frames=32"),
        ({"kind": "clip"}, "a clip detector cannot take frames=1"),
        ({"min_frames": 0}, "min_frames lies between"),
        ({"min_frames": 2}, "min_frames lies between"),
        ({"paper__min_frames": 0}, "min_frames lies between"),
        ({"paper__min_frames": 2}, "min_frames lies between"),
        ({"kind": "clip", "frames": 32}, "takes aligned crops"),
        ({"kind": "clip", "frames": 32, "mirror": False}, "takes aligned crops"),
        ({"kind": "clip", "frames": 32, "crop": similarity_of(5)}, "no mirror images"),
        ({"crop": {"rule": "clip", "target": [[0, 0]] * 5, "reach": 0.5}}, "no clips to align"),
        ({"crop": {"rule": "clip", "target": [[0, 0]] * 4, "reach": 0.5}}, "length 5 - at .*target"),
        ({"crop": similarity_of(6)}, "length 5 - at .*target"),
        ({"paper__tracks": "unbroken"}, "belong together"),
        ({"band__real_below": 0.9}, "label band"),
        ({"band__real_below": -0.1}, "label band"),
        ({"band__fake_from": 1.1}, "label band"),
        ({"std": [128.0, 0.0, 128.0]}, "std must be positive"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        spec_from_json(changed(**changes), source="x.onnx")


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        LITE.size = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="label band"):
        msgspec.structs.replace(LITE, band=LabelBand(real_below=0.9, fake_from=0.1))


@pytest.mark.parametrize(
    ("logit", "score"),
    [
        (0.0, 0.302167),
        (2.0, 0.750073),
        (0.837 / 0.968, 0.5),
        (-700.0, 0.0),
        (1e4, 1.0),
        (-1e4, 0.0),
        (1e308, 1.0),
        (-1e308, 0.0),
    ],
)
def test_logits_are_calibrated_even_extreme_ones(logit: float, score: float) -> None:
    assert LITE.calibration.score(logit) == pytest.approx(score, abs=1e-6)


@given(finite, finite)
def test_calibration_never_leaves_the_unit_interval_and_keeps_the_order(one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert 0.0 <= LITE.calibration.score(low) <= LITE.calibration.score(high) <= 1.0
