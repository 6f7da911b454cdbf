"""Files that `torch.save` wrote, read without running anything that they ask for."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Final

import torch

from deepscan.errors import ModelError

# What torch.save began its files with before version 1.6: a pickled number.
OLD_MAGIC: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
PICKLE_MAGIC: Final = b"\x80"
PICKLE_RECORD: Final = "data.pkl"
SCRIPT_RECORD: Final = "constants.pkl"
# Training scripts store these beside the weights: a best metric as numpy computed it, and the options of the command
# line. The real ones would be harmless to name, but numpy's are not safe against a crafted state (a structured type
# can be told that its bytes are pointers). Nothing needs their content, so `Ignored` stands in for each of them.
HARMLESS: Final = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",  # numpy before 2.0
    "numpy.core.multiarray.scalar",
)
# Modules whose names are in every file of torch.
OWN_MODULES: Final = ("torch", "collections", "_codecs")
NAMED_BY_TORCH: Final = re.compile(r"GLOBAL (\S+) ")
WHOLE_MODELS: Final = "torch.nn.modules."
SAFE_FORMS: Final = "get the weights as safetensors or as a plain state dict"


class Ignored:
    """Stand-in for a harmless object that is not needed: accepts any arguments and keeps nothing."""

    def __init__(self, *_arguments: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        """Keep nothing."""


def read_archive(path: Path) -> object:
    """Return what is in a ZIP archive that torch.save wrote, its tensors mapped; refuse others, damage and code."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = {name.rpartition("/")[2]: name for name in archive.namelist()}
            if SCRIPT_RECORD in records:
                raise ModelError(f"{path} is a TorchScript program, which deepscan does not run: {SAFE_FORMS}.")
            if PICKLE_RECORD not in records:
                raise ModelError(f"{path} is a ZIP archive without torch weights: give a file that it contains.")
            # torch itself does not look at the checksums.
            damaged = archive.testzip()
            content = archive.read(records[PICKLE_RECORD])
    except ModelError:
        raise
    except Exception as error:  # zipfile lets out many kinds when an archive is damaged
        raise _damaged(path) from error
    if damaged is not None:
        raise _damaged(path)
    return _read(path, content=BytesIO(content), mapped=True)


def read_pickle(path: Path) -> object:
    """Return what is in a file of pickles that torch.save wrote before version 1.6; refuse others, damage and code."""
    with path.open("rb") as stream:
        if stream.read(len(OLD_MAGIC)) == OLD_MAGIC:
            return _read(path, content=stream, mapped=False)
        stream.seek(0)
        foreign = next(filter(_is_foreign, _names(stream)), None)
    if foreign:
        raise _refused(path, foreign)
    raise ModelError(f"{path} is a pickle that torch.save did not write: {SAFE_FORMS}.")


def _read(path: Path, *, content: IO[bytes], mapped: bool) -> object:
    """Read with torch's restricted unpickler; `content` is where the pickles are, to name what they ask for."""
    stand_ins = [(Ignored, name) for name in HARMLESS]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # Torch may also stop at a name that was cut off with the file; whole ones can be found again.
        said = NAMED_BY_TORCH.search(str(error))
        named = said and said.group(1)
        foreign = next((name for name in _names(content) if name == named or _is_foreign(name)), None)
        raise (_refused(path, foreign) if foreign else _damaged(path)) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path) from error


def _names(stream: IO[bytes]) -> Iterator[str]:
    """Yield the names that the pickles in `stream` refer to, up to the first damage; they are only disassembled."""
    texts = ["", ""]
    try:
        while True:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    yield ".".join(texts[-2:])
                elif isinstance(argument, str):
                    texts.append(argument)
    except Exception:  # the end, the numbers after the pickles, or damage
        return


def _is_foreign(name: str) -> bool:
    return name not in HARMLESS and name.partition(".")[0] not in OWN_MODULES


def _refused(path: Path, name: str) -> ModelError:
    if name.startswith(WHOLE_MODELS):
        return ModelError(
            f"{path} is a whole pickled model (it names {name}), whose code deepscan does not run: "
            "save its state_dict() and give that."
        )
    return ModelError(
        f"{path} would run code when it is read (it names {name}): deepscan refuses such files; {SAFE_FORMS}."
    )


def _damaged(path: Path) -> ModelError:
    return ModelError(f"{path} is damaged or cut short: download or copy it again.")
