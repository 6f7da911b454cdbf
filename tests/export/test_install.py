from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deepscan.errors import ModelError, UsageError
from deepscan.export.install import add_random_weights, add_weights
from deepscan.models import retinaface
from deepscan.runtime.system.files import HOME_VARIABLE


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(retinaface.FACE_DETECTOR.build().state_dict(), tmp_path / "r.safetensors")
    return tmp_path / "r.safetensors"


@pytest.mark.parametrize("form", ["2d", "3d"])
def test_a_network_of_one_form_is_refused_where_another_is_asked_for(form: str, checkpoint: Path, home: Path) -> None:
    with pytest.raises(UsageError, match=r"^retinaface has no 3-D convolutions: leave out --form\.$"):
        add_weights(checkpoint, form=form)  # type: ignore[arg-type]
    assert not home.exists()


def test_weights_of_nothing_but_zeros_are_not_added(checkpoint: Path, home: Path) -> None:
    save_file(
        {name: torch.zeros_like(value) for name, value in retinaface.FACE_DETECTOR.build().state_dict().items()},
        checkpoint,
    )
    with pytest.raises(ModelError, match=r"\S+weight in .*r\.safetensors is 0 everywhere, which no training produces"):
        add_weights(checkpoint)
    assert not home.exists()


def test_the_embedded_detector_takes_no_random_weights_and_says_why(home: Path) -> None:
    with pytest.raises(UsageError, match=r"^lite comes inside deepscan with its trained weights: there is nothing to"):
        add_random_weights("lite", seed=0)
