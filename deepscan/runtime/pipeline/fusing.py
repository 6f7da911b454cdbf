"""The row `fused` of a scan with `--fuse`: one score of the scores of several detectors.

It is made of the detectors' rows alone, those of earlier scans included, so that a fusion costs no scan of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from deepscan.errors import UsageError
from deepscan.options import ScanOptions
from deepscan.profiles import Fusion, Profile, read_fusion
from deepscan.results import FUSED, Segment, Status, VideoResult, row_number
from deepscan.runtime.pipeline.calibrations import bare_name, refuse_profile
from deepscan.runtime.pipeline.scoring import label_of
from deepscan.runtime.pipeline.settings import ScanSettings
from deepscan.spec import LabelBand

# Fused scores are calibrated like those of `lite`, whose thresholds these are.
BAND: Final = LabelBand(real_below=0.50, fake_from=0.85)
# Where no detector has a score, the first of these that one of them has says most about the video.
TELLING: Final[tuple[Status, ...]] = (
    "crashed", "timeout", "over_limit", "unreadable", "unsupported", "small_face", "too_short", "no_face"
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedDetector:
    """A fusion as the last detector of a scan.

    Attributes:
        fusion: the fusion.
        places: place of each of its detectors among those of the scan.
        band: thresholds of its labels.
        weights_sha256: hash of the weights of its detectors.
        settings_sha256: hash of the fusion, the settings of its detectors and the thresholds.
    """

    fusion: Fusion
    places: tuple[int, ...]
    band: LabelBand
    weights_sha256: str
    settings_sha256: str

    @property
    def model(self) -> str:
        """Name in the results."""
        return FUSED

    def add(self, results: Sequence[VideoResult]) -> tuple[VideoResult, ...]:
        """Return the results of one input, one per detector of the scan, followed by the fused one."""
        index, count = results[0].index, len(results) + 1
        own = [structs.replace(each, row=row_number(index, place, count)) for place, each in enumerate(results)]
        fused = self._fused([results[place] for place in self.places])
        return (*own, structs.replace(fused, row=row_number(index, count - 1, count)))

    def _fused(self, members: Sequence[VideoResult]) -> VideoResult:
        pairs = list(zip(self.fusion.profiles, members, strict=True))
        score = self.fusion.probability({profile.detector: row.score for profile, row in pairs})
        scored = [(profile, row) for profile, row in pairs if row.score is not None]
        worst = min((row for _, row in scored if row.quality is not None), key=_quality_rank, default=None)
        template = scored[0][1] if scored else min(members, key=lambda row: TELLING.index(row.status))
        common = structs.replace(
            template,
            model=FUSED,
            reason="; ".join(_remarks(members)),
            faces=max(row.faces for row in members),
            tracks=max(row.tracks for row in members),
            clips=sum(row.clips for row in members),
            frames=max(row.frames for row in members),
            backend="+".join(dict.fromkeys(row.backend for row in members)),
            precision="+".join(dict.fromkeys(row.precision for row in members)),
            weights_sha256=self.weights_sha256,
            settings_sha256=self.settings_sha256,
            elapsed_seconds=max(row.elapsed_seconds for row in members),
            quality=worst.quality if worst is not None else None,
            quality_details=worst.quality_details if worst is not None else None,
            details=(),
        )
        if score is None:
            return common
        label = "uncertain" if any(_doubted(row) for _, row in scored) else label_of(score, self.band)
        return structs.replace(
            common,
            score=score,
            label=label,
            real_below=self.band.real_below,
            fake_from=self.band.fake_from,
            peak=_peak(scored),
        )


def resolve_fusion(settings: ScanSettings, options: ScanOptions) -> FusedDetector | None:
    """Return the fusion that the options name, if they do.

    Raises:
        UsageError: the file is no fusion, or one of other detectors, weights or settings than those of the scan.
    """
    if options.fuse is None:
        return None
    fusion = read_fusion(options.fuse)
    names = [profile.detector for profile in fusion.profiles]
    scanned = {bare_name(key.model) for key in settings.uncalibrated}
    missing = [name for name in names if bare_name(name) not in scanned]
    if missing:
        raise UsageError(
            f"{options.fuse} fuses {', '.join(names)}, and {missing[0]} is not among the detectors of this scan: give "
            f"--model {','.join(names)}."
        )
    places = []
    for profile in fusion.profiles:
        fitting = [place for place, key in enumerate(settings.uncalibrated) if key.takes(profile)]
        if not fitting:
            refuse_profile(profile, options.fuse, settings.uncalibrated)
        places.append(fitting[0])
    members = [settings.scoring[place] for place in places]
    band = BAND.with_threshold(options.threshold)
    used = [fusion.sha256, [each.settings_sha256 for each in members], [band.real_below, band.fake_from]]
    return FusedDetector(
        fusion=fusion,
        places=tuple(places),
        band=band,
        weights_sha256=_hash([each.weights_sha256 for each in members]),
        settings_sha256=_hash(used),
    )


def _hash(used: object) -> str:
    return hashlib.sha256(json.dumps(used).encode()).hexdigest()


def _remarks(members: Sequence[VideoResult]) -> list[str]:
    """Return the remarks of the rows, each once, and which of several detectors have no score."""
    missing = [row for row in members if row.score is None]
    said = (
        [f"{row.model} has no score ({row.status})" for row in missing] if len({r.status for r in members}) > 1 else []
    )
    return [*said, *dict.fromkeys(row.reason for row in members if row.reason)]


def _quality_rank(row: VideoResult) -> int:
    return ("low", "fair", "good").index(row.quality or "good")


def _doubted(row: VideoResult) -> bool:
    """Tell whether a label is `uncertain` for another reason than the score, or would be if the score allowed one."""
    if row.label == "uncertain" and row.quality == "low":
        return True
    if row.label != "uncertain" or row.score is None or row.real_below is None or row.fake_from is None:
        return False
    return label_of(row.score, LabelBand(real_below=row.real_below, fake_from=row.fake_from)) != "uncertain"


def _peak(scored: Sequence[tuple[Profile, VideoResult]]) -> Segment | None:
    """Return the peak of the detector with the highest calibrated score, calibrated."""
    profile, row = max(scored, key=lambda pair: pair[0].calibrated(pair[1].score or 0.0))
    return None if row.peak is None else structs.replace(row.peak, score=profile.calibrated(row.peak.score))
