from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepscan import Scan, UsageError, scan
from deepscan.runtime import scan_arguments as check
from tests.footage import NO_FACE


def settings_of(running: Scan) -> Any:
    return running._crew.order.wishes


def test_numbers_of_numpy_become_plain_ones() -> None:
    given: dict[str, Any] = {"frames": np.int64(4), "min_face": np.uint16(80), "threshold": np.float64(0.5)}
    running = scan(NO_FACE, **given | {"mirror": np.bool_(False)})
    wishes = settings_of(running)
    assert (wishes.frames, wishes.min_face, wishes.threshold, wishes.mirror) == (4, 80, 0.5, False)
    assert [type(value) for value in (wishes.frames, wishes.min_face, wishes.threshold, wishes.mirror)] == [
        *(int, int, float, bool)
    ]
    assert settings_of(scan(NO_FACE, threshold=1)).threshold == 1.0


def some() -> Iterator[Path]:
    yield NO_FACE


@pytest.mark.parametrize(
    "given", [NO_FACE, str(NO_FACE), bytes(NO_FACE), [NO_FACE], {NO_FACE}, some(), [bytes(NO_FACE)]]
)
def test_paths_may_be_of_any_kind_and_in_any_collection(given: Any) -> None:
    assert [planned.path for planned in scan(given).plan.inputs] == [str(NO_FACE)]


def test_detectors_may_be_paths(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"none\.onnx does not exist"):
        scan(NO_FACE, model=tmp_path / "none.onnx")  # type: ignore[arg-type]
    assert check.detectors(["lite", Path("a.onnx")]) == ["lite", "a.onnx"]
    assert check.detectors(" lite ,a.onnx") == ["lite", "a.onnx"]


WHOLE = ("frames", "clips", "detect_every", "min_face", "jobs", "memory")


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("16", "must be a whole number, not '16'"),
        (2.5, r"must be a whole number, not 2\.5 \(float\)"),
        (True, r"must be a whole number, not True \(bool\)"),
        ([4], r"must be a whole number, not \[4\] \(list\)"),
        (0, "must be at least 1, not 0"),
        (-(10**30), "must be at least 1"),
        (10**30, "is too large: use at most"),
        (np.float64(3.0), "must be a whole number"),
    ],
)
def test_whole_numbers(name: str, value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name} {says}"):
        scan(NO_FACE, **{name: value})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"paths": None}, "^paths must be a path, or a list of paths, not None"),
        ({"paths": 3}, r"^paths must be a path, or a list of paths, not 3 \(int\)"),
        ({"paths": [None]}, "^paths must be a path, not None"),
        ({"paths": []}, "There is nothing to scan"),
        ({"paths": iter(())}, "There is nothing to scan"),
        ({"model": None}, "^model must be the name of a detector, or a list of names, not None"),
        ({"model": [3]}, r"^model must be a path, not 3 \(int\)"),
        ({"threshold": "0.5"}, "^threshold must be a number, not '0.5'"),
        ({"threshold": 10**400}, "^threshold is too large"),
        ({"threshold": float("nan")}, "^threshold is a probability between 0 and 1, not nan"),
        ({"timeout": 0}, "^timeout must be more than 0 seconds, not 0"),
        ({"timeout": float("nan")}, "^timeout must be more than 0 seconds, not nan"),
        ({"timeout": float("inf")}, "^timeout is too large"),
        ({"timeout": 10**400}, "^timeout is too large"),
        ({"timeout": "60"}, "^timeout must be a number, not '60'"),
        ({"mirror": "no"}, "^mirror must be True or False, not 'no'"),
        ({"recursive": "no"}, "^recursive must be True or False"),
        ({"follow_links": 1}, "^follow_links must be True or False"),
        ({"include": 3}, "^include must be text, or a list of it"),
        ({"exclude": [b"x"]}, "^exclude must be text, not b'x'"),
        ({"device": None}, "^device must be text, not None"),
        ({"trace": 3}, "^trace must be a path"),
        ({"limits": {"frames": 3}}, r"^limits must be made with deepscan\.Limits"),
        ({"aggregate": ["max"]}, r"^aggregate \['max'\] \(list\) is not known: use one of max, mean"),
        ({"sampling": 3}, r"^sampling 3 \(int\) is not known"),
        ({"frames": "x" * 1000}, "^frames must be a whole number, not a value of the type str"),
    ],
)
def test_what_has_the_wrong_kind_is_refused_by_the_name_of_its_keyword(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        scan(**({"paths": NO_FACE} | arguments))


@pytest.mark.parametrize("check_", [check.number, check.seconds, check.probability, check.whole_number, check.text])
def test_none_is_no_value_unless_it_may_be_left_out(check_: Callable[[str, object], object]) -> None:
    assert check.optional(check_, "--x", None) is None
    with pytest.raises(UsageError, match=r"--x must be .*, not None"):
        check_("--x", None)
