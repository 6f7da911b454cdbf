"""Files that would run code: what they name must never be called."""

from __future__ import annotations

import builtins
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deepscan.errors import ModelError
from deepscan.models.checkpoints.checkpoints import read_tensors
from deepscan.models.checkpoints.torch_files import HARMLESS, Ignored, read_archive, read_pickle


class Calls:
    """An object whose pickle calls a function with arguments."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


class Foreign:
    """A class that is not torch's."""


def new(content: object, path: Path) -> None:
    torch.save(content, path)


def new_with_a_newer_protocol(content: object, path: Path) -> None:
    torch.save(content, path, pickle_protocol=4)


def old(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def old_with_a_newer_protocol(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False, pickle_protocol=4)


def bare(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def bare_and_old(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


WRITERS = [new, new_with_a_newer_protocol, old, old_with_a_newer_protocol, bare, bare_and_old]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ["touch {}"], r"(posix|os)\.system"),
        (builtins.eval, ["open({!r}, 'w')"], r"((builtins|__builtin__)\.)?eval"),
        (shutil.copyfile, [__file__, "{}"], r"shutil\.copyfile"),
    ],
)
def test_files_that_would_run_code_are_refused_and_run_nothing(
    tmp_path: Path,
    write: Callable[[object, Path], None],
    function: Callable[..., object],
    arguments: list[str],
    named: str,
) -> None:
    mark, path = tmp_path / "mark", tmp_path / "w.pth"
    calls = Calls(function, *[argument.format(str(mark)) for argument in arguments])
    write({"best": np.float64(0.5), "state_dict": {"weight": torch.ones(2)}, "extra": calls}, path)
    said = rf"w\.pth would run code when it is read \(it names {named}\): deepscan refuses such files; get the"
    with pytest.raises(ModelError, match=said):
        read_tensors(path)
    assert not mark.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_objects_of_foreign_classes_are_refused_by_name(tmp_path: Path, write: Callable[[object, Path], None]) -> None:
    write({"model": Foreign()}, tmp_path / "w")
    with pytest.raises(ModelError, match=r"\(it names tests\.models\.checkpoints\.test_torch_files\.Foreign\)"):
        read_tensors(tmp_path / "w")


def test_a_whole_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "w")
    with pytest.raises(ModelError, match=r"\(it names torch\.nn\.modules\.container\.Sequential\)"):
        read_tensors(tmp_path / "w")


def test_tensors_that_pickle_itself_wrote_are_refused(tmp_path: Path) -> None:
    bare({"weight": torch.ones(2)}, tmp_path / "w")
    with pytest.raises(ModelError, match=r"w is a pickle that torch\.save did not write: get the weights as"):
        read_tensors(tmp_path / "w")


def test_a_zip_archive_around_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("model.pth", b"")
    with pytest.raises(ModelError, match=r"w\.zip is a ZIP archive without torch weights: give a file that it con"):
        read_tensors(tmp_path / "w.zip")


def test_harmless_objects_are_never_made(tmp_path: Path) -> None:
    """A crafted state can turn numpy's real types against the process, so stand-ins take their place."""
    crafted = Calls(np.dtype, "V8")
    torch.save({"weight": torch.ones(2), "best": np.float64(0.5), "type": crafted}, tmp_path / "w")
    content = read_archive(tmp_path / "w")
    assert isinstance(content, dict)
    assert type(content["best"]) is type(content["type"]) is Ignored
    assert vars(content["best"]) == {}
    # And nothing stays allowed for the next file that is loaded.
    assert not any(entry in torch.serialization.get_safe_globals() for entry in [(Ignored, name) for name in HARMLESS])


def test_a_name_that_the_end_of_the_file_cuts_off_is_damage_not_code(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "whole", _use_new_zipfile_serialization=False)
    data = (tmp_path / "whole").read_bytes()
    start = data.index(b"ctorch._utils")
    for end in range(start, start + len(b"ctorch._utils\n_rebuild_tensor_v2\n")):
        (tmp_path / "cut").write_bytes(data[:end])
        with pytest.raises(ModelError, match="damaged or cut short"):
            read_pickle(tmp_path / "cut")
