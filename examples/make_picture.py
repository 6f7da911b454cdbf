"""Draws docs/images/scan.svg: what `deepscan scan examples` and `deepscan show` print, as a terminal shows it.

    python examples/make_picture.py

Both commands are run, in a terminal of their own (`script`, of util-linux), on a copy of the examples.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "scan.svg"
COLUMNS = 92
COMMANDS = ("deepscan scan examples --out results.csv", "deepscan show results.jsonl two_faces_vp9.webm")
# Rich's picture loads a font from the network; the viewer's own is good enough.
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
# The progress line, which is drawn over again and again.
REDRAWN = re.compile(r".*\x1b\[1A\x1b\[2K|\x1b\[\?25[lh]|\r(?!\n)", re.DOTALL)


def main() -> None:
    """Run the commands and draw what they print."""
    console = Console(record=True, width=COLUMNS, force_terminal=True, file=io.StringIO())
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(ROOT / "examples", Path(name) / "examples", ignore=shutil.ignore_patterns("*.py", "*.md"))
        for command in COMMANDS:
            console.print(Text(f"$ {command}", style="bold"))
            console.print(Text.from_ansi(printed(command, Path(name)).rstrip("\n")))
    PICTURE.write_text(FONTS.sub("", console.export_svg(title="deepscan")))
    print(f"Written: {PICTURE}")


def printed(command: str, folder: Path) -> str:
    """Return what a command prints in a terminal, without its progress line."""
    program = Path(sys.executable).with_name("deepscan")
    line = f"stty cols {COLUMNS}; {command.replace('deepscan', str(program), 1)}"
    ran = subprocess.run(["script", "-qec", line, "/dev/null"], cwd=folder, capture_output=True, text=True, check=True)
    return REDRAWN.sub("", ran.stdout).replace("\r\n", "\n")


if __name__ == "__main__":
    main()
