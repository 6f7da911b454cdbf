"""Report of the parity check, stored beside the artifact as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from deepscan.errors import ModelError
from deepscan.export.parity.parity import Budget, Parity
from deepscan.runtime.artifacts.artifacts import Form, Precision
from deepscan.wording import counted

ROWS_OF_KEPT_NODES = 40
REPORT_TITLE = "parity with the original"


class ParityReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Comparison of an artifact with the network it was made from.

    Attributes:
        schema: version of this record's format.
        detector, file, sha256, weights_sha256, trained, precision, form: as in the artifact's manifest.
        reference, executed_by: runtimes of the original and of the artifact.
        videos: number of videos that the samples are from.
        samples_sha256: hash of the samples' pixels.
        misses: differences that exceed the budget, as sentences.
        accepted: True if the misses were accepted.
        kept: reasons for the nodes that stayed in higher precision, by their names.
        summary: description of the conversion, in one line.
    """

    schema: Literal[1] = 1
    detector: str
    file: str
    sha256: str
    weights_sha256: str
    trained: bool
    precision: Precision
    form: Form | None
    reference: str
    executed_by: str
    videos: int
    samples_sha256: str
    parity: Parity
    budget: Budget
    misses: tuple[str, ...]
    accepted: bool
    kept: Mapping[str, str]
    summary: str


class ParityMiss(ModelError):
    """An artifact differs from its original by more than its budget, and was not written; `report` has the numbers."""

    def __init__(self, report: ParityReport) -> None:
        super().__init__(
            f"{report.file} differs too much from the original ({'; '.join(report.misses)}): export it in higher "
            "precision, or accept this with --accept-parity-loss."
        )
        self.report = report


def report_name(stem: str, *, ending: Literal["json", "md"]) -> str:
    """Return the file name of the report that belongs to `stem`.onnx."""
    return f"{stem}.parity.{ending}"


def readable(report: ParityReport) -> str:
    """Return the report as Markdown."""
    parity, kind = report.parity, "crops" if report.form is None else "clips"
    lines = [
        f"# {report.file}: {REPORT_TITLE}",
        "",
        f"{report.detector}, {report.precision}{f', {report.form} form' if report.form else ''}; {_conclusion(report)}",
        "" if report.trained else "\nThe weights are random: nothing about accuracy follows from these numbers.",
        "",
        "| | |",
        "|---|---|",
        f"| original | {report.reference} |",
        f"| artifact run by | {report.executed_by} |",
        f"| samples | {parity.items} real {kind} from {counted(report.videos, 'video')} |",
        f"| largest score difference | {parity.max_difference:.2e}{_allowed(report.budget.max_difference)} |",
        f"| mean score difference | {parity.mean_difference:.2e}{_allowed(report.budget.mean_difference)} |",
        f"| largest logit difference | {parity.max_logit_difference:.2e} |",
        f"| rank correlation | {_number(parity.rank_correlation)} |",
        f"| labels flipped, real and fake | {len(parity.flips)}{_allowed(None if report.budget.may_flip else 0)} |",
        f"| AUC, original / artifact | {_number(parity.auc_reference)} / {_number(parity.auc)} |",
        "",
        "## Worst cases",
        "",
        "| sample | original | artifact |",
        "|---|---|---|",
        *(f"| {_cell(case.source)} | {case.reference:.6f} | {case.score:.6f} |" for case in parity.worst),
    ]
    if report.summary:
        lines += ["", "## How it was made", "", report.summary]
    if report.kept:
        lines += ["", "## Left in higher precision", "", "| node | why |", "|---|---|"]
        lines += [f"| `{_cell(node)}` | {_cell(why)} |" for node, why in list(report.kept.items())[:ROWS_OF_KEPT_NODES]]
        if len(report.kept) > ROWS_OF_KEPT_NODES:
            lines.append(f"| {len(report.kept) - ROWS_OF_KEPT_NODES} more | see the JSON beside this file |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _conclusion(report: ParityReport) -> str:
    if not report.misses:
        return "**within the budget**."
    return f"**over the budget** ({'; '.join(report.misses)}){', which was accepted' if report.accepted else ''}."


def _allowed(value: float | None) -> str:
    return "" if value is None else f" (allowed: {value:g})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
