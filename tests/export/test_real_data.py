from __future__ import annotations

import hashlib
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepscan.errors import UsageError
from deepscan.export.parity.samples import Samples, gather_samples, joined
from deepscan.export.real_data import calibration_data
from deepscan.models.registry import find_detector
from tests.footage import ASTRONAUT, EXAMPLES, NO_FACE, PHONE, TWO_FACES, example_frames

SPEC = find_detector("recce").spec


def split(paths: list[Path], items: int, seed: int = 0) -> tuple[Samples, Samples]:
    names = [str(path) for path in paths]
    return calibration_data(SPEC, names, items=items, seed=seed, labels=None)


def test_whole_videos_are_held_out_where_there_are_four(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deepscan")
    calibrating, held_out = split([EXAMPLES], 12)
    assert not set(calibrating.videos) & set(held_out.videos)
    assert len(set(held_out.videos)) == 1
    assert len(calibrating.items) + len(held_out.items) == 16
    assert any("of 16" in line for line in caplog.messages)


def test_single_crops_are_held_out_where_there_are_few_videos() -> None:
    calibrating, held_out = split([ASTRONAUT, PHONE], 6)
    assert (len(calibrating.items), len(held_out.items)) == (6, 2)
    pictures = [hashlib.sha256(item).hexdigest() for item in (*calibrating.items, *held_out.items)]
    assert len(set(pictures)) == 8


def test_the_split_depends_on_the_seed_and_on_nothing_else() -> None:
    first, again, other = (split([ASTRONAUT, PHONE], 6, seed=seed) for seed in (1, 1, 2))
    assert first[0].sha256 == again[0].sha256
    assert first[1].sha256 == again[1].sha256
    assert first[1].sha256 != other[1].sha256


def test_the_hash_is_of_the_items_that_were_picked() -> None:
    for part in split([ASTRONAUT], 6):
        assert part.sha256 == hashlib.sha256(part.items.data).hexdigest()


def test_no_data_is_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--int8 needs real faces .* --calibration-data FOLDER\.$"):
        split([], 6)
    with pytest.raises(UsageError, match="no_face"):
        split([NO_FACE], 6)
    picture = tmp_path / "one.png"
    Image.fromarray(example_frames(ASTRONAUT, 1)[0]).save(picture)
    with pytest.raises(UsageError, match=r"one\.png gave one single face: give more"):
        split([picture], 6)


def test_joining_keeps_the_order_and_what_belongs_to_each_item() -> None:
    parts = [
        gather_samples([path], SPEC, count=3, seed=0, labels={str(path): fake})
        for path, fake in ((TWO_FACES, False), (PHONE, True))
    ]
    whole = joined(parts)
    np.testing.assert_array_equal(whole.items, np.concatenate([part.items for part in parts]))
    assert whole.sources == (*parts[0].sources, *parts[1].sources)
    assert Counter(whole.fakes) == {False: len(parts[0].items), True: len(parts[1].items)}
    assert whole.videos == (*parts[0].videos, *parts[1].videos)
    assert whole.sha256 == hashlib.sha256(whole.items.data).hexdigest()
