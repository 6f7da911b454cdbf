"""Feeds real crops or clips into a graph, batch by batch, as often as somebody wants to see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deepscan.errors import UsageError

CROPS_AT_ONCE: Final = 8
CLIPS_AT_ONCE: Final = 1
CLIP_AXES: Final = 5


class ItemReader:
    """Batches of items in an order that the seed decides; every item occurs once in each round.

    Each `iter` starts a new round, with the same batches in the same order.
    """

    def __init__(self, items: NDArray[np.uint8], *, seed: int) -> None:
        """Take the items.

        Args:
            items: RGB uint8 crops [M, H, W, 3] or clips [M, T, H, W, 3].
            seed: of the order.

        Raises:
            UsageError: there are none.
        """
        if not len(items):
            raise UsageError(
                "There are no crops to find the ranges of 8-bit numbers with: "
                "give videos like those that will be scanned, with --calibration-data FOLDER."
            )
        self._items = items
        self._order = np.random.default_rng(seed).permutation(len(items))
        self.batch = min(len(items), CLIPS_AT_ONCE if items.ndim == CLIP_AXES else CROPS_AT_ONCE)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield batches [N, ...]; the last one may be smaller."""
        for start in range(0, len(self._order), self.batch):
            yield self._items[self._order[start : start + self.batch]]

    def first(self, count: int) -> ItemReader:
        """Return a reader of the first `count` items of the order, at most."""
        reader = ItemReader(self._items[self._order[:count]], seed=0)
        reader._order = np.arange(len(reader))
        return reader
