"""Contents of a detector's module, without torch, so that detectors can be listed where it is not installed.

    DETECTOR = Detector(spec=..., build=..., publication=...)

The function `build` imports the network when it is called, see `network`. A detector of another package has the same
form and is found by an entry point of the group `deepscan.detectors`; see `registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from deepscan.spec import Calibration, CropPolicy, DetectorSpec, LabelBand, PaperProtocol

if TYPE_CHECKING:
    from torch import nn

# Turns a tensor's name in a checkpoint into a parameter's; None for a tensor that is not needed on purpose.
Rename: TypeAlias = Callable[[str], str | None]

NONE_STATED: Final = "none stated"  # neither the repository's license file nor its README grants anything

RGB_MEAN: Final = (123.675, 116.28, 103.53)  # of ImageNet, in 0..255
RGB_STD: Final = (58.395, 57.12, 57.375)
HALF: Final = (127.5, 127.5, 127.5)  # as mean and as standard deviation: -1..1
UNCALIBRATED: Final = Calibration(scale=1.0, offset=0.0)
# The authors of most detectors take the likelier class; these detectors are not calibrated.
LIKELIER_CLASS: Final = LabelBand(real_below=0.5, fake_from=0.5)
# Smaller faces are enlarged more than threefold by every detector here. The authors set no limit.
MIN_FACE_PIXELS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One published measure of a detector, as its source gives it.

    Those of the literature's detectors were not measured by this package; `lite`'s were.

    Attributes:
        test_set: the data.
        metric: the measure, and per what: `video AUC`, `frame AUC`.
        value: in percent; None if no source gives it.
        source: table or page that gives the value. `as others repeat it` means that the paper's own table was not
            consulted.
        interval: 95 % interval of the value, in percent, where the source gives one.
    """

    test_set: str
    metric: str
    value: float | None
    source: str
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        value = "not known" if self.value is None else f"{self.value:g}"
        return f"{self.test_set} {value}" + (f" [{self.interval[0]:g}, {self.interval[1]:g}]" if self.interval else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Origin and terms of a detector and of its weights.

    Attributes:
        title: of the paper.
        authors: first author, and whether there are more.
        venue: where it appeared.
        year: when it appeared there.
        paper_url: None if there is no paper.
        code_url: of the authors' code; None if this package is that code.
        code_license: of the authors' code, from the repository's own license file.
        weights_license: terms of the published weights.
        weights_at: how to get the weights, in one line.
        weights_files: names under which they are published; empty if none are, or if the names are not known.
        trained_on: data that the published weights saw.
        figures: published measures, in the order of their tables.
    """

    title: str
    authors: str
    venue: str
    year: int
    paper_url: str | None = None
    code_url: str | None = None
    code_license: str = NONE_STATED
    weights_license: str = NONE_STATED
    weights_at: str
    weights_files: tuple[str, ...] = ()
    trained_on: str
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A forgery detector.

    Attributes:
        spec: what it expects and what its answers mean.
        build: returns the untrained network, which maps normalized pictures [N, 3, H, W], or clips [N, 3, T, H, W], to
            the logit of *fake* [N]. Its parameters have the names of the authors' checkpoints.
        publication: where it comes from.
        rename: for checkpoints with other names than those of the parameters.
    """

    spec: DetectorSpec
    build: Callable[[], nn.Module]
    publication: Publication
    rename: Rename | None = None

    @property
    def name(self) -> str:
        """The word used on the command line and in results."""
        return self.spec.name

    @property
    def title(self) -> str:
        """A description in one line."""
        return self.spec.title


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceDetector:
    """A face detector whose weights can be added; see `deepscan.runtime.faces` for how its answers are read.

    Attributes:
        name: the word used on the command line.
        title: a description in one line.
        build: returns the untrained network.
        publication: where it comes from.
        rename: as in `Detector`.
    """

    name: str
    title: str
    build: Callable[[], nn.Module]
    publication: Publication
    rename: Rename | None = None


def network(name: str, **arguments: float) -> Callable[[], nn.Module]:
    """Return a function that builds an untrained network, and imports torch only then.

    Args:
        name: module in `deepscan.models.networks`, and what to call there: `hff.Hff`.
        arguments: of that call.
    """

    def build() -> nn.Module:
        module, _, kind = name.partition(".")
        built: nn.Module = getattr(import_module(f"deepscan.models.networks.{module}"), kind)(**arguments)
        return built

    return build


def figures(
    metric: str,
    source: str,
    values: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[Figure, ...]:
    """Return the figures of one table: `values` and 95 % `intervals` by test set."""
    known = intervals or {}
    return tuple(
        Figure(test_set=name, metric=metric, value=value, source=source, interval=known.get(name))
        for name, value in values.items()
    )


def even_protocol(frames: int, *, stride: int = 1, min_frames: int = 1) -> PaperProtocol:
    """Return a protocol of frames from the first to the last, the largest face of each, and the mean over all."""
    return PaperProtocol(
        choice="ends",
        frames=frames,
        tracks="largest",
        stride=stride,
        min_frames=min_frames,
        min_face_pixels=1,
        aggregate="mean",
    )


def uncalibrated_spec(
    name: str,
    title: str,
    *,
    size: int,
    crop: CropPolicy,
    paper: PaperProtocol,
    frames: int = 1,
    min_frames: int = 1,
    mean: tuple[float, float, float] = HALF,
    std: tuple[float, float, float] = HALF,
    channel_order: Literal["RGB", "BGR"] = "RGB",
    band: LabelBand = LIKELIER_CLASS,
) -> DetectorSpec:
    """Return the spec of a detector of crops, or of clips of several frames; see `DetectorSpec` for the arguments."""
    return DetectorSpec(
        name=name,
        title=title,
        kind="frame" if frames == 1 else "clip",
        size=size,
        frames=frames,
        min_frames=min_frames,
        mean=mean,
        std=std,
        channel_order=channel_order,
        crop=crop,
        min_face_pixels=MIN_FACE_PIXELS,
        mirror=False,
        pooling="score",
        calibration=UNCALIBRATED,
        band=band,
        paper=paper,
    )
