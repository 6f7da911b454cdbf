"""Crops or clips of the user's videos: some to calibrate with, others for the parity check."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import random
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from deepscan.errors import UsageError
from deepscan.export.parity.samples import Samples, gather_samples
from deepscan.spec import DetectorSpec

log = logging.getLogger(__name__)

CALIBRATION_CROPS: Final = 256
CALIBRATION_CLIPS: Final = 16
# Samples that the parity check takes of --parity-data.
GATE_CROPS: Final = 256
GATE_CLIPS: Final = 32
# Share of what is gathered for calibration that is held out for the parity check.
HELD_OUT: Final = 0.25
# With fewer videos, single items are held out instead of whole videos.
FEWEST_VIDEOS: Final = 4


def calibration_data(
    spec: DetectorSpec,
    paths: Sequence[str],
    *,
    items: int | None,
    seed: int,
    labels: Mapping[str, bool] | None,
) -> tuple[Samples, Samples]:
    """Gather crops or clips, and split them.

    Args:
        spec: spec of the detector.
        paths: videos and folders.
        items: number of items to calibrate with.
        seed: seed of the choice and of the split.
        labels: for paths of videos whether they are forgeries.

    Returns:
        Samples to calibrate with, and those held out: of other videos, if there are at least four.

    Raises:
        UsageError: there is no path, or no video with a face.
    """
    if not paths:
        raise UsageError(
            "--int8 needs real faces to find the ranges with: give videos like those you will scan, "
            "with --calibration-data FOLDER."
        )
    wanted = items or (CALIBRATION_CLIPS if spec.kind == "clip" else CALIBRATION_CROPS)
    count = math.ceil(wanted / (1 - HELD_OUT))
    gathered = gathered_data(spec, paths, items=count, seed=seed, labels=labels)
    if len(gathered.items) < 2:
        raise UsageError(f"{paths[0]} gave one single {spec.input_name[:-1]}: give more videos to calibrate with.")
    held = _held_out(gathered, random.Random(seed))
    return _picked(gathered, [place for place in range(len(held)) if not held[place]]), _picked(
        gathered, [place for place in range(len(held)) if held[place]]
    )


def gathered_data(
    spec: DetectorSpec,
    paths: Sequence[str],
    *,
    items: int,
    seed: int,
    labels: Mapping[str, bool] | None,
) -> Samples:
    """Gather crops or clips of the user's videos; see `deepscan.export.parity.samples.gather_samples`."""

    def progress(number: int) -> None:
        log.info("cutting %s out of your videos: %d of %d", spec.input_name, number, items)

    return gather_samples(paths, spec, count=items, seed=seed, labels=labels, progress=progress)


def joined(parts: Sequence[Samples]) -> Samples:
    """Put samples one behind another."""
    items = np.concatenate([part.items for part in parts])
    return Samples(
        items=items,
        sources=tuple(itertools.chain.from_iterable(part.sources for part in parts)),
        videos=tuple(itertools.chain.from_iterable(part.videos for part in parts)),
        fakes=tuple(itertools.chain.from_iterable(part.fakes for part in parts)),
        sha256=hashlib.sha256(items.data).hexdigest(),
        skipped=tuple(dict.fromkeys(itertools.chain.from_iterable(part.skipped for part in parts))),
    )


def _held_out(samples: Samples, chance: random.Random) -> list[bool]:
    """Return for each item whether it is held out: at least one, and never all."""
    count = len(samples.items)
    videos = sorted(set(samples.videos))
    if len(videos) < FEWEST_VIDEOS:
        chosen = set(chance.sample(range(count), max(1, int(count * HELD_OUT))))
        return [place in chosen for place in range(count)]
    named = set(chance.sample(videos, max(1, int(len(videos) * HELD_OUT))))
    return [video in named for video in samples.videos]


def _picked(samples: Samples, places: Sequence[int]) -> Samples:
    items = samples.items[list(places)]
    return Samples(
        items=items,
        sources=tuple(samples.sources[place] for place in places),
        videos=tuple(samples.videos[place] for place in places),
        fakes=tuple(samples.fakes[place] for place in places),
        sha256=hashlib.sha256(items.data).hexdigest(),
        skipped=samples.skipped,
    )
