"""`deepscan models`: which detectors there are, where they come from, and which of them can be used here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from deepscan.cli.completion import complete_detector
from deepscan.cli.screen import thresholds_in_words
from deepscan.wording import printable

if TYPE_CHECKING:
    from rich.text import Text

    from deepscan.models.detector import Figure, Publication
    from deepscan.spec import DetectorSpec

NAME_WIDTH = 18


def models(
    detector: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Show only this detector.", show_default=False, autocompletion=complete_detector
        ),
    ] = None,
) -> None:
    """Show the detectors: paper, input, thresholds, licenses, and where to get missing weights."""
    from rich.console import Console
    from rich.text import Text

    from deepscan.models.detector import Detector, FaceDetector
    from deepscan.models.registry import FACE_DETECTORS, detectors, find_detector

    console = Console()
    if detector is None:
        shown: list[Detector | FaceDetector] = [*detectors().values(), *FACE_DETECTORS.values()]
    else:
        shown = [FACE_DETECTORS.get(detector) or find_detector(detector)]
    for model in shown:
        spec = model.spec if isinstance(model, Detector) else None
        facts = [("weights here", _weights_here(model.name))]
        facts += [(what, Text(value)) for what, value in [*_input(spec), *_calibrations(model.name)]]
        facts += [(what, Text(value)) for what, value in _facts(model.publication)]
        console.print(Text.assemble((model.name, "bold"), f"  {model.title}"), soft_wrap=True)
        for what, value in facts:  # not folded: addresses stay whole
            console.print(Text.assemble(f"  {what:<{NAME_WIDTH}}", value), soft_wrap=True)
        console.print()


def _weights_here(name: str) -> Text:
    from rich.text import Text

    from deepscan.runtime.artifacts.artifacts import EMBEDDED, embedded_manifest
    from deepscan.runtime.artifacts.weights_store import HASH_DIGITS, installed

    if name in EMBEDDED:
        manifest = embedded_manifest(name)
        digits = manifest.weights_sha256[:HASH_DIGITS]
        return Text(f"yes: embedded, {manifest.size_bytes / 1e6:.1f} MB, sha256 {digits}", "green")
    found = [entry.record for entry in installed() if entry.record.name == name]
    if not found:
        return Text("no", "yellow")
    latest = found[0]
    day = time.strftime("%Y-%m-%d", time.localtime(latest.added))
    said = f"yes: {latest.file}, sha256 {latest.short_hash}, added {day}"
    more = f"; {len(found) - 1} more" if len(found) > 1 else ""
    return Text(f"{said}{more}", "green") if latest.trained else Text(f"{said}, UNTRAINED{more}", "bold red")


def _input(spec: DetectorSpec | None) -> Iterator[tuple[str, str]]:
    """Yield the lines that are about a detector's input and labels."""
    if spec is None:
        return
    pictures = f"{spec.frames} frames of " if spec.kind == "clip" else ""
    yield "input", f"{pictures}{spec.size} x {spec.size}, {spec.channel_order}"
    yield "label", thresholds_in_words(spec.band.real_below, spec.band.fake_from)


def _calibrations(name: str) -> Iterator[tuple[str, str]]:
    """Yield the lines about the installed profiles of a detector."""
    from deepscan.runtime.artifacts.profile_store import installed_profiles
    from deepscan.runtime.pipeline.calibrations import bare_name

    for profile in installed_profiles():
        if bare_name(profile.detector) == name:
            yield "calibrated", printable(str(profile))


def _facts(publication: Publication) -> Iterator[tuple[str, str]]:
    """Yield the lines that are about where a detector comes from."""
    origin = f"{publication.title}, {publication.authors}, {publication.venue} {publication.year}"
    yield "paper", ", ".join(part for part in (origin, publication.paper_url) if part)
    yield "code", f"{publication.code_url or 'this package'}, license: {publication.code_license}"
    names = f" ({', '.join(publication.weights_files)})" if publication.weights_files else ""
    yield "weights", f"{publication.weights_at}{names}"
    yield "terms of weights", publication.weights_license
    yield "trained on", publication.trained_on
    by_source: dict[tuple[str, str], list[Figure]] = {}
    for figure in publication.figures:
        by_source.setdefault((figure.metric, figure.source), []).append(figure)
    for (metric, source), figures in by_source.items():
        yield metric, f"{', '.join(map(str, figures))} ({source})"
