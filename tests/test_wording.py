from __future__ import annotations

import pytest

from deepscan.wording import counted, plural


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (1.0, "1.0 frame"), (0.5, "0.5 frames")]
)
def test_only_one_takes_the_singular(number: float, said: str) -> None:
    assert counted(number, "frame") == said


def test_a_plural_that_takes_more_than_an_s_is_given() -> None:
    assert counted(2, "device or pipe", "devices or pipes") == "2 devices or pipes"
    assert plural(1, "was", "were") == "was"
