"""`evaluate`: figures with intervals from the results of a scan and the labels of its videos."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Final

import numpy as np

from deepscan import arguments as check
from deepscan.evaluation.bootstrap import RESAMPLES, SMALL, Clusters, clusters_of, interval, resamples
from deepscan.evaluation.factors import NAMES as NAMES_OF_FACTORS
from deepscan.evaluation.factors import check_factors, parts_of
from deepscan.evaluation.figures import DetectorFigures, Difference, Evaluation, Figure, Figures, Part, WorstError
from deepscan.evaluation.frame_level import Crops, crops_of
from deepscan.evaluation.labels import LabeledResult, LabelMatch, labeled_results
from deepscan.evaluation.metrics import CALLED, NAMES, PLACE, Booleans, Floats, Integers, Sample
from deepscan.evaluation.truth import Truth
from deepscan.results import VideoResult
from deepscan.runtime.store.reading import read_frames
from deepscan.runtime.system.machine import cpu_count
from deepscan.wording import counted, plural

WORST: Final = 20
MOST_RESAMPLES: Final = 100_000
MACRO: Final = ("dataset", "method")
UNBOUNDED: Final = frozenset({"log_loss"})


def evaluate(
    results: str | os.PathLike[str] | Iterable[VideoResult],
    labels: str | os.PathLike[str] | Truth,
    *,
    split: str | None = None,
    by: Sequence[str] | None = None,
    frames: str | os.PathLike[str] | None = None,
    worst: int = WORST,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Return how often the detectors of a scan are wrong.

    Args:
        results: path of the JSONL that a scan has written, or of the output beside it; or results of `scan`.
        labels: CSV file with `path,label[,method,dataset,group,split]`, folder with the layout of a known data set, or
            labels from `read_truth`.
        split: only videos of this split.
        by: factors that the videos are divided by, names of `factors.NAMES`; all of them without it.
        frames: path of the per-frame file of the same scan; with it there are figures per crop or clip, too.
        worst: number of the worst errors each way.
        resamples: number of resamples of the bootstrap.
        seed: seed of the bootstrap.

    Raises:
        UsageError: results or labels cannot be read, contradict each other, or have nothing in common, or a number is
            out of range.
    """
    match = labeled_results(results, labels, split=split)
    return evaluate_labeled(match, by=by, frames=frames, worst=worst, resamples=resamples, seed=seed)


def evaluate_labeled(
    match: LabelMatch,
    *,
    by: Sequence[str] | None = None,
    frames: str | os.PathLike[str] | None = None,
    worst: int = WORST,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Return the same of results with labels from `labeled_results`; see `evaluate`."""
    check.whole_number("worst", worst, least=0)
    check.whole_number("resamples", resamples, least=2, most=MOST_RESAMPLES)
    check.whole_number("seed", seed, least=0)
    chosen = check_factors("by", NAMES_OF_FACTORS if by is None else by)
    by_detector: dict[str, list[LabeledResult]] = {}
    for each in match.labeled:
        by_detector.setdefault(each.result.model, []).append(each)
    crops: dict[str, Crops] = {}
    if frames is not None:
        read = read_frames(frames)
        crops = crops_of(read, by_detector, read.path)
    detectors, differences = _Bootstrap(by_detector, crops, chosen, worst, resamples, seed).run()
    return Evaluation(
        labels=match.source,
        detectors=detectors,
        differences=differences,
        notes=match.notes,
        resamples=resamples,
        seed=seed,
    )


@dataclass(slots=True)
class _Columns:
    """The results of one detector as arrays, [N], in the order of the results."""

    labeled: Sequence[LabeledResult]
    videos: Integers
    fake: Booleans
    score: Floats
    called: Integers

    @classmethod
    def of(cls, labeled: Sequence[LabeledResult], numbers: dict[str, int]) -> _Columns:
        return cls(
            labeled,
            np.array([numbers[each.result.path] for each in labeled]),
            np.array([each.truth.label == "fake" for each in labeled]),
            np.array([score_of(each.result) for each in labeled]),
            np.array([CALLED.index(each.result.label or "uncertain") for each in labeled]),
        )


@dataclass(slots=True)
class _Draws:
    """A sample with its figures, those of all resamples, and the groups they rest on."""

    sample: Sample
    value: Floats
    drawn: list[Floats]
    groups: int

    def figure(self, name: str) -> Figure:
        """Return one figure with its interval."""
        drawn = np.concatenate(self.drawn)[:, PLACE[name]]
        return _figure(name, float(self.value[PLACE[name]]), drawn, self.groups, self.sample.undefined(name))

    def figures(self) -> dict[str, Figure]:
        """Return all figures by name."""
        return {name: self.figure(name) for name in NAMES}


class _Bootstrap:
    """Samples of all detectors and parts, which get the same resamples.

    Args:
        by_detector: results with labels, by the name of the detector.
        crops: crops of those detectors whose per-frame scores are known.
        by: factors that the videos are divided by.
        worst: number of the worst errors each way.
        count, seed: of the resamples.
    """

    def __init__(
        self,
        by_detector: dict[str, list[LabeledResult]],
        crops: dict[str, Crops],
        by: Sequence[str],
        worst: int,
        count: int,
        seed: int,
    ) -> None:
        videos = {each.result.path: each for labeled in by_detector.values() for each in labeled}
        numbers = {path: number for number, path in enumerate(videos)}
        fake = np.array([each.truth.label == "fake" for each in videos.values()])
        self._clusters: Clusters = clusters_of([each.cluster for each in videos.values()], fake)
        self._columns = {name: _Columns.of(labeled, numbers) for name, labeled in by_detector.items()}
        self._videos, self._by, self._worst, self._count, self._seed = len(videos), by, worst, count, seed
        self._crops = crops
        self._draws: dict[tuple[int, bytes], _Draws] = {}

    def run(self) -> tuple[tuple[DetectorFigures, ...], tuple[Difference, ...]]:
        """Return the figures of each detector and the differences of each pair."""
        prepared = {name: self._prepare(columns) for name, columns in self._columns.items()}
        pairs = {pair: self._pair(*pair) for pair in combinations(self._columns, 2)}
        on_crops = {name: self._draw_crops(self._columns[name], crops) for name, crops in self._crops.items()}
        every = [*self._draws.values(), *on_crops.values()]
        with ThreadPoolExecutor(cpu_count()) as pool:  # NumPy computes without Python's lock
            for weights in resamples(self._clusters, self._count, self._seed):
                of_these = partial(Sample.figures, weights=weights)
                for draws, found in zip(every, pool.map(of_these, [each.sample for each in every]), strict=True):
                    draws.drawn.append(found)
        detectors = tuple(self._detector(name, parts, on_crops.get(name)) for name, parts in prepared.items())
        return detectors, tuple(_difference(*pair, *both) for pair, both in pairs.items())

    def _draw(self, columns: _Columns, chosen: Integers) -> _Draws:
        """Return the sample of some videos; the same videos share one."""
        key = id(columns), chosen.tobytes()
        if key in self._draws:
            return self._draws[key]
        fake, videos = columns.fake[chosen], columns.videos[chosen]
        return self._draws.setdefault(key, self._sample(fake, columns.score[chosen], columns.called[chosen], videos))

    def _draw_crops(self, columns: _Columns, crops: Crops) -> _Draws:
        """Return the sample of crops, which are drawn with their videos."""
        fake, videos = columns.fake[crops.results], columns.videos[crops.results]
        return self._sample(fake, crops.score, crops.called, videos)

    def _sample(self, fake: Booleans, score: Floats, called: Integers, videos: Integers) -> _Draws:
        sample = Sample(fake, score, called, self._clusters.of_video[videos])
        value = sample.figures(np.ones((1, self._clusters.count)))[0]
        return _Draws(sample, value, [], self._clusters.smaller_class(videos, fake))

    def _prepare(self, columns: _Columns) -> list[_Prepared]:
        everything = ("", "", "", list(range(len(columns.fake))))
        prepared = []
        for factor, value, against, numbers in [everything, *parts_of(columns.labeled, self._by)]:
            chosen = np.array(numbers, dtype=np.int64)
            scored = chosen[~np.isnan(columns.score[chosen])]
            left_out = self._draw(columns, scored)
            as_errors = self._draw(columns, chosen)
            prepared.append(_Prepared(factor, value, against, chosen, scored, left_out, as_errors))
        return prepared

    def _pair(self, first: str, second: str) -> tuple[_Draws, _Draws]:
        """Return the samples of the videos that both detectors have scored."""
        one, other = self._columns[first], self._columns[second]
        both = np.intersect1d(one.videos[~np.isnan(one.score)], other.videos[~np.isnan(other.score)])
        chosen = [np.flatnonzero(np.isin(each.videos, both)) for each in (one, other)]
        return self._draw(one, chosen[0]), self._draw(other, chosen[1])

    def _detector(self, name: str, prepared: list[_Prepared], on_crops: _Draws | None) -> DetectorFigures:
        columns, crops = self._columns[name], self._crops.get(name)
        overall, *parts = prepared
        results = [each.result for each in columns.labeled]
        weights, settings = ({getattr(row, f"{kind}_sha256") for row in results} for kind in ("weights", "settings"))
        return DetectorFigures(
            detector=name,
            weights_sha256=tuple(sorted(weights)),
            settings_sha256=tuple(sorted(settings)),
            overall=self._figures_of_part(columns, overall),
            parts=tuple(
                Part(
                    factor=part.factor,
                    value=part.value,
                    against=part.against,
                    figures=self._figures_of_part(columns, part),
                )
                for part in parts
            ),
            macro={
                factor: _macro([part.left_out for part in parts if part.factor == factor], overall.left_out.groups)
                for factor in MACRO
                if any(part.factor == factor for part in parts)
            },
            worst_fakes=_worst(columns, self._worst, kind=True),
            worst_genuine=_worst(columns, self._worst, kind=False),
            unscored=dict(Counter(row.status for row in results if math.isnan(score_of(row)))),
            frame_level=self._figures(columns, crops.results, crops.results, on_crops, on_crops)
            if crops is not None and on_crops is not None
            else None,
            notes=(
                *_notes(results, self._videos - len(results), len(weights), len(settings)),
                *(crops.notes if crops is not None else ()),
            ),
        )

    def _figures_of_part(self, columns: _Columns, part: _Prepared) -> Figures:
        return self._figures(columns, part.chosen, part.scored, part.left_out, part.as_errors)

    def _figures(
        self, columns: _Columns, chosen: Integers, has_score: Integers, left_out: _Draws, as_errors: _Draws
    ) -> Figures:
        """Return the figures of videos, or of crops, of which each is given by the number of its video."""
        fake, scored = columns.fake[chosen], columns.fake[has_score]
        units = self._clusters.of_video[columns.videos[has_score]]
        groups = [len(np.unique(units[scored == kind])) for kind in (True, False)]
        small = [
            counted(count, f"group of {kind} videos", f"groups of {kind} videos")
            for count, kind in zip(groups, ("forged", "genuine"), strict=True)
            if 0 < count < SMALL
        ]
        figures = left_out.figures()
        return Figures(
            fakes=int(fake.sum()),
            genuine=int((~fake).sum()),
            scored_fakes=int(scored.sum()),
            scored_genuine=int((~scored).sum()),
            fake_groups=groups[0],
            genuine_groups=groups[1],
            figures=figures,
            as_errors=figures if as_errors is left_out else as_errors.figures(),
            caution=f"This is a small sample, with only {' and '.join(small)}: its intervals are rough."
            if small
            else "",
        )


@dataclass(slots=True)
class _Prepared:
    """A part of the videos of a detector: which they are, which of them are scored, and the two samples."""

    factor: str
    value: str
    against: str
    chosen: Integers
    scored: Integers
    left_out: _Draws
    as_errors: _Draws


def _figure(name: str, value: float, drawn: Floats, groups: int, reason: str) -> Figure:
    if math.isnan(value):
        return Figure(reason=reason or "it is not defined for these videos")
    ends = interval(drawn, groups, share=name not in UNBOUNDED, biased=value if name == "ece" else None)
    if ends is None:
        return Figure(value=value, reason="there are too few groups for an interval")
    return Figure(value=value, low=ends[0], high=ends[1])


def _macro(parts: Sequence[_Draws], groups: int) -> dict[str, Figure]:
    """Return the means over those parts in which a figure exists."""
    found = {}
    for name, place in PLACE.items():
        known = [part for part in parts if not math.isnan(part.value[place])]
        if not known:
            found[name] = Figure(reason="it exists in none of the parts")
            continue
        value = float(np.mean([part.value[place] for part in known]))
        drawn = np.mean([np.concatenate(part.drawn)[:, place] for part in known], axis=0)
        found[name] = _figure(name, value, drawn, groups, "")
    return found


def _difference(first: str, second: str, one: _Draws, other: _Draws) -> Difference:
    drawn = np.concatenate(one.drawn) - np.concatenate(other.drawn)
    figures = {}
    for name, place in PLACE.items():
        value = float(one.value[place] - other.value[place])
        if math.isnan(value):
            figures[name] = Figure(reason=one.sample.undefined(name))
        elif (ends := interval(drawn[:, place], one.groups, share=False)) is None:
            figures[name] = Figure(value=value, reason="there are too few groups for an interval")
        else:
            figures[name] = Figure(value=value, low=ends[0], high=ends[1])
    return Difference(first=first, second=second, fakes=one.sample.fakes, genuine=one.sample.genuine, figures=figures)


def score_of(result: VideoResult) -> float:
    """Return the score, or NaN if there is none or it is no probability."""
    known = result.status == "scored" and result.score is not None and 0.0 <= result.score <= 1.0
    return float(result.score or 0.0) if known else math.nan


def _worst(columns: _Columns, count: int, *, kind: bool) -> tuple[WorstError, ...]:
    numbers = np.flatnonzero((columns.fake == kind) & ~np.isnan(columns.score)).tolist()
    numbers.sort(key=lambda number: columns.score[number] * (1 if kind else -1))
    found = []
    for each in (columns.labeled[number] for number in numbers[:count]):
        peak = each.result.peak
        found.append(
            WorstError(
                path=each.result.path,
                score=score_of(each.result),
                label=each.result.label,
                method=each.truth.method,
                peak_start_seconds=None if peak is None else peak.start_seconds,
                peak_end_seconds=None if peak is None else peak.end_seconds,
            )
        )
    return tuple(found)


def _notes(results: Sequence[VideoResult], missing: int, weights: int, settings: int) -> list[str]:
    notes = []
    broken = sum(row.status == "scored" and math.isnan(score_of(row)) for row in results)
    if broken:
        notes.append(f"{counted(broken, 'score')} {plural(broken, 'is', 'are')} no number from 0 to 1 and left out.")
    if missing:
        notes.append(
            f"{counted(missing, 'video')} of other detectors {plural(missing, 'has', 'have')} no result of it."
        )
    if weights > 1 or settings > 1:
        made = f"{counted(weights, 'file')} of weights and {counted(settings, 'setting')}"
        notes.append(f"The results were made with {made}: scan all videos alike.")
    return notes
