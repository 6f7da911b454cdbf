"""The page of an evaluation: one HTML file with figures, plots and the worst errors, which makes no request."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Final

from deepscan.errors import OutputError
from deepscan.evaluation.bootstrap import SMALL
from deepscan.evaluation.curves import BAND_RESAMPLES
from deepscan.evaluation.figures import TITLES, DetectorFigures, Evaluation, Part, WorstError
from deepscan.evaluation.labels import LabeledResult
from deepscan.evaluation.plots import TITLES as PLOT_TITLES
from deepscan.evaluation.plots import draw_plots
from deepscan.evaluation.profiles import FittedProfile
from deepscan.evaluation.svg import DARK
from deepscan.installing import needing_packages
from deepscan.runtime.system.files import atomic_write, holds, refuse_other_file
from deepscan.version import __version__
from deepscan.wording import counted, printable

MARK: Final = "deepscan evaluate"  # by this a page is known again
LONGEST_NAME: Final = 4096 + 80  # signs: paths in full
MOST_PARTS: Final = 40  # of one factor
# False alarms stand beside the fakes that are called fake, so both say what they are shares of.
NAMES: Final = {
    **{name: title for name, title in TITLES.items() if name != "real_called_fake"},
    "ece": "expected calibration error",
    "fake_called_fake": "fakes called fake",
    "real_called_fake": "genuine videos called fake",
}
OF_PARTS: Final = ("auc", "eer", "balanced_accuracy", "fake_called_fake", "real_called_fake", "brier")
FACTOR_NAMES: Final = {
    "dataset": "data set",
    "method": "method",
    "codec": "codec",
    "resolution": "resolution",
    "face_size": "face size",
    "duration": "duration",
    "bitrate": "bits per pixel and second",
    "quality": "quality",
}
CAPTIONS: Final = {
    "auc": "How well scores tell fakes from genuine videos, for all videos and in parts. Lines are 95 % intervals.",
    "roc": "The share of fakes that a threshold finds against the share of genuine videos that it takes for fakes. "
    "Bands are 95 % intervals at each place.",
    "roc_log": "The same where false alarms are rare, as they must be where most videos are genuine. Left of one "
    "genuine video in the sample, the curve says what is found without any false alarm.",
    "det": "Both kinds of errors on axes that spread small rates; where the diagonal is crossed, both are as frequent.",
    "precision_recall": "How many of the videos above a threshold are fakes. It depends on the share of fakes in the "
    "sample: where fakes are rarer, precision is lower.",
    "reliability": "Whether a score is a probability: on the diagonal, 0.8 means that 8 of 10 such videos are fake. "
    "The number of videos of each bin stands above it, and vertical lines are 95 % intervals.",
    "scores": "Where the scores of each method lie. Each row has its own scale; dotted and dashed lines are the "
    "thresholds of real and fake.",
}


def write_page(
    evaluation: Evaluation,
    labeled: Sequence[LabeledResult],
    path: str | os.PathLike[str],
    *,
    profiles: Sequence[FittedProfile] = (),
    drawn: Mapping[str, str] | None = None,
) -> None:
    """Write an evaluation as one HTML page that needs nothing else, whole or not at all.

    Args:
        evaluation: figures from `evaluate`.
        labeled: the results that they were computed of, from `match_labels`.
        path: path of the page.
        profiles: calibration profiles, whose reliability is shown before and after.
        drawn: what `draw_plots` gave, if the plots have been drawn already.

    Raises:
        UsageError: there is a file that deepscan did not write.
        OutputError: the file cannot be written.
        MachineError: Jinja or matplotlib is not installed.
    """
    path = Path(path)
    refuse_other_page(path)
    page = page_of(evaluation, labeled, profiles=profiles, drawn=drawn)
    try:
        atomic_write({path: [page.encode()]})
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): choose another place.") from error


def refuse_other_page(path: Path) -> None:
    """Raise a UsageError if the page would replace a file that deepscan did not write."""
    refuse_other_file(path, holds(f'<meta name="generator" content="{MARK}">'.encode()), advice="choose another path")


def page_of(
    evaluation: Evaluation,
    labeled: Sequence[LabeledResult],
    *,
    profiles: Sequence[FittedProfile] = (),
    drawn: Mapping[str, str] | None = None,
) -> str:
    """Return the page as text that can be encoded, whatever names it shows."""
    with needing_packages("Writing a page", "evaluate"):
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    folder = files("deepscan.evaluation")
    style = (folder / "page.css").read_text("utf-8") + _dark_plots()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["name"] = _name
    plots = draw_plots(evaluation, labeled, profiles=profiles) if drawn is None else drawn
    return environment.from_string((folder / "page.html").read_text("utf-8")).render(
        evaluation=evaluation,
        videos=counted(len({each.result.path for each in labeled}), "video"),
        notes=evaluation.notes,
        plots=[
            {"title": PLOT_TITLES[name], "caption": CAPTIONS[name], "svg": Markup(svg)} for name, svg in plots.items()
        ],
        thresholds=_thresholds(labeled),
        style=Markup(style),
        style_hash=f"sha256-{b64encode(sha256(style.encode()).digest()).decode()}",
        mark=MARK,
        version=__version__,
        band_resamples=min(evaluation.resamples, BAND_RESAMPLES),
        small=SMALL,
        names=NAMES,
        of_parts=OF_PARTS,
        factor_names=FACTOR_NAMES,
        parts_of=_parts_of,
        peak=_peak,
    )


def _dark_plots() -> str:
    """Return the rules by which plots, which are made for white paper, have other colors on dark screens."""
    rules = "".join(
        f'[{kind}="{light}"] {{ {kind}: {dark}; }} ' for light, dark in DARK.items() for kind in ("fill", "stroke")
    )
    return f"@media screen and (prefers-color-scheme: dark) {{ {rules}}}\n"


def _name(text: str) -> str:
    """Return a name as it is shown: printable, and not endless."""
    text = printable(text)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}..."


def _parts_of(found: DetectorFigures) -> list[tuple[str, list[Part], int]]:
    """Return the parts by factor, those with most videos where there are too many, and how many are left out."""
    by_factor: dict[str, list[Part]] = {}
    for part in found.parts:
        by_factor.setdefault(part.factor, []).append(part)
    shown = []
    for factor, parts in by_factor.items():
        largest = sorted(parts, key=lambda part: -(part.figures.fakes + part.figures.genuine))[:MOST_PARTS]
        kept = [part for part in parts if part in largest] if len(parts) > MOST_PARTS else parts
        shown.append((factor, kept, len(parts) - len(kept)))
    return shown


def _thresholds(labeled: Sequence[LabeledResult]) -> dict[str, str]:
    """Return a sentence on the thresholds of each detector."""
    pairs: dict[str, dict[tuple[float, float], None]] = {}
    for each in labeled:
        row = each.result
        known = pairs.setdefault(row.model, {})
        if row.real_below is not None and row.fake_from is not None:
            known[row.real_below, row.fake_from] = None
    return {
        model: f"At the thresholds in force: {'; or '.join(_in_words(*pair) for pair in known)}."
        if known
        else "The results do not say which thresholds were in force."
        for model, known in pairs.items()
    }


def _in_words(real_below: float, fake_from: float) -> str:
    return f"real below {real_below:g}, fake from {fake_from:g}"


def _peak(error: WorstError) -> str:
    """Return when to look, as minutes and seconds."""
    if error.peak_start_seconds is None or error.peak_end_seconds is None:
        return "not known"
    start, end = (_clock(each) for each in (error.peak_start_seconds, error.peak_end_seconds))
    return start if start == end else f"{start} to {end}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
