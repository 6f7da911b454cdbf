"""Matches the tensors of a file with a network: by name, shape and type, up to one change of prefix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from deepscan.models.detector import Rename

# BatchNorm counts training steps: no detector uses the count, and published weights often leave it out.
COUNTER: Final = ".num_batches_tracked"
STATISTICS: Final = ".running_mean"
# torch.optim.swa_utils.AveragedModel counts what it has averaged, in the `swa.pth` that DeepfakeBench writes.
DROPPED_ON_PURPOSE: Final = ("n_averaged",)
REAL: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
NAMES_SHOWN: Final = 3


@dataclass(frozen=True)
class Comparison:
    """The match between a file and a network.

    Attributes:
        sources: of each parameter, its name in the file; only where shape and type agree too.
        dropped: names in the file that are not needed, on purpose.
        missing: parameters that the file does not have.
        unknown: names in the file that no parameter has.
        misfits: parameters that the file has in another shape or type, with both.
        renaming: how the file's prefix was changed, such as `without 'module.'`; empty if it was not.
    """

    sources: Mapping[str, str]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misfits: tuple[str, ...]
    renaming: str

    @property
    def fits(self) -> bool:
        """Whether everything in the file has its place, and every parameter its tensor."""
        return bool(self.agreeing) and not (self.missing or self.unknown or self.misfits)

    @property
    def agreeing(self) -> int:
        """How many parameters have their tensor in the file."""
        return sum(not name.endswith(COUNTER) for name in self.sources)

    def differences(self) -> str:
        """Return the number and the first few of each kind of difference, for a message."""
        kinds = (("missing", self.missing), ("unknown", self.unknown), ("of another shape or type", self.misfits))
        return "; ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds if names)


def compare(
    tensors: Mapping[str, torch.Tensor], places: Mapping[str, torch.Tensor], rename: Rename | None = None
) -> Comparison:
    """Compare a file with a network, under the one change of prefix that makes most names agree.

    The change is the same for all names: a leading path that most names of the file share, such as `module.network.`,
    is left out or not, and one that all parameters share, such as `resnet.`, is put in front or not. `rename` leads
    from the file's names, without a prefix, to the network's. Only shapes and types count.
    """
    surpluses = leading_paths(tensors, least=len(tensors) // 2 + 1)
    lacks = leading_paths(places, least=len(places))
    changes = [(surplus, lack) for surplus in surpluses for lack in lacks]
    comparisons = [_compare(tensors, places, surplus, lack, rename or str) for surplus, lack in changes]
    return max(comparisons, key=lambda comparison: comparison.agreeing)


def leading_paths(names: Iterable[str], *, least: int) -> list[str]:
    """Return the paths, from "" to longer ones, that at least this number of names begins with."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        counts.update(".".join(parts[:depth]) + "." for depth in range(1, len(parts)))
    return ["", *sorted((path for path, count in counts.items() if count >= least), key=len)]


def _compare(
    tensors: Mapping[str, torch.Tensor], places: Mapping[str, torch.Tensor], surplus: str, lack: str, rename: Rename
) -> Comparison:
    """Compare with `surplus` left out in front of the file's names and `lack` put there."""
    sources: dict[str, str] = {}
    misfits: dict[str, str] = {}
    dropped: list[str] = []
    unknown: list[str] = []
    for name, tensor in tensors.items():
        target = _target(name, surplus, lack, rename)
        place = places.get(target or "")
        if target is None or (place is None and _is_surplus_counter(target, tensor, places)):
            dropped.append(name)
        elif place is None or target in sources:
            unknown.append(name)
        elif _agree(tensor, place):
            sources[target] = name
        else:
            misfits[target] = f"{target} is {_described(tensor, place)}, not {_described(place, tensor)}"
    found = sources.keys() | misfits.keys()
    changes = [f"without {surplus!r}"] * bool(surplus) + [f"with {lack!r} in front"] * bool(lack)
    return Comparison(
        sources=sources,
        dropped=tuple(dropped),
        missing=tuple(name for name in places if name not in found and not name.endswith(COUNTER)),
        unknown=tuple(unknown),
        misfits=tuple(misfits.values()),
        renaming=", ".join(changes),
    )


def _is_surplus_counter(target: str, tensor: torch.Tensor, places: Mapping[str, torch.Tensor]) -> bool:
    """Whether this is the step counter of a normalization that the network has, without such a counter."""
    return target.endswith(COUNTER) and not tensor.ndim and target.removesuffix(COUNTER) + STATISTICS in places


def _target(name: str, surplus: str, lack: str, rename: Rename) -> str | None:
    """Return the parameter that a name of the file means, "" for none, or None if it is not needed."""
    if name in DROPPED_ON_PURPOSE:
        return None
    return rename(lack + name.removeprefix(surplus)) if name.startswith(surplus) else ""


def _agree(tensor: torch.Tensor, place: torch.Tensor) -> bool:
    """Whether shapes agree, and types up to the precision of real numbers."""
    same_type = tensor.dtype in REAL if place.is_floating_point() else tensor.dtype == place.dtype
    return same_type and tensor.shape == place.shape and tensor.layout == torch.strided


def _described(tensor: torch.Tensor, other: torch.Tensor) -> str:
    """Return the shape, or the type where the shape is that of the other."""
    if tensor.shape != other.shape:
        return str(list(tensor.shape))
    return str(tensor.dtype if tensor.dtype != other.dtype else tensor.layout).removeprefix("torch.")


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
