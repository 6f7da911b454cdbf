"""`deepscan models`: which detectors are here."""

from __future__ import annotations


def models() -> None:
    """List the detectors that can be used."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from deepscan.runtime.artefacts import EMBEDDED, embedded_manifest

    table = Table(title="Detectors", title_justify="left", box=SIMPLE_HEAD)
    for column in ("name", "what it is", "input", "label", "precision", "weights"):
        table.add_column(column, overflow="fold")
    for name in EMBEDDED:
        manifest = embedded_manifest(name)
        spec = manifest.spec
        shape = f"{spec.frames} x " if spec.kind == "clip" else ""
        table.add_row(
            name,
            Text(spec.title),
            f"{shape}{spec.size} x {spec.size} {spec.kind}",
            f"fake from {spec.band.fake_from:g}, real below {spec.band.real_below:g}",
            manifest.precision,
            f"embedded, {manifest.size_bytes / 1e6:.1f} MB, sha256 {manifest.weights_sha256[:12]}",
        )
    Console().print(table)
