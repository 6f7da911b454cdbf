"""An evaluation on the screen: figures with intervals and counts, what divides the videos, and the worst errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.text import Text

from deepscan.cli.result_table import Column, ResultTable, Row, common_folder, print_lines
from deepscan.cli.screen import STYLES, legend, stretch
from deepscan.evaluation.bootstrap import SMALL
from deepscan.evaluation.figures import TITLES, DetectorFigures, Difference, Evaluation, Figure, Figures, WorstError
from deepscan.evaluation.metrics import CALLED, CONFUSION, PLACE
from deepscan.wording import counted, printable

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.evaluation.labels import LabelMatch

ABSENT: Final = "-"
FACTORS: Final = {
    "dataset": "data set",
    "method": "method",
    "codec": "codec",
    "resolution": "resolution, by the shorter side",
    "face_size": "size of the faces",
    "duration": "duration",
    "bitrate": "bits per pixel of the picture and second",
    "quality": "quality",
}
UNIT_OF_BITRATE: Final = " bit per pixel and second"
# Figures of the parts, and how important each is; those that do not fit are in --csv and --json.
OF_PARTS: Final = (
    ("auc", "AUC\n[95 %]", 9),
    ("real_called_fake", "false alarms\n[95 %]", 8),
    ("fake_called_fake", "called fake\nof fakes", 6),
    ("eer", "equal error\nrate", 5),
    ("brier", "Brier\nscore", 4),
)
OF_DIFFERENCES: Final = ("auc", "real_called_fake")
LEFT, RIGHT = Column("", 9, right=False), Column("unscored as errors", 8, right=False, below="unscored as errors: ")


def show_evaluation(evaluation: Evaluation, match: LabelMatch, console: Console) -> None:
    """Print an evaluation."""
    say(console, f"Labels: {evaluation.labels}", "bold")
    for note in evaluation.notes:
        say(console, note, "yellow")
    for found in evaluation.detectors:
        console.print()
        _show_detector(found, [each.result for each in match.labeled if each.result.model == found.detector], console)
    if evaluation.differences:
        console.print()
    for difference in evaluation.differences:
        for line in _difference_lines(difference):
            say(console, line)
    console.print()
    say(
        console,
        f"In brackets: 95 % intervals of {evaluation.resamples} resamples of whole groups, seed {evaluation.seed}. "
        "[-]: too few groups for one. False alarms are genuine videos called fake.",
        "dim",
    )


def say(console: Console, line: str, style: str = "") -> None:
    """Print a line, folded on a terminal only."""
    console.print(Text(printable(line), style), soft_wrap=not console.is_terminal)


def _show_detector(found: DetectorFigures, results: Sequence[object], console: Console) -> None:
    overall = found.overall
    videos, scored = overall.fakes + overall.genuine, overall.scored_fakes + overall.scored_genuine
    unscored = ", ".join(
        f"{count} {'without a valid number' if status == 'scored' else status}"
        for status, count in found.unscored.items()
    )
    without = f"; the others: {unscored}" if unscored else ""
    say(
        console,
        f"{found.detector}: {counted(overall.fakes, 'fake')} and {counted(overall.genuine, 'genuine video')}, "
        f"{scored} of {videos} scored ({overall.coverage:.0%}){without}.",
        "bold",
    )
    for line in legend(results):  # type: ignore[arg-type]
        say(console, line)
    for note in (*found.notes, overall.caution):
        if note:
            say(console, note, "yellow")
    print_lines(console, _overall_table(overall))
    console.print()
    print_lines(console, _confusion_table(overall))
    if found.frame_level is not None:
        console.print()
        say(console, "Per crop or clip, with the label of its video:", "italic")
        table = ResultTable(_part_columns(), name_title="")
        table.rows.append(_part_row("all together", found.frame_level))
        print_lines(console, table)
    small = False
    for factor, title in FACTORS.items():
        parts = [part for part in found.parts if part.factor == factor]
        if parts:
            console.print()
            say(console, f"By {title}:", "italic")
            table = ResultTable(_part_columns(), name_title="")
            for part in parts:
                small = small or bool(part.figures.caution)
                table.rows.append(_part_row(part.value.removesuffix(UNIT_OF_BITRATE), part.figures))
            if factor in found.macro:
                table.rows.append(_summary_row("mean of these", found.macro[factor]))
            table.rows.append(_part_row("all together", overall))
            print_lines(console, table)
            fewer = [part.against for part in parts if part.against and part.figures.genuine < overall.genuine]
            for against in dict.fromkeys(fewer):
                values = [part.value for part in parts if part.against == against]
                say(console, f"Against {against}: {', '.join(values)}.", "dim")
    if small:
        say(console, f"* A small sample: fewer than {SMALL} groups of either class. Its intervals are rough.", "yellow")
    _show_worst("Fakes with the lowest scores, not called fake:", found.worst_fakes, "fake", console)
    _show_worst("Genuine videos with the highest scores, not called real:", found.worst_genuine, "real", console)


def _overall_table(overall: Figures) -> ResultTable:
    """Return a row per figure, with videos without a score left out and, where there are some, as errors."""
    both = overall.coverage < 1
    columns = [Column("scored videos" if both else "value [95 %]", 9, right=False), *([RIGHT] if both else [])]
    table = ResultTable(columns, name_title="figure")
    for name in PLACE:
        if name in CONFUSION:
            continue
        figure = overall.figures[name]
        cells = [figure_cell(figure), *([figure_cell(overall.as_errors[name])] if both else [])]
        table.rows.append(Row(TITLES[name], cells, figure.reason))
    return table


def _confusion_table(overall: Figures) -> ResultTable:
    """Return what the videos of either class were called, as shares of the scored ones."""
    columns = [Column("scored", 9), *(Column(f"called {label}", 8, right=False, below=f"{label} ") for label in CALLED)]
    table = ResultTable(columns, name_title="")
    for kind, title, scored, total in (
        ("fake", "fakes", overall.scored_fakes, overall.fakes),
        ("real", "genuine", overall.scored_genuine, overall.genuine),
    ):
        if total:
            shares = [figure_cell(overall.figures[f"{kind}_called_{label}"], 2) for label in CALLED]
            table.rows.append(Row(title, [(f"{scored}/{total}", ""), *shares]))
    return table


def _part_columns() -> list[Column]:
    counts = [Column("fakes", 10), Column("genuine", 10)]
    return counts + [Column(title, importance, right=False) for _, title, importance in OF_PARTS]


def _part_row(value: str, figures: Figures) -> Row:
    counts = [
        (f"{scored}/{total}" if scored != total else str(total), "")
        for scored, total in ((figures.scored_fakes, figures.fakes), (figures.scored_genuine, figures.genuine))
    ]
    name = f"{printable(value)}{' *' if figures.caution else ''}"
    return Row(name, [*counts, *(figure_cell(figures.figures[figure], 2) for figure, *_ in OF_PARTS)])


def _summary_row(title: str, figures: dict[str, Figure]) -> Row:
    return Row(title, [("", ""), ("", ""), *(figure_cell(figures[figure], 2) for figure, *_ in OF_PARTS)])


def figure_cell(figure: Figure, digits: int = 3) -> tuple[str, str]:
    """Return a figure with its interval and its style."""
    if figure.value is None:
        return ABSENT, "dim"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.{digits}f} [{ABSENT}]", ""
    return f"{figure.value:z.{digits}f} [{figure.low:z.{digits}f}, {figure.high:z.{digits}f}]", ""


def _difference_lines(difference: Difference) -> Iterator[str]:
    videos = f"{counted(difference.fakes, 'fake')} and {counted(difference.genuine, 'genuine video')}"
    yield f"On the {videos} that {difference.first} and {difference.second} have both scored:"
    for name in OF_DIFFERENCES:
        yield f"  {difference.sentence(name)}"


def _show_worst(title: str, worst: Sequence[WorstError], right: str, console: Console) -> None:
    """Print those of the worst videos that were called something else than what they are."""
    wrong = [each for each in worst if each.label != right]
    if not wrong:
        return
    folder = common_folder([each.path for each in wrong])
    console.print()
    say(console, title, "italic")
    if folder:
        say(console, f"In {folder}:", "italic")
    methods = any(each.method for each in wrong)
    columns = [Column("score", 9), Column("label", 8, right=False), Column("peak", 7)]
    table = ResultTable([*columns, *([Column("method", 5, right=False)] if methods else [])])
    for each in wrong:
        start, end = each.peak_start_seconds, each.peak_end_seconds
        peak = "" if start is None or end is None else stretch(start, end, 1)
        cells = [(f"{each.score:.3f}", ""), (each.label or "", STYLES.get(each.label or "", "")), (peak, "")]
        table.rows.append(Row(printable(each.path[len(folder) :]), [*cells, *([(each.method or "", "")] * methods)]))
    print_lines(console, table)
