from __future__ import annotations

import pytest
from msgspec.structs import replace

from deepscan.cli.screen import legend, statuses_in_words, stretch
from tests.runtime.result_rows import row


def test_each_detector_and_pair_of_thresholds_is_explained_once() -> None:
    bands = [("lite", 0.35, 0.8), ("lite", 0.35, 0.8), ("hff", 0.5, 0.5), ("lite", 0.5, 0.95), ("ftcn", None, None)]
    rows = [replace(row(), model=model, real_below=below, fake_from=above) for model, below, above in bands]
    assert list(legend(rows)) == [
        "lite: real below 0.35, fake from 0.8, uncertain between.",
        "hff: real below 0.5, fake from 0.5.",
        "lite: real below 0.5, fake from 0.95, uncertain between.",
    ]


@pytest.mark.parametrize(
    ("start", "end", "digits", "said"),
    [(2.0, 2.2, 0, "2 s"), (2.0, 3.0, 0, "2-3 s"), (0.0, 0.0, 1, "0.0 s"), (2.0, 2.2, 1, "2.0-2.2 s")],
)
def test_a_stretch_that_is_too_short_to_write_is_a_moment(start: float, end: float, digits: int, said: str) -> None:
    assert stretch(start, end, digits) == said


def test_labels_are_counted_beside_what_was_scored() -> None:
    said = statuses_in_words({"unreadable": 1, "scored": 2}, {"fake": 2})
    assert said == "2 scored (2 fake, 0 uncertain, 0 real), 1 unreadable"
    assert statuses_in_words({"no_face": 3}, {}) == "3 no_face"
