from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import deepscan
from deepscan.naming import KEYWORDS, in_callers_words

PACKAGE = Path(deepscan.__file__).parent
# Options that programs have no use for: where results go, and what makes artifacts.
COMMAND_LINE_ONLY = frozenset(
    """--out --log --hash --fresh --prune --retry-failed --dry-run --csv-bom --jsonl --fail-on --from-file --int8
    --engine --max-batch --calibration-data --std --fmad --gpu-architecture --force-reinstall --no-deps
    --upgrade --save""".split()
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (
            "--min-face has no meaning with --face-detector none, which",
            'min_face has no meaning with face_detector="none", which',
        ),
        ("use --device cpu.", 'use device="cpu".'),
        ("--device cuda:0,1 names GPU 1", 'device="cuda:0,1" names GPU 1'),
        ("(see --max-duration)", "(see limits.seconds)"),
        (
            "and --max-frames is 5: raise that, or take --on-limit truncate.",
            'and limits.frames is 5: raise that, or take limits.on_limit="truncate".',
        ),
        ("a smaller --jobs, or a larger --memory", "a smaller jobs, or a larger memory"),
        ("see --follow-links", "see follow_links=True"),
        ("--backend and --precision, which", "backend and precision, which"),
        ("--sampling paper follows", 'sampling="paper" follows'),
        ("use `--frames 3`", "use `frames 3`"),
        # No options: parts of paths, longer words, what only the command line has.
        (
            "/in/--frames/a.mp4 and /in/--frames.mp4 and --frames.mp4",
            "/in/--frames/a.mp4 and /in/--frames.mp4 and --frames.mp4",
        ),
        ("--framesets --jobs-x choose another --out.", "--framesets --jobs-x choose another --out."),
        ("--mirror cpus", "mirror cpus"),
    ],
)
def test_options_become_keywords(written: str, read: str) -> None:
    assert in_callers_words(written) == read
    assert in_callers_words(read) == read
    assert str(deepscan.UsageError(written)) == read


def test_every_keyword_and_every_limit_has_its_option() -> None:
    keywords = set(deepscan.ScanOptions.__struct_fields__)
    limits = {f"limits.{name}" for name in deepscan.Limits.__struct_fields__}
    named = {name.partition("=")[0] for name in KEYWORDS.values()}
    assert named == (keywords - {"limits"}) | limits


def strings(source: str) -> Iterator[str]:
    """Yield the texts in a module that are not docstrings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_every_option_in_a_message_of_the_runtime_has_a_keyword() -> None:
    found = {
        option: str(path.relative_to(PACKAGE))
        for path in (PACKAGE / "runtime").rglob("*.py")
        for text in strings(path.read_text())
        for option in OPTION.findall(text)
    }
    assert len(found) > 20
    assert {option: path for option, path in found.items() if option not in {*KEYWORDS, *COMMAND_LINE_ONLY}} == {}


def test_the_command_line_reads_its_own_options() -> None:
    code = (
        "from deepscan.naming import speak_as_command_line as s; s();"
        "from deepscan.errors import UsageError as E; print(E('--frames'))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=PACKAGE.parent) == "--frames\n"
