"""Output format of another package: a line of TOML for each row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deepscan.runtime.store.writers import Writer

FIRST = b"# rows of deepscan\n"


def encode(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    yield FIRST
    for row in rows:
        yield f"[[row]]\npath = {json.dumps(row['path'])}\nscore = {row['score']}\n".encode("ascii")


WRITER = Writer(encode, recognizes=lambda start: start.startswith(FIRST))
