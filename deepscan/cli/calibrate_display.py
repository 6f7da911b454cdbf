"""A calibration or a fusion on the screen: what it changes, how well it holds, and what it promises."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Final

import numpy as np

from deepscan.cli.evaluate_display import figure_cell, say
from deepscan.cli.result_table import Column, ResultTable, Row, print_lines
from deepscan.evaluation.figures import TITLES
from deepscan.evaluation.fusion import FittedFusion
from deepscan.evaluation.profiles import FittedProfile, Reliability
from deepscan.profiles import Platt
from deepscan.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.evaluation.labels import LabelMatch

# Scores of which the table says what they mean.
SCORES: Final = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)


def show_fit(found: FittedProfile | FittedFusion, match: LabelMatch, console: Console) -> None:
    """Print what was fitted to results with labels."""
    say(console, f"Labels: {match.source}", "bold")
    for note in match.notes:
        say(console, note, "yellow")
    profiles = found.profiles if isinstance(found, FittedFusion) else (found,)
    for profile in profiles:
        console.print()
        if isinstance(profile, FittedProfile):
            _show_profile(profile, console)
    if isinstance(found, FittedFusion):
        console.print()
        evidence = found.evidence
        videos = f"{counted(evidence.fakes, 'fake')} and {counted(evidence.genuine, 'genuine video')}"
        names = ", ".join(profile.detector for profile in profiles)
        say(console, f"Fusion of {names}, judged cross-fitted on the {videos} that all have scored:", "bold")
        say(console, evidence.sentence, "" if evidence.better else "yellow")
        if not evidence.better:
            say(console, f"As far as these videos show, {evidence.best} alone does as well.", "yellow")


def show_written(path: str, console: Console, *, fused: bool) -> None:
    """Print where a profile is, and how a scan applies it."""
    option = "--fuse" if fused else "--calibration"
    console.print()
    say(console, f"Written: {path}. A scan applies it with {option} {quote(path)}.")


def _show_profile(profile: FittedProfile, console: Console) -> None:
    kind = "logistic (Platt)" if isinstance(profile.calibration, Platt) else "isotonic"
    videos = f"{counted(profile.fakes, 'fake')} and {counted(profile.genuine, 'genuine video')} with a score"
    say(console, f"{profile.detector}: {kind} calibration, fitted to {videos}, {profile.groups} groups.", "bold")
    table = ResultTable(
        [Column("before", 9, right=False), Column("after, cross-fitted", 8, right=False)], name_title="figure"
    )
    for name in ("brier", "log_loss", "ece"):
        before, after = (getattr(each, name) for each in (profile.before, profile.after))
        table.rows.append(Row(TITLES[name], [figure_cell(before), figure_cell(after)]))
    print_lines(console, table)
    if (profile.after.log_loss.value or 0.0) >= (profile.before.log_loss.value or 0.0):
        say(
            console,
            "On videos that it has not seen, the calibration is no better than the scores as they are.",
            "yellow",
        )
    console.print()
    say(console, "Share of fakes among the videos with about the same score:", "italic")
    print_lines(console, _reliability_table(profile.before, profile.after))
    console.print()
    say(console, "What a score means:", "italic")
    print_lines(console, _meaning_table(profile))
    console.print()
    say(console, _threshold_line(profile))


def _reliability_table(before: Reliability, after: Reliability) -> ResultTable:
    """Return a row per tenth of the probabilities: their mean and the share of fakes, before and after."""
    titles = ("before:\nvideos", "mean\nscore", "fakes", "after:\nvideos", "mean\nscore", "fakes")
    table = ResultTable([Column(title, 9 - number) for number, title in enumerate(titles)], name_title="score")
    tenths = [
        {min(int(mean * 10), 9): (mean, share, count) for mean, share, count in each.bins} for each in (before, after)
    ]
    for tenth in sorted(tenths[0].keys() | tenths[1].keys()):
        cells: list[tuple[str, str]] = []
        for found in tenths:
            if tenth in found:
                mean, share, count = found[tenth]
                cells += [(str(count), ""), (f"{mean:.2f}", ""), (f"{share:.2f}", "")]
            else:
                cells += [("", "")] * 3
        table.rows.append(Row(f"{tenth / 10:.1f} to {tenth / 10 + 0.1:.1f}", cells))
    return table


def _meaning_table(profile: FittedProfile) -> ResultTable:
    """Return what some scores become, at the share of fakes of the labels and at the one that was asked for."""
    scores = np.array(SCORES)
    columns = [(profile.trained_prevalence, profile.calibration.probability(scores))]
    if profile.prevalence is not None:
        columns.append((profile.prevalence, profile.probability(scores)))
    titles = [
        Column(f"becomes, where\n{100 * share:.3g} % are fake", 9 - number) for number, (share, _) in enumerate(columns)
    ]
    table = ResultTable(titles, name_title="score")
    for number, score in enumerate(SCORES):
        cells = [(f"{found[number]:.4f}", "") for _, found in columns]
        table.rows.append(Row(f"{score:g}", cells))
    return table


def _threshold_line(profile: FittedProfile) -> str:
    held = profile.threshold
    if held is None:
        return "Labels keep the thresholds of the detector; --max-fpr sets one with a promised rate of false alarms."
    groups = "" if held.groups == held.genuine else f" in {counted(held.groups, 'group')}"
    return (
        f"fake from {held.fake_from:.4g}: at most {100 * held.max_fpr:.3g} % of genuine videos are called fake, with "
        f"95 % confidence, on footage like that of the labels. Here it is {held.false_alarms} of "
        f"{counted(held.genuine, 'genuine video')}{groups}; the upper bound of the rate is {100 * held.upper:.2g} %."
    )
