from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepscan import Scan, UsageError, scan
from deepscan import arguments as check
from tests.footage import NO_FACE


def settings_of(running: Scan) -> Any:
    return running._options


def test_numbers_of_numpy_become_plain_ones() -> None:
    given: dict[str, Any] = {"frames": np.int64(4), "min_face": np.uint16(80), "threshold": np.float64(0.5)}
    running = scan(NO_FACE, **given | {"mirror": np.bool_(False)})
    options = settings_of(running)
    assert (options.frames, options.min_face, options.threshold, options.mirror) == (4, 80, 0.5, False)
    assert [type(value) for value in (options.frames, options.min_face, options.threshold, options.mirror)] == [
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
        scan(NO_FACE, model=tmp_path / "none.onnx")
    assert check.detectors("--model", ["lite", Path("a.onnx")]) == ("lite", "a.onnx")
    assert check.detectors("--model", " lite ,a.onnx") == ("lite", "a.onnx")


WHOLE = ("frames", "clips", "detect_every", "min_face", "jobs", "memory")


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("16", "'16'"),
        (2.5, r"2\.5"),
        (True, r"True \(bool\)"),
        ([4], r"\[4\] \(list\)"),
        (0, "0"),
        (-(10**30), "-10{30}"),
        (10**30, "10{30}"),
        pytest.param(10**5000, "a number of more than 40 digits", id="long"),
        (np.float64(3.0), r"3\.0"),
    ],
)
def test_whole_numbers(name: str, value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name} must be a whole number from 1 to [\d,]+, not {says}\."):
        scan(NO_FACE, **{name: value})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"paths": None}, "^paths must be a path, or a list of paths, not None"),
        ({"paths": 3}, "^paths must be a path, or a list of paths, not 3"),
        ({"paths": [None]}, "^paths must be a path, not None"),
        ({"paths": []}, "There is nothing to scan"),
        ({"paths": iter(())}, "There is nothing to scan"),
        ({"model": None}, "^model must be the name of a detector, or a list of names, not None"),
        ({"model": [3]}, "^model must be a path, not 3"),
        ({"threshold": "0.5"}, "^threshold must be a number from 0 to 1, not '0.5'"),
        ({"threshold": 10**400}, "^threshold must be a number from 0 to 1, not a number of more than 40 digits"),
        ({"threshold": float("nan")}, "^threshold must be a number from 0 to 1, not nan"),
        ({"timeout": 0}, r"^timeout must be a number more than 0 and at most 1e\+09, not 0"),
        ({"timeout": float("nan")}, "^timeout must be a number more than 0 .*, not nan"),
        ({"timeout": float("inf")}, "^timeout must be a number more than 0 .*, not inf"),
        ({"timeout": 10**400}, "^timeout must be .* more than 40 digits"),
        ({"timeout": "60"}, "^timeout must be a number more than 0 .*, not '60'"),
        ({"mirror": "no"}, "^mirror must be True or False, not 'no'"),
        ({"recursive": "no"}, "^recursive must be True or False"),
        ({"follow_links": 1}, "^follow_links must be True or False"),
        ({"include": 3}, "^include must be text, or a list of it"),
        ({"exclude": b"x"}, r"^exclude must be text, not b'x' \(bytes\)"),
        ({"exclude": [b"x"]}, "^exclude must be text, not b'x'"),
        ({"device": None}, "^device must be text, not None"),
        ({"trace": 3}, "^trace must be a path"),
        ({"limits": {"frames": 3}}, r"^limits must be made with deepscan\.Limits"),
        ({"aggregate": ["max"]}, r"^aggregate \['max'\] \(list\) is not known: use one of max, mean"),
        ({"sampling": 3}, "^sampling 3 is not known"),
        ({"frames": "x" * 1000}, "^frames must be a whole number from 1 to 1,000,000, not a long text"),
    ],
)
def test_what_has_the_wrong_kind_is_refused_by_the_name_of_its_keyword(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        scan(**({"paths": NO_FACE} | arguments))


@pytest.mark.parametrize("check_", [check.whole_number, check.text])
def test_none_is_no_value(check_: Callable[[str, object], object]) -> None:
    with pytest.raises(UsageError, match=r"--x must be .*, not None"):
        check_("--x", None)
