"""Which picture stands at which position of the endless stream: a function of the seed and the position alone.

Nothing is kept between calls, so that neither the number of processes nor a resumed run changes what is drawn. With
replacement a row follows from a hash of seed and position (the finaliser of SplitMix64, Steele et al., OOPSLA 2014).
Without, each epoch is a keyed permutation: a Feistel network whose results beyond the range are sent through it again
(cycle walking, Black and Rogaway, CT-RSA 2002).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.training.counter import GOLDEN, fraction, mix

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

PERIOD = 1 << 16
"""Positions after which weights are met exactly when drawing without replacement."""

BLOCKS_TOGETHER = 8
"""Blocks among which positions are shuffled: one block is often one class of one data set, which no batch should be."""

_ROUNDS = 8
_SET, _ROW, _PERIODS, _BLOCKS, _WINDOW = range(1, 6)
"""Streams of hashes that must not meet."""


class Sampler:
    """Rows of a store for the positions 0, 1, 2, ... of an endless stream.

    Parameters
    ----------
    sizes : sequence of int
        Pictures of each data set; its rows follow those of the one before.
    weights : sequence of float, optional
        Share of each data set in the stream, in any unit; by default its size, each picture alike, as the reference
        does. Equal weights balance the data sets (`balanced`).
    seed : int
        Of everything that is drawn.
    replacement : bool, default: True
        Draw each position by itself. Else a data set is gone through in a new order each time, every picture once;
        weights then hold exactly in every `PERIOD` positions.
    block : int, default: 0
        For slow disks: draw blocks of so many neighbouring rows, and their rows together. With replacement as many
        positions in a row come from one block. Without, `BLOCKS_TOGETHER` blocks are shuffled among each other. 0 and 1
        draw single rows.

    Raises
    ------
    ValueError
        If there is no picture, a weight is no finite number from 0 or too small, or an empty data set has one.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float] | None,
        seed: int,
        replacement: bool = True,
        *,
        block: int = 0,
    ) -> None:
        whole = np.asarray(sizes, np.int64).reshape(-1)
        if (whole < 0).any() or whole.sum() < 1 or block < 0:
            raise ValueError(f"sizes {whole.tolist()} and block {block} must be 0 or more, with 1 picture at least")
        if weights is None:  # all rows are one set, in which each picture is alike
            whole, shares = np.array([whole.sum()]), np.ones(1)
        else:
            shares = _checked(weights, whole)
        self._sizes, self._starts = whole, np.cumsum(whole) - whole
        self._upto = np.cumsum(shares)
        self._quota = _quotas(shares)
        self._key = _mix(np.array([seed], np.int64).astype(np.uint64) + np.uint64(0x1234567))
        self._replacement, self._block = replacement, max(block, 1)

    def rows(self, positions: Ints) -> Ints:
        """Rows of the store.

        Parameters
        ----------
        positions : ndarray of int64
            Positions in the stream, from 0, in any order and shape.

        Returns
        -------
        ndarray of int64
            Of the same shape. A position gives the same row whatever others are asked for.

        Raises
        ------
        ValueError
            If a position is negative.
        """
        asked = np.asarray(positions, np.int64)
        if asked.size and asked.min() < 0:
            raise ValueError(f"position {asked.min()} is negative: the stream begins at 0")
        at = asked.reshape(-1)
        return (self._drawn(at) if self._replacement else self._in_turn(at)).reshape(asked.shape)

    def _drawn(self, at: Ints) -> Ints:
        """Draw with replacement."""
        group = at // self._block
        which = np.searchsorted(self._upto, fraction(self._hash(_SET, group)), side="right")
        size, start = self._sizes[which], self._starts[which]
        row = _below(self._hash(_ROW, group), size)
        if self._block > 1:  # a block is met by any of its rows, so that a short last one does not count more
            first = row - row % self._block
            row = first + _below(self._hash(_WINDOW, at), np.minimum(self._block, size - first))
        return start + row

    def _in_turn(self, at: Ints) -> Ints:
        """Draw without replacement: slots of a period belong to data sets, and each set counts its own slots."""
        if len(self._sizes) == 1:
            which, turn = np.zeros_like(at), at
        else:
            period, slot = np.divmod(at, PERIOD)
            slot = _shuffled(slot, np.full_like(at, PERIOD), self._hash(_PERIODS, period))
            ends = np.cumsum(self._quota)
            which = np.searchsorted(ends, slot, side="right")
            turn = period * self._quota[which] + slot - (ends - self._quota)[which]
        size = self._sizes[which]
        epoch, at = np.divmod(turn, size)
        key = self._hash(_ROW, epoch) ^ _mix(which.astype(np.uint64))
        return self._starts[which] + (_shuffled(at, size, key) if self._block < 2 else self._blocks(at, size, key))

    def _blocks(self, at: Ints, size: Ints, key: Words) -> Ints:
        """Rows in a random order of blocks, shuffled in windows of `BLOCKS_TOGETHER` of them."""
        wide = self._block * BLOCKS_TOGETHER
        start = at - at % wide
        at = start + _shuffled(at - start, np.minimum(wide, size - start), _mix(key ^ start.astype(np.uint64)))
        full, rest = np.divmod(size, self._block)  # the rest is a short block that may stand anywhere in the order
        place = _below(_mix(key + np.uint64(_BLOCKS)), full + 1) * self._block
        short = (at >= place) & (at < place + rest)
        turn = np.where(at < place, at, at - rest)
        whole = _shuffled(np.where(short, 0, turn // self._block), np.maximum(full, 1), _mix(key + np.uint64(_WINDOW)))
        return np.where(short, full * self._block + at - place, whole * self._block + turn % self._block)

    def _hash(self, stream: int, number: Ints) -> Words:
        """Hash (n,) of seed, stream and number."""
        return _mix(_mix(self._key + np.uint64(stream)) + number.astype(np.uint64))


def balanced(sizes: Sequence[int]) -> list[float]:
    """Weights with which each data set that has pictures takes the same share."""
    return [float(size > 0) for size in sizes]


def _checked(weights: Sequence[float], sizes: Ints) -> NDArray[np.float64]:
    """Shares with the sum 1, or an error that names the data set."""
    found = np.asarray(weights, np.float64)
    if found.shape != sizes.shape:
        raise ValueError(f"{found.size} weights for {sizes.size} data sets: give one for each")
    for number, (weight, size) in enumerate(zip(found, sizes, strict=True)):
        if not 0 <= weight < np.inf or (weight > 0 and size == 0):
            raise ValueError(f"weight {weight} of data set {number} ({size} pictures): use 0, or above 0 if it has any")
    if not found.sum() > 0:
        raise ValueError("all weights are 0: give one data set a weight above 0")
    shares: NDArray[np.float64] = found / found.sum()
    return shares


def _quotas(shares: NDArray[np.float64]) -> Ints:
    """Positions of each data set in a period, by largest remainders."""
    exact = shares * PERIOD
    quota = np.floor(exact).astype(np.int64)
    for number in np.argsort(quota - exact, kind="stable")[: PERIOD - int(quota.sum())]:
        quota[number] += 1
    if (lost := (quota == 0) & (shares > 0)).any():
        number = int(np.flatnonzero(lost)[0])
        raise ValueError(f"weight of data set {number} is {shares[number]:.2g} of all: 1 / {PERIOD} is the least, or 0")
    return quota


def _shuffled(index: Ints, size: Ints, key: Words) -> Ints:
    """Place of each index in a keyed permutation of range(size); all three are (n,), 0 <= index < size."""
    half = np.maximum((np.frexp((size - 1).astype(np.float64))[1] + 1) // 2, 1).astype(np.uint64)
    out, todo = index.copy(), np.arange(len(index))
    while len(todo):
        out[todo] = _feistel(out[todo].astype(np.uint64), half[todo], key[todo])
        todo = todo[out[todo] >= size[todo]]
    return out


def _feistel(word: Words, half: Words, key: Words) -> Ints:
    """Keyed permutation of words of 2 `half` bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = word >> half, word & mask
    for number in range(_ROUNDS):
        left, right = right, left ^ (_mix(_mix(key + np.uint64(number)) ^ right) & mask)
    return ((left << half) | right).astype(np.int64)


def _mix(word: Words) -> Words:
    """Hash 64-bit words (n,)."""
    return mix(word + GOLDEN)


def _below(word: Words, size: Ints) -> Ints:
    """Numbers from 0 to below `size`; rounding never reaches it, as `fraction` gives multiples of 2 ** -53."""
    return (fraction(word) * size).astype(np.int64)
