"""Numbers in sentences: a number and the form of its noun, the same in windows, reports and on the command line."""

from __future__ import annotations


def number_of(n: int, one: str, many: str = "") -> str:
    """Return `n` with its noun, as in "1 cell" and "1,204 cells"; `many` where that is not `one` with an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
