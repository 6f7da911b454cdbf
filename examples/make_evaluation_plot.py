"""Draws docs/images/evaluation_auc.svg: the plot of AUCs of two made-up detectors on made-up scores of four methods.

The numbers say nothing about any detector: they show what an evaluation draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from deepscan import evaluate
from deepscan.evaluation.labels import match_labels
from deepscan.evaluation.plots import draw_plots
from deepscan.evaluation.truth import Truth, TruthRow
from deepscan.results import VideoResult

METHODS = {"made-up A": 2.2, "made-up B": 1.4, "made-up C": 0.7, "made-up D": 0.1}
DETECTORS = {"made-up detector 1": 1.0, "made-up detector 2": 0.6}
FAKES, GENUINE = 30, 90  # of each method, and in all


def made_up() -> tuple[list[VideoResult], Truth]:
    """Return results and labels; the two detectors mostly err on the same videos."""
    random = np.random.default_rng(7)
    truth, means = [], []
    for number in range(GENUINE):
        truth.append(TruthRow(path=f"real/{number}.mp4", label="real", group=f"person {number // 2}"))
        means.append(-1.0)
    for method, mean in METHODS.items():
        for number in range(FAKES):
            path = f"{method}/{number}.mp4"
            truth.append(TruthRow(path=path, label="fake", method=method, group=f"person {number}"))
            means.append(mean - 0.5)
    results: list[VideoResult] = []
    shared = random.normal(size=len(truth))
    for detector, strength in DETECTORS.items():
        for index, (row, mean) in enumerate(zip(truth, means, strict=True)):
            logit = strength * mean + 0.8 * shared[index] + 0.6 * random.normal()
            results.append(
                VideoResult(
                    index=index,
                    row=len(results),
                    path=row.path,
                    status="scored",
                    score=float(1 / (1 + np.exp(-logit))),
                    label="uncertain",
                    model=detector,
                    backend="none",
                    precision="none",
                    weights_sha256="none",
                    settings_sha256="none",
                    elapsed_seconds=0.0,
                )
            )
    return results, Truth(source="made-up scores", layout="made up", folder="", rows=tuple(truth))


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="docs/images/evaluation_auc.svg")
    results, truth = made_up()
    drawn = draw_plots(evaluate(results, truth), match_labels(results, truth).labeled)
    Path(parser.parse_args().out).write_text(drawn["auc"] + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
