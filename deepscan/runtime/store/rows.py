"""Which record of a journal each row of the CSV shows: rows accumulate, and the newest record of a row wins."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from deepscan.runtime.media.inputs import normalized_path
from deepscan.runtime.store.journal_lines import Entry


@dataclass(slots=True)
class OtherRows:
    """Where the records of rows are that a command is not about; 16 bytes each, as there may be very many.

    Attributes:
        offsets: of their lines, in the order of the rows.
        heads: bytes of each before the track details.
    """

    offsets: array[int] = field(default_factory=lambda: array("q"))
    heads: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.offsets, self.heads, strict=True)


def rows_of(
    entries: Sequence[Entry], inputs: Sequence[str], models: Sequence[str]
) -> tuple[dict[int, Entry], OtherRows]:
    """Tell the rows of a command from all others.

    A row is about one input, which is known by its path as it was given (see `normalized_path`), and one detector,
    which is known by its name.

    Args:
        entries: what the journal holds, in the order in which it was written.
        inputs: paths of the command's inputs, in order.
        models: names of its detectors, in order.

    Returns:
        The newest record of each row of the command that has one, by the row's number: the rows of an input follow each
        other in the order of the detectors. And the newest records of all other rows, in the order in which the journal
        first mentions them.
    """
    newest: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        newest[normalized_path(entry.path), entry.model] = entry  # a key stays where it was first put
    index_of = {normalized_path(path): index for index, path in enumerate(inputs)}
    number_of = {model: number for number, model in enumerate(models)}
    own, others = dict[int, Entry](), OtherRows()
    for (path, model), entry in newest.items():
        index, number = index_of.get(path), number_of.get(model)
        if index is not None and number is not None:
            own[index * len(models) + number] = entry
        else:
            others.offsets.append(entry.place.offset)
            others.heads.append(entry.place.head)
    return own, others
