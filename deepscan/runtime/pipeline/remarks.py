"""Remarks in the reason of a result: what was not scored, and on how little the score rests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepscan.runtime.pipeline.scoring import MIN_SIGHTINGS
from deepscan.wording import counted, plural

if TYPE_CHECKING:
    from deepscan.runtime.faces.face_selection import SkipSummary
    from deepscan.runtime.media.sampling import Sampling
    from deepscan.runtime.pipeline.messages import VideoDecoded, VideoFollowed
    from deepscan.spec import DetectorSpec


def remarks(end: VideoFollowed, skipped: SkipSummary, spec: DetectorSpec) -> list[str]:
    """Return remarks on what was not scored in the video."""
    said = []
    if skipped.small_faces:
        count = _sightings(skipped.small_faces)
        said.append(f"{count} smaller than {spec.min_face_pixels} pixels {_were(skipped)} not scored (see --min-face)")
    if skipped.longest_stretch:
        said.append(
            f"faces seen for up to {counted(skipped.longest_stretch, 'frame')} in a row were not scored, "
            f"{spec.name} needs {spec.min_frames}"
        )
    said += skipped.truncations
    return [*said, *filter(None, [end.decoded.short, end.decoded.damage])]


def only_small_faces(skipped: SkipSummary, spec: DetectorSpec) -> str:
    """Return the reason for a video whose faces are all too small: how large they are, and what to do."""
    one = skipped.small_faces == 1
    size = f"of {'' if one else 'up to '}{int(skipped.largest_small_face)} pixels"
    return (
        f"{_sightings(skipped.small_faces)} {size} {_were(skipped)} not scored, as --min-face is "
        f"{spec.min_face_pixels}: lower it to have {'it' if one else 'them'} scored"
    )


def _sightings(count: int) -> str:
    return counted(count, "sighting of a face", "sightings of faces")


def _were(skipped: SkipSummary) -> str:
    return plural(skipped.small_faces, "was", "were")


def too_few_sightings(sightings: int, decoded: VideoDecoded, sampling: Sampling) -> str:
    """Return why a score rests on too few sightings of the deciding face for a label; empty if it does not.

    In a picture, or a video of a single frame, one sighting is enough.
    """
    if sightings >= MIN_SIGHTINGS or _single_frame(decoded, sampling):
        return ""
    rests = f"{counted(sightings, 'sighting')} of a face"
    frames = counted(decoded.frames, "frame")
    advice = _advice(decoded.frames, sampling)
    return f"the verdict would rest on {rests} in {frames}; at least {MIN_SIGHTINGS} are needed{advice}"


def _single_frame(decoded: VideoDecoded, sampling: Sampling) -> bool:
    """Tell whether the video has only one frame: more were asked for, and none was lost."""
    if decoded.frames != 1 or decoded.info is None:
        return False
    return decoded.info.still or (decoded.damage is None and sampling.asked > 1)


def _advice(frames: int, sampling: Sampling) -> str:
    """Return how to have more frames searched, if that is possible."""
    if sampling.choice == "all":
        return ": use --detect-every 1" if frames >= MIN_SIGHTINGS and sampling.detect_every > 1 else ""
    if sampling.asked > frames:
        return ""
    return f": raise {'--clips' if sampling.choice == 'windows' else '--frames'} or use --sampling full"
