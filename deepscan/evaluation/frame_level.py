"""Frame level: crops and clips of a per-frame file, with the labels of their videos."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from deepscan.errors import UsageError
from deepscan.evaluation.labels import LabeledResult
from deepscan.evaluation.metrics import CALLED, Booleans, Floats, Integers
from deepscan.results import FrameScore
from deepscan.runtime.store.identity import RowKey
from deepscan.wording import counted, plural


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops or clips of one detector, [N].

    Attributes:
        results: number of the result that each belongs to, among the labeled results of the detector.
        score: probability of *fake* of each.
        called: index into `CALLED` of the label that the thresholds of its video give to the score.
        notes: sentences about crops and results that have no counterpart.
    """

    results: Integers
    score: Floats
    called: Integers
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Found:
    results: array[int] = field(default_factory=lambda: array("q"))
    scores: array[float] = field(default_factory=lambda: array("d"))


def crops_of(
    frames: Iterable[FrameScore], by_detector: Mapping[str, Sequence[LabeledResult]], source: str
) -> dict[str, Crops]:
    """Return the crops of the scored results of each detector; `source` is the name of the file, for messages.

    Raises:
        UsageError: none of the frames belongs to any result.
    """
    places = {
        _key(each.result.path, model): (model, number)
        for model, labeled in by_detector.items()
        for number, each in enumerate(labeled)
        if each.result.status == "scored"
    }
    found = {model: _Found() for model in by_detector}
    known: dict[tuple[str, str], tuple[str, int] | None] = {}
    for frame in frames:
        given = frame.path, frame.model
        if given not in known:
            known[given] = places.get(_key(*given))
        place = known[given]
        if place is not None:
            found[place[0]].results.append(place[1])
            found[place[0]].scores.append(frame.score)
    if not any(each.results for each in found.values()):
        raise UsageError(f"{source} has no scores of the labeled videos: give the per-frame file of the same scan.")
    return {model: _crops(each, by_detector[model], source) for model, each in found.items() if each.results}


def _crops(found: _Found, labeled: Sequence[LabeledResult], source: str) -> Crops:
    results, score = np.array(found.results, dtype=np.int64), np.array(found.scores)
    thresholds = np.array(
        [
            (each.result.real_below or 0.0, np.inf if each.result.fake_from is None else each.result.fake_from)
            for each in labeled
        ]
    )[results]
    fake: Booleans = score >= thresholds[:, 1]
    real: Booleans = score < thresholds[:, 0]
    called = np.where(fake, CALLED.index("fake"), np.where(real, CALLED.index("real"), CALLED.index("uncertain")))
    missing = sum(each.result.status == "scored" for each in labeled) - len(np.unique(results))
    notes = (
        [f"{counted(missing, 'scored video')} {plural(missing, 'has', 'have')} no scores in {source}."]
        if missing
        else []
    )
    return Crops(results, score, called, tuple(notes))


def _key(path: str, model: str) -> tuple[str, str]:
    """Return the key of a row, with undecodable bytes of the path as a per-frame file in Parquet writes them."""
    key = RowKey.of(path, model)
    return key.path.encode("utf-8", "backslashreplace").decode(), key.model
