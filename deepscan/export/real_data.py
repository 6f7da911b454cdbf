"""Calibration data from the user's videos: crops or clips to calibrate with, and others for the parity check."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Final

from deepscan.errors import UsageError
from deepscan.export.parity.samples import Samples, gather_samples
from deepscan.spec import DetectorSpec

CALIBRATION_CROPS: Final = 256
CALIBRATION_CLIPS: Final = 16
# Numbers of samples that the parity check takes from --parity-data.
PARITY_CROPS: Final = 256
PARITY_CLIPS: Final = 32
# Share of the calibration data that is held out for the parity check.
HELD_OUT: Final = 0.25
# With fewer videos, items are held out one by one instead of whole videos.
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

    `items` is the number to calibrate with; None takes 256 crops or 16 clips. `labels` tell whether videos are
    forgeries, by their paths.

    Returns:
        Samples to calibrate with, and samples held out: of other videos, if there are at least four.

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
    gathered = gather_samples(paths, spec, count=count, seed=seed, labels=labels)
    if len(gathered.items) < 2:
        raise UsageError(f"{paths[0]} gave one single {spec.input_name[:-1]}: give more videos to calibrate with.")
    held = _held_out(gathered, random.Random(seed))
    splits = ([place for place, chosen in enumerate(held) if chosen is part] for part in (False, True))
    calibrating, held_out = map(gathered.picked, splits)
    return calibrating, held_out


def _held_out(samples: Samples, chance: random.Random) -> list[bool]:
    """Return for each item whether it is held out: at least one, and never all."""
    count = len(samples.items)
    videos = sorted(set(samples.videos))
    if len(videos) < FEWEST_VIDEOS:
        chosen = set(chance.sample(range(count), max(1, int(count * HELD_OUT))))
        return [place in chosen for place in range(count)]
    named = set(chance.sample(videos, max(1, int(len(videos) * HELD_OUT))))
    return [video in named for video in samples.videos]
