"""Settings of a scan: its options resolved against the detectors, with the hash of everything a score depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import msgspec

from deepscan.errors import UsageError
from deepscan.limits import Limits
from deepscan.options import Aggregate, FaceDetectorChoice, ScanOptions
from deepscan.profiles import Profile
from deepscan.runtime.artifacts.artifacts import Manifest, Precision, read_manifest
from deepscan.runtime.artifacts.weights_store import HASH_DIGITS
from deepscan.runtime.faces.detections import FaceDetector
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE, face_detector, face_detector_identity
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.calibrations import UNTRAINED, Uncalibrated, resolve_profiles, unused_profiles
from deepscan.runtime.pipeline.scoring import MIN_SIGHTINGS, ScoringSettings
from deepscan.runtime.system.machine import Device
from deepscan.spec import DetectorSpec

# Part of `settings_sha256`; incremented whenever the same settings give other scores or labels.
SCORING_VERSION: Final = 5
# Fields of a spec that change neither scores nor labels, or that are hashed in another form.
NOT_SCORING: Final = frozenset(["schema", "title", "paper"])
QUICK_FRAMES: Final = 32
QUICK_CLIPS: Final = 4
# Frames of a decisive track, with frame detectors; clip detectors need the frames of a clip.
DECISIVE_CROPS_DENSE: Final = 12
DECISIVE_CROPS_SPARSE: Final = 3
# Larger than any picture, so that faces are searched for at the video's own size.
FULL_SIDE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSettings:
    """Settings of a scan; manifests and scoring settings are those of the detectors, in the same order.

    Attributes:
        face_detector_identity: everything that the detections of the face detector depend on.
        detection_side: longer side of the pictures that it searches, in pixels, at most.
        stride: number of frames between the starts of two clips, for unbroken tracks.
        largest_face: whether only the largest face of each frame counts.
        whole_pictures: whether every picture is already the crop of a face.
        uncalibrated: what profiles of the detectors are bound to.
        notes: sentences about profiles that are not applied.
    """

    manifests: tuple[Manifest, ...]
    scoring: tuple[ScoringSettings, ...]
    sampling: Sampling
    face_detector: FaceDetectorChoice
    face_detector_identity: list[str | float]
    detection_side: int
    stride: int
    largest_face: bool
    whole_pictures: bool
    limits: Limits
    uncalibrated: tuple[Uncalibrated, ...] = ()
    notes: tuple[str, ...] = ()

    def load_face_detector(self, device: Device) -> FaceDetector:
        """Load the face detector; see `face_detector`."""
        return face_detector(self.face_detector, device=device, as_authors=self.sampling.twice)


def resolve_settings(options: ScanOptions) -> ScanSettings:
    """Resolve options, from the manifests and hashes of the detectors; no detector is loaded.

    Raises:
        UsageError: the options contradict each other or the detectors.
        ModelError: a detector cannot be found, or does not match its manifest.
    """
    models = options.model
    if not models or not all(models) or len(set(models)) < len(models):
        raise UsageError(f"--model {','.join(models)!r} must name each detector once, with commas between them.")
    manifests = tuple(read_manifest(name) for name in models)
    if len({manifest.sha256 for manifest in manifests}) < len(manifests):
        raise UsageError(f"--model {','.join(models)!r} names one detector with the same weights twice.")
    specs = [manifest.spec for manifest in manifests]
    _refuse_contradictions(specs, options)
    paper = specs[0].paper if options.mode == "paper" else None
    sampling = _sampling(specs, options)
    as_authors = paper is not None and options.face_detector == "retinaface"
    partial = ScanSettings(
        manifests=manifests,
        scoring=(),
        sampling=sampling,
        face_detector=options.face_detector,
        face_detector_identity=face_detector_identity(options.face_detector, as_authors=sampling.twice),
        detection_side=FULL_SIDE if as_authors else DETECTION_SIDE,
        stride=paper.stride if paper else 1,
        largest_face=paper is not None and paper.tracks == "largest",
        whole_pictures=options.face_detector == "none",
        limits=options.limits,
    )
    pairs = zip(_models(manifests), manifests, strict=True)
    plain = [_scoring(model, manifest, partial, options) for model, manifest in pairs]
    keys = [Uncalibrated(each.model, each.weights_sha256, each.settings_sha256) for each in plain]
    profiles = resolve_profiles(keys, options)
    notes = () if options.calibration or options.fuse else tuple(unused_profiles(keys, profiles))
    scoring = [
        _labeled(each, manifest.precision, partial, profile, options.threshold)
        for each, manifest, profile in zip(plain, manifests, profiles, strict=True)
    ]
    return replace(partial, scoring=tuple(scoring), uncalibrated=tuple(keys), notes=notes)


def _refuse_contradictions(specs: Sequence[DetectorSpec], options: ScanOptions) -> None:
    clip_detectors = [spec.name for spec in specs if spec.kind == "clip"]
    if options.mode == "paper" and len(specs) > 1:
        raise UsageError("--sampling paper follows the rules of one detector's authors: give one --model.")
    if options.frames is not None and options.mode == "full":
        raise UsageError("--frames goes with --sampling quick or --sampling paper: full scores every frame.")
    if options.clips is not None and (options.mode != "quick" or not clip_detectors):
        raise UsageError(
            "--clips goes with --sampling quick and a detector that takes clips: use --frames, or neither."
        )
    if options.frames is not None and options.mode == "quick" and clip_detectors:
        raise UsageError(f"--frames means single frames, but {clip_detectors[0]} takes clips: use --clips.")
    if options.mirror and clip_detectors:
        raise UsageError(f"--mirror is for detectors of single frames, and {clip_detectors[0]} takes clips.")
    if options.face_detector == "none" and options.min_face is not None:
        raise UsageError("--min-face has no meaning with --face-detector none, which looks for no faces: leave it out.")
    if options.face_detector == "none" and clip_detectors:
        raise UsageError(
            f"--face-detector none is for detectors of single frames, and {clip_detectors[0]} takes clips."
        )


def _models(manifests: Sequence[Manifest]) -> list[str]:
    """Return the detectors' names in results, with a hash if one detector is used with several weights."""
    names = [manifest.spec.name for manifest in manifests]
    models = []
    for name, manifest in zip(names, manifests, strict=True):
        weights = f"@{manifest.weights_sha256[:HASH_DIGITS]}" if names.count(name) > 1 else ""
        models.append(f"{name}{weights}{'' if manifest.trained else UNTRAINED}")
    return models


def _sampling(specs: Sequence[DetectorSpec], options: ScanOptions) -> Sampling:
    if options.mode == "full":
        return Sampling("all", detect_every=options.detect_every)
    if options.mode == "paper":
        paper = specs[0].paper
        return Sampling(paper.choice, count=options.frames or paper.frames, twice=paper.tracks == "unbroken")
    longest = max(spec.frames for spec in specs)
    if longest == 1:
        return Sampling("middles", count=options.frames or QUICK_FRAMES, nearby=True)
    return Sampling(
        "windows", count=options.clips or QUICK_CLIPS, window_frames=longest, detect_every=options.detect_every
    )


def _scoring(model: str, manifest: Manifest, settings: ScanSettings, options: ScanOptions) -> ScoringSettings:
    spec = _in_force(manifest.spec, options)
    mirrors = spec.mirror if options.mirror is None else options.mirror
    aggregate = options.aggregate or (spec.paper.aggregate if options.mode == "paper" else "max")
    decisive = DECISIVE_CROPS_SPARSE if settings.sampling.sparse else DECISIVE_CROPS_DENSE
    return ScoringSettings(
        model=model,
        spec=spec,
        aggregate=aggregate,
        decisive_frames=spec.frames if spec.kind == "clip" else decisive,
        sampling=settings.sampling,
        mirror=mirrors,
        weights_sha256=manifest.weights_sha256,
        settings_sha256=_settings_sha256(
            spec, settings, precision=manifest.precision, mirror=mirrors, aggregate=aggregate
        ),
    )


def _labeled(
    plain: ScoringSettings,
    precision: Precision,
    settings: ScanSettings,
    profile: Profile | None,
    threshold: float | None,
) -> ScoringSettings:
    """Return scoring settings with a profile and the thresholds in force."""
    band = plain.spec.band if profile is None else profile.band(plain.spec.band)
    spec = msgspec.structs.replace(plain.spec, band=band.with_threshold(threshold))
    return replace(
        plain,
        spec=spec,
        profile=profile,
        settings_sha256=_settings_sha256(
            spec, settings, precision=precision, mirror=plain.mirror, aggregate=plain.aggregate, profile=profile
        ),
    )


def _in_force(spec: DetectorSpec, options: ScanOptions) -> DetectorSpec:
    """Return the spec with the values that the sampling mode and the options override, but for thresholds."""
    smallest, shortest = spec.min_face_pixels, spec.min_frames
    if options.mode == "paper":
        smallest, shortest = spec.paper.min_face_pixels, spec.paper.min_frames
    return msgspec.structs.replace(
        spec,
        min_face_pixels=options.min_face or smallest,
        min_frames=shortest,
    )


def _settings_sha256(
    spec: DetectorSpec,
    settings: ScanSettings,
    *,
    precision: Precision,
    mirror: bool,
    aggregate: Aggregate,
    profile: Profile | None = None,
) -> str:
    """Hash everything that a score and its label depend on besides the video and the weights."""
    counted = {
        "version": SCORING_VERSION,
        "spec": {name: value for name, value in json.loads(spec.to_json()).items() if name not in NOT_SCORING},
        "sampling": asdict(settings.sampling),
        "mirror": mirror,
        "aggregate": aggregate,
        "face_detector": [*settings.face_detector_identity, settings.detection_side],
        "stride": settings.stride,
        "largest_face": settings.largest_face,
        "precision": precision,
        "limits": settings.limits.scoring(),
        "min_sightings": MIN_SIGHTINGS,
    }
    if profile is not None:
        counted["profile"] = profile.sha256
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()
