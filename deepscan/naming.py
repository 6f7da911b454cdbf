"""Names of options in messages: a program passes keywords to `deepscan.scan`, a command line has options.

Messages are written with the options of the command line (`--min-face`). For programs that call `deepscan.scan`, they
are renamed where an error is raised or a result is returned.
"""

from __future__ import annotations

import re
from typing import Final

# Keywords of `deepscan.scan` by their options, where the name is not simply the same.
RENAMED: Final = {
    "--follow-links": "follow_links=True",
    "--no-recursive": "recursive=False",
    "--max-file-size": "limits.file_bytes",
    "--max-pixels": "limits.pixels",
    "--max-frames": "limits.frames",
    "--max-duration": "limits.seconds",
    "--max-streams": "limits.streams",
    "--max-faces": "limits.faces",
    "--max-tracks": "limits.tracks",
    "--on-limit": "limits.on_limit",
}
SAME: Final = (
    "model recursive include exclude sampling frames clips detect_every min_face mirror aggregate threshold "
    "face_detector jobs device decoder backend precision timeout memory trace"
).split()
KEYWORDS: Final = {f"--{name.replace('_', '-')}": name for name in SAME} | RENAMED
# Words that may follow an option as its value; any other word goes on with the sentence.
VALUES: Final = (
    r"full|quick|paper|max|mean|yunet|retinaface|none|auto|cpu|nvdec|cuda(?::(?:all|\d+(?:,\d+)*))?|onnxruntime|"
    r"openvino|torch|tensorrt|fp32|bf16|fp16|int8|skip|truncate"
)
# Not inside a path or a longer word.
_OPTION: Final = re.compile(
    rf"(?<![^\s(\"'`])(?P<option>{'|'.join(KEYWORDS)})(?![\w/-]|\.\w)(?: (?P<value>{VALUES})(?![\w/=-]|\.\w))?"
)

_command_line = False


def speak_as_command_line() -> None:
    """Keep the command line's options in messages, from now on in this process."""
    global _command_line
    _command_line = True


def in_callers_words(message: str) -> str:
    """Return a message with the names of options that the caller uses."""
    return message if _command_line else _OPTION.sub(_keyword, message)


def _keyword(found: re.Match[str]) -> str:
    keyword, value = KEYWORDS[found["option"]], found["value"]
    return keyword if value is None else f'{keyword}="{value}"'
