from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reencodings import COUNT, RECORDED, REENCODINGS, scored, versions

TOLERANCE = 0.01


def test_sixty_different_files_were_recorded() -> None:
    recorded = json.loads(RECORDED.read_text())["files"]
    assert len({reencoding.name for reencoding in REENCODINGS}) == len(REENCODINGS) == 60
    assert set(recorded) == {reencoding.name for reencoding in REENCODINGS}


@pytest.mark.slow
def test_sixty_reencodings_score_as_they_did_before(tmp_path: Path) -> None:
    recorded = json.loads(RECORDED.read_text())
    found = scored(tmp_path)
    assert {name: facts["status"] for name, facts in found.items()} == dict.fromkeys(recorded["files"], "scored")
    assert {name: facts["frames"] for name, facts in found.items()} == dict.fromkeys(recorded["files"], COUNT)
    moved = {
        f"{name} {mode}": (facts[mode], found[name][mode])
        for name, facts in recorded["files"].items()
        for mode in ("score", "quick")
        if mode in facts and not abs(found[name][mode] - facts[mode]) <= TOLERANCE
    }
    assert not moved, f"(then, now), made with {recorded['made_with']}, here with {versions()}: {moved}"
