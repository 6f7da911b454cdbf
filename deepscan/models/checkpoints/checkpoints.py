"""Weights from files, matched strictly against the network that takes them; nothing in a file is ever run."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import safetensors
import torch
from safetensors.torch import load_file
from torch import nn

from deepscan.errors import ModelError
from deepscan.models.checkpoints.matching import Comparison, compare
from deepscan.models.checkpoints.recognize import likeness, rename_for
from deepscan.models.checkpoints.torch_files import PICKLE_MAGIC, SAFE_FORMS, read_archive, read_pickle
from deepscan.models.checkpoints.unwrapping import unwrapped

HEAD_BYTES: Final = 512
ZIP_MAGIC: Final = b"PK\x03\x04"
LFS_MAGIC: Final = b"version https://git-lfs"
MARKUP: Final = (b"<!doctype", b"<html", b"<?xml")
LONGEST_SAFETENSORS_HEADER: Final = 100_000_000  # the format's own limit

Format = Literal["safetensors", "torch", "torch before 1.6"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Contents of a file of weights.

    Attributes:
        tensors: by the names in the file; on the CPU, and mapped from the file where its format allows it.
        sha256: of the file.
        wrapping: where in the file they were: `under 'state_dict'`; empty if at the top.
    """

    tensors: Mapping[str, torch.Tensor]
    sha256: str
    wrapping: str


@dataclass(frozen=True)
class LoadedWeights:
    """Record of the weights that were loaded.

    Attributes:
        sha256: of the file.
        wrapping: what was taken off the weights: `under 'state_dict', without 'module.'`; empty if nothing was.
        dropped: the names in the file that were left out on purpose.
    """

    sha256: str
    wrapping: str
    dropped: tuple[str, ...]


def read_tensors(path: Path) -> Checkpoint:
    """Read a file of safetensors, or one that any version of `torch.save` wrote.

    Raises:
        ModelError: the file cannot be read, is of another format, is damaged, asks to run code, or holds no weights.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{path} is not a file: give the file of the weights.")
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            stream.seek(0)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path of the weights.") from error
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # neither library can open it
        raise ModelError(f"{path} has a name or a folder that is not valid UTF-8: rename it.") from error
    kind = _format(head, path)
    if kind == "safetensors":
        return Checkpoint(_read_safetensors(path), sha256, "")
    tensors, wrapping = unwrapped(read_archive(path) if kind == "torch" else read_pickle(path), path)
    return Checkpoint(tensors, sha256, wrapping)


def load_weights(module: nn.Module, path: Path, *, name: str) -> LoadedWeights:
    """Load a file of weights into a detector's network, every tensor into its place, and set evaluation mode.

    The network is unchanged if the file is refused.

    Raises:
        ModelError: the file cannot be read safely, or its tensors are not the network's.
    """
    return load_checkpoint(module, read_tensors(path), name=name, path=path)


def load_state(module: nn.Module, path: Path, *, sha256: str) -> None:
    """Load safetensors that were saved from `module` itself, name by name, and set evaluation mode.

    The network takes the tensors of the file as its own, and is unchanged if the file is refused.

    Raises:
        ModelError: the file cannot be read, was changed, or is another network's.
    """
    checkpoint = read_tensors(path)
    tensors = dict(checkpoint.tensors)
    if checkpoint.sha256 != sha256 or _kinds(tensors) != _kinds(module.state_dict()):
        raise ModelError(
            f"{path} does not hold the weights that were written to it: export the detector, or add its weights, again."
        )
    module.load_state_dict(tensors, assign=True)
    module.eval()


def load_checkpoint(module: nn.Module, checkpoint: Checkpoint, *, name: str, path: Path) -> LoadedWeights:
    """Load the contents of a file into a network; see `load_weights`."""
    tensors, comparison = fitted(checkpoint, module.state_dict(), name=name, path=path)
    module.load_state_dict(tensors, strict=False)  # what may be missing has been looked at
    module.eval()
    wrapping = ", ".join(step for step in (checkpoint.wrapping, comparison.renaming) if step)
    return LoadedWeights(checkpoint.sha256, wrapping, comparison.dropped)


def fitted(
    checkpoint: Checkpoint, places: Mapping[str, torch.Tensor], *, name: str, path: Path
) -> tuple[dict[str, torch.Tensor], Comparison]:
    """Return a checkpoint's tensors under the names and in the types of a network that they fit.

    Of the network's tensors only shapes and types are needed (`recognize.places`).

    Raises:
        ModelError: the tensors are not the network's, or hold numbers that no training leaves.
    """
    comparison = compare(checkpoint.tensors, places, rename_for(name))
    if not comparison.fits:
        guess = likeness(checkpoint.tensors, name)
        raise ModelError(f"{path} does not hold the weights of {name}: {comparison.differences()} - {guess}.")
    tensors = {
        place: _trained(checkpoint.tensors[source].to(places[place].dtype), f"{source} in {path}")
        for place, source in comparison.sources.items()
    }
    return tensors, comparison


def _kinds(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _format(head: bytes, path: Path) -> Format:
    """Tell the format from the first bytes of the file."""
    # First, as its length of the header may begin with any byte.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_SAFETENSORS_HEADER:
        return "safetensors"
    if head.startswith(ZIP_MAGIC):
        return "torch"
    if head.startswith(PICKLE_MAGIC):
        return "torch before 1.6"
    if not head:
        raise ModelError(f"{path} is empty: download or copy it again.")
    if head.startswith(LFS_MAGIC):
        raise ModelError(f"{path} only points to weights in Git LFS: run `git lfs pull`, or download the file itself.")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(MARKUP):
        raise ModelError(f"{path} is a web page, not weights: open the page in a browser and download the file.")
    raise ModelError(f"{path} has no known format of weights: {SAFE_FORMS}.")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} is damaged or cut short ({error}): download or copy it again.") from error


def _trained(tensor: torch.Tensor, where: str) -> torch.Tensor:
    """Return the tensor if training can have produced it; only its extremes are checked, which takes no memory.

    Kernels and matrices vary from the moment they are initialized. Vectors need not: biases of zero, and the scales and
    statistics of batch normalization that never moved, are in working checkpoints.
    """
    if tensor.is_meta:
        raise ModelError(f"{where} has a shape but no values: get the whole file.")
    if not tensor.numel():
        return tensor
    lowest, highest = tensor.aminmax()
    if not (lowest.isfinite() and highest.isfinite()):
        raise ModelError(f"{where} has numbers that are not finite: get another copy or another training of it.")
    if tensor.ndim > 1 and tensor.numel() > 1 and lowest == highest:
        raise ModelError(
            f"{where} is {lowest.item():g} everywhere, which no training produces: get another copy or another "
            "training of it."
        )
    return tensor
