"""Plots of an evaluation: SVG pictures that are the same for the same figures, and that need no color to be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from deepscan.errors import OutputError
from deepscan.evaluation.bootstrap import SMALL
from deepscan.evaluation.curves import BAND_RESAMPLES, Band, Curves, curves_of
from deepscan.evaluation.figures import Evaluation, Figures
from deepscan.evaluation.labels import LabeledResult
from deepscan.evaluation.metrics import Floats
from deepscan.evaluation.profiles import FittedProfile, Reliability
from deepscan.evaluation.svg import GRID, INK, SVG_MARK, add_legend, drawing, new_figure, paint, short, svg_of
from deepscan.runtime.system.files import atomic_write, holds, refuse_other_file
from deepscan.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES: Final = ("-", "--", "-.", ":")
MARKERS: Final = "osD^vPX*"
WIDTH: Final = 7.0  # inches
LINE: Final = 0.24  # inches from one line of text to the next
MOST_ROWS: Final = 40  # methods or parts in one plot; the others are counted
STEPS: Final = 700  # places along an axis that can be told apart
HISTOGRAM_BINS: Final = 20
COLUMNS: Final = 3
DET_TICKS: Final = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999)
DET_LIMIT: Final = 0.0005
TITLES: Final = {
    "auc": "AUC with 95 % intervals",
    "roc": "ROC curve",
    "roc_log": "ROC curve at low false-positive rates",
    "det": "Detection error tradeoff",
    "precision_recall": "Precision and recall",
    "reliability": "Reliability of the scores",
    "scores": "Scores by method",
}


def write_plots(
    evaluation: Evaluation,
    labeled: Sequence[LabeledResult],
    folder: str | os.PathLike[str],
    *,
    profiles: Sequence[FittedProfile] = (),
    drawn: Mapping[str, str] | None = None,
) -> tuple[Path, ...]:
    """Write the plots of an evaluation into a folder as SVG, all of them or none.

    A plot of an earlier evaluation that this one has not, such as the ROC curve where there are no fakes, is deleted.

    Args:
        evaluation: figures from `evaluate`.
        labeled: the results that they were computed of, from `match_labels`.
        folder: folder for the plots, made if it is missing.
        profiles: calibration profiles, whose reliability is shown before and after.
        drawn: what `draw_plots` gave, if the plots have been drawn already.

    Returns:
        The paths of the plots.

    Raises:
        UsageError: a file in the way was not written by deepscan.
        OutputError: a file cannot be written.
        MachineError: matplotlib is not installed.
    """
    place = Path(folder)
    every = refuse_other_plots(place)
    if drawn is None:
        drawn = draw_plots(evaluation, labeled, profiles=profiles)
    written = {every[name]: [f'<?xml version="1.0" encoding="utf-8"?>\n{svg}'.encode()] for name, svg in drawn.items()}
    try:
        place.mkdir(parents=True, exist_ok=True)
        atomic_write(written)
        for path in every.values():
            if path not in written:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{place} cannot be written to ({error.strerror}): choose another folder.") from error
    return tuple(written)


def refuse_other_plots(folder: Path) -> dict[str, Path]:
    """Return the path of each plot in a folder, by the names of `TITLES`.

    Raises:
        UsageError: a file in the way was not written by deepscan.
    """
    every = {name: folder / f"{name}.svg" for name in TITLES}
    for path in every.values():
        refuse_other_file(path, holds(SVG_MARK), advice="choose another folder for the plots")
    return every


def draw_plots(
    evaluation: Evaluation, labeled: Sequence[LabeledResult], *, profiles: Sequence[FittedProfile] = ()
) -> dict[str, str]:
    """Return the plots as SVG, by the names of `TITLES`, without those that do not exist for these videos."""
    curves = curves_of(labeled, count=min(evaluation.resamples, BAND_RESAMPLES), seed=evaluation.seed)
    both = [each for each in curves if each.roc is not None]
    by_detector = {each.detector: each for each in profiles}
    figures: dict[str, Figure] = {}
    with drawing():
        if any(each.overall.figures["auc"].value is not None for each in evaluation.detectors):
            figures["auc"] = _forest(evaluation)
        if both:
            figures["roc"] = _roc(both)
            figures["roc_log"] = _roc_log(both)
            figures["det"] = _det(both)
            figures["precision_recall"] = _precision_recall(both)
        if curves:
            figures["reliability"] = _reliability(curves, by_detector)
            figures["scores"] = _histograms(curves)
        return {name: svg_of(figure, name=name, title=TITLES[name]) for name, figure in figures.items()}


def _named(each: Curves) -> str:
    small = ", a small sample" if each.groups < SMALL else ""
    return f"{short(each.detector)} (n = {counted(each.fakes, 'fake')} and {each.genuine} genuine{small})"


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Leave out points that a plot cannot show apart; x and y are in [0, 1]."""
    cells = np.round(np.stack([x, y]) * STEPS)
    kept = np.append(True, (np.diff(cells, axis=1) != 0).any(axis=0))
    kept[-1] = True
    return x[kept], y[kept]


def _curves(
    curves: Sequence[Curves],
    lines: Callable[[Curves], tuple[Floats, Floats]],
    bands: Callable[[Curves], Band | None],
    xlabel: str,
    ylabel: str,
    *,
    steps: bool = False,
) -> tuple[Figure, Axes]:
    """Draw a line with its band per detector, of points in [0, 1] that are joined by steps or straight lines."""
    figure = new_figure(WIDTH, 5.0 + LINE * len(curves))
    axes = figure.subplots()
    for number, each in enumerate(curves):
        x, y = _thinned(*lines(each))
        dashes = DASHES[number % len(DASHES)]
        joined = "steps-post" if steps else "default"
        axes.plot(x, y, color=paint(number), linestyle=dashes, linewidth=1.8, zorder=3, drawstyle=joined)
    for number, each in enumerate(curves):
        band = bands(each)
        if band is not None and not np.isnan(band.low).all():
            axes.fill_between(band.at, band.low, band.high, color=paint(number), alpha=0.15, linewidth=0)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.01))
    axes.grid(linewidth=0.6)
    add_legend(figure, axes.get_lines(), [_named(each) for each in curves])
    return figure, axes


FALSE_ALARMS: Final = "share of genuine videos above the threshold (false-positive rate)"
FOUND: Final = "share of fakes above it (true-positive rate)"


def _roc_of(each: Curves) -> tuple[Floats, Floats]:
    assert each.roc is not None
    return each.roc


def _roc(curves: Sequence[Curves]) -> Figure:
    figure, axes = _curves(curves, _roc_of, lambda each: each.roc_band, FALSE_ALARMS, FOUND)
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
    axes.annotate("chance", (0.93, 0.93), xytext=(4, -12), textcoords="offset points", fontsize="small")
    return figure


def _roc_log(curves: Sequence[Curves]) -> Figure:
    """Draw the ROC curve over the logarithm of the false-positive rate, from the rate of half a genuine video on."""
    lowest = 10.0 ** np.floor(np.log10(min(0.5 / each.genuine for each in curves)))

    def placed(rates: Floats) -> Floats:
        return np.asarray(1 - np.log10(np.maximum(rates, lowest)) / np.log10(lowest))

    def line(each: Curves) -> tuple[Floats, Floats]:
        rates, found = _roc_of(each)
        return placed(rates), found

    def band(each: Curves) -> Band | None:
        found = each.roc_band
        if found is None:
            return None
        kept = found.at >= lowest
        return Band(placed(found.at[kept]), found.low[kept], found.high[kept])

    figure, axes = _curves(curves, line, band, f"{FALSE_ALARMS}, logarithmic", FOUND, steps=True)
    decades = 10.0 ** np.arange(round(np.log10(lowest)), 1)
    axes.set_xticks(placed(decades), [f"{100 * rate:g} %" for rate in decades])
    return figure


def _probit(rates: Floats) -> Floats:
    """Place rates on a DET curve's axis, [0, 1]: by quantiles of the normal distribution."""
    normal, edge = NormalDist(), NormalDist().inv_cdf(1 - DET_LIMIT)
    clipped = np.clip(rates, DET_LIMIT, 1 - DET_LIMIT)
    return np.array([(normal.inv_cdf(float(rate)) + edge) / (2 * edge) for rate in clipped])


def _det(curves: Sequence[Curves]) -> Figure:
    def line(each: Curves) -> tuple[Floats, Floats]:
        rates, found = _thinned(*_roc_of(each))
        return _probit(rates), _probit(1 - found)

    def band(each: Curves) -> Band | None:
        found = each.roc_band
        if found is None:
            return None
        return Band(_probit(found.at), _probit(1 - found.high), _probit(1 - found.low))

    figure, axes = _curves(
        curves, line, band, FALSE_ALARMS, "share of fakes below it (false-negative rate)", steps=True
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(_probit(np.array(DET_TICKS)), [f"{100 * tick:g} %" for tick in DET_TICKS])
    axes.tick_params(axis="x", labelrotation=45)
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
    axes.annotate("equal error", (0.0, 0.0), xytext=(14, 4), textcoords="offset points", fontsize="small")
    return figure


def _precision_recall(curves: Sequence[Curves]) -> Figure:
    def line(each: Curves) -> tuple[Floats, Floats]:
        assert each.precision_recall is not None
        return each.precision_recall

    recall, precision = (
        "share of fakes above the threshold (recall)",
        "share of fakes among videos above it (precision)",
    )
    figure, axes = _curves(curves, line, lambda each: each.precision_band, recall, precision)
    for share in dict.fromkeys(each.fakes / (each.fakes + each.genuine) for each in curves):
        axes.axhline(share, color=GRID, linewidth=1)
    axes.annotate(
        "chance: share of fakes in the sample", (1.0, share), xytext=(0, -12), textcoords="offset points", ha="right",
        fontsize="small",
    )  # fmt: skip
    return figure


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return axes side by side, at most `COLUMNS` in a row; those that are not needed are removed."""
    rows = -(-count // COLUMNS)
    columns = -(-count // rows)
    figure = new_figure(max(WIDTH, 3.0 * columns), height * rows)
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _reliability(curves: Sequence[Curves], profiles: dict[str, FittedProfile]) -> Figure:
    figure, panels = _panels(len(curves), 3.9)
    for number, (axes, each) in enumerate(zip(panels, curves, strict=True)):
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
        profile = profiles.get(each.detector)
        bins = each.bins
        assert bins is not None
        if profile is not None:
            _bins_line(axes, profile.before, paint(number), filled=False)
            _bins_line(axes, profile.after, INK, filled=True)
            legend = axes.legend(axes.get_lines()[1:3], ["before calibration", "after calibration"], frameon=False)
            legend.set_loc("upper left")
        else:
            known = ~np.isnan(bins.low)
            axes.plot(bins.mean, bins.share, color=paint(number), marker=MARKERS[number % len(MARKERS)], linewidth=1)
            axes.vlines(bins.mean[known], bins.low[known], bins.high[known], color=paint(number), linewidth=1)
            for x, count in zip(bins.mean, bins.count, strict=True):
                axes.annotate(str(count), (x, 1.0), ha="center", va="bottom", fontsize=6.5, annotation_clip=False)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_title(f"{short(each.detector)}\nn = {len(each.fake)}", pad=14)
        axes.grid(linewidth=0.6)
    figure.supxlabel("mean score of the videos of a bin", fontsize="medium")
    figure.supylabel("share of fakes among them", fontsize="medium")
    return figure


def _bins_line(axes: Axes, found: Reliability, color: str, *, filled: bool) -> None:
    mean, share, _ = zip(*found.bins, strict=True)
    face, dashes, marker = (color, "-", "o") if filled else ("none", "--", "s")
    axes.plot(mean, share, color=color, linestyle=dashes, marker=marker, markerfacecolor=face, linewidth=1.2)


def _histograms(curves: Sequence[Curves]) -> Figure:
    """Draw a row of bars per method, each to its own scale, with a column per detector."""
    counts = Counter(method for each in curves for method, fake in zip(each.methods, each.fake, strict=True) if fake)
    methods = [method for method, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:MOST_ROWS]
    rest = set(counts) - set(methods)
    rows = [("genuine", None), *((short(method) or "fake, no method given", {method}) for method in methods)]
    rows += [(f"{counted(len(rest), 'other method')}", rest)] if rest else []
    figure, panels = _panels(len(curves), 1.4 + 0.42 * len(rows))
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    for axes, (number, each) in zip(panels, enumerate(curves), strict=True):
        of_row = [
            ~each.fake if chosen is None else each.fake & np.isin(each.methods, sorted(chosen)) for _, chosen in rows
        ]
        for row, chosen in enumerate(of_row):
            heights = np.histogram(each.score[chosen], edges)[0]
            base = len(rows) - 1 - row
            axes.stairs(
                base + 0.8 * heights / max(heights.max(), 1),
                edges,
                baseline=base,
                fill=True,
                color=INK if row == 0 else paint(number),
                alpha=0.75,
            )
            axes.annotate(
                f"{chosen.sum()}", (1.0, base + 0.3), xytext=(4, 0), textcoords="offset points", fontsize="small",
                annotation_clip=False,
            )  # fmt: skip
        for real_below, fake_from in each.thresholds:
            axes.axvline(real_below, color=INK, linewidth=1, linestyle=":")
            axes.axvline(fake_from, color=INK, linewidth=1, linestyle="--")
        axes.set(xlim=(0, 1), ylim=(0, len(rows)))
        axes.set_yticks([len(rows) - 1 - row + 0.3 for row in range(len(rows))], [name for name, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.hlines(range(len(rows)), 0, 1, color=GRID, linewidth=0.6)
        axes.set_title(f"{short(each.detector)}\nn = {len(each.fake)}")
    figure.supxlabel("score (dotted: real below, dashed: fake from; at the right: number of videos)", fontsize="medium")
    return figure


def _forest(evaluation: Evaluation) -> Figure:
    """Draw the AUC of each part with its interval, a line per detector."""
    parts: dict[str, dict[str, Figures]] = {}
    for each in evaluation.detectors:
        parts.setdefault("all videos (pooled)", {})[each.detector] = each.overall
        for part in each.parts:
            if part.factor in ("dataset", "method") and part.figures.figures["auc"].value is not None:
                parts.setdefault(f"{part.factor} {short(part.value)}", {})[each.detector] = part.figures
    names = list(parts)[: MOST_ROWS + 1]
    detectors = [each.detector for each in evaluation.detectors]
    lines = len(names) * (len(detectors) + 0.6)
    figure = new_figure(WIDTH, 1.2 + LINE * (lines + len(detectors)))
    axes = figure.subplots()
    keys = [
        axes.plot([], [], color=paint(number), marker=MARKERS[number % len(MARKERS)])[0]
        for number in range(len(detectors))
    ]
    for (row, name), (number, detector) in product(enumerate(names), enumerate(detectors)):
        found = parts[name].get(detector)
        auc = None if found is None else found.figures["auc"]
        if found is None or auc is None or auc.value is None:
            continue
        y = row * (len(detectors) + 0.6) + number
        small = bool(found.caution) or auc.low is None
        color = paint(number)
        if auc.low is not None:
            axes.hlines(y, auc.low, auc.high or 0.0, color=color, linewidth=1.6)
        face = "none" if small else color
        axes.plot(auc.value, y, color=color, marker=MARKERS[number % len(MARKERS)], markerfacecolor=face)
        ends = "" if auc.low is None else f" [{auc.low:.2f}, {auc.high:.2f}]"
        text = f"{auc.value:.2f}{ends}, {found.scored_fakes}+{found.scored_genuine}"
        axes.annotate(
            text, (1.0, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize="small",
            annotation_clip=False,
        )  # fmt: skip
    middle = (len(detectors) - 1) / 2
    axes.set_yticks([row * (len(detectors) + 0.6) + middle for row in range(len(names))], names)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 1), ylim=(lines - 0.3, -0.9))
    axes.axvline(0.5, color=INK, linewidth=0.8, linestyle=":")
    axes.grid(axis="x", linewidth=0.6)
    left_out = len(parts) - len(names)
    note = f"; {counted(left_out, 'part')} left out" if left_out else ""
    axes.set_xlabel(
        f"AUC (dotted: chance; hollow: small sample{note})\nat the right: interval, number of fakes + genuine videos"
    )
    add_legend(figure, keys, [short(name) for name in detectors])
    return figure
