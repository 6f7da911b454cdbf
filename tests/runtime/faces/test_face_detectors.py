"""The registry of face detectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepscan.runtime.faces.face_detectors import face_detector_identity
from deepscan.runtime.system.files import HOME_VARIABLE
from tests.runtime.faces.blind_retinaface import install_retinaface


def test_an_identity_holds_the_weights_and_the_thresholds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    model = install_retinaface(tmp_path)
    plain = face_detector_identity("retinaface", as_authors=False)
    assert plain == face_detector_identity("retinaface", as_authors=False)
    assert plain != face_detector_identity("retinaface", as_authors=True)
    model.write_bytes(model.read_bytes() + b"more")
    assert plain != face_detector_identity("retinaface", as_authors=False)
