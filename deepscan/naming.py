"""Names of options in messages: a program passes keywords to `deepscan.scan`, a command line has options.

Messages are written with the options of the command line (`--min-face`). For programs that call `deepscan.scan`, they
are renamed where an error is raised or a result is returned.
"""

from __future__ import annotations

import re
from typing import Final

# Keywords of `deepscan.scan` by their options, and words that may follow an option as its value; any other word goes on
# with the sentence. Filled by the modules that define options.
KEYWORDS: Final[dict[str, str]] = {}
VALUES: Final = {r"cuda(?::(?:all|\d+(?:,\d+)*))?", "onnxruntime", "openvino", "torch", "tensorrt", "ort-tensorrt"}

_command_line = False


def speak_as_command_line() -> None:
    """Keep the command line's options in messages, from now on in this process."""
    global _command_line
    _command_line = True


def in_callers_words(message: str) -> str:
    """Return a message with the names of options that the caller uses."""
    # Not inside a path or a longer word.
    option = rf"(?<![^\s(\"'`])(?P<option>{'|'.join(KEYWORDS)})(?![\w/-]|\.\w)"
    value = rf"(?: (?P<value>{'|'.join(VALUES)})(?![\w/=-]|\.\w))?"
    return message if _command_line or not KEYWORDS else re.sub(option + value, _keyword, message)


def _keyword(found: re.Match[str]) -> str:
    keyword, value = KEYWORDS[found["option"]], found["value"]
    return keyword if value is None else f'{keyword}="{value}"'
