"""What all gates share: name, axes, the columns they read, and their JSON form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import DinoBloomError

Mask = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Columns = Callable[[str], Float64]
"""Gives the values of an axis, (n,) float64."""
Populations = Callable[[str], tuple[Mask, Mask]]
"""Gives of a gate of the tree, by its key, which cells it holds and for which cells it is defined."""

VERSION = 1
"""Of the JSON form of gates; a newer one is refused."""

LARGEST = 1e150
"""Coordinates of gates beyond this are refused: their products would overflow."""

LONGEST_NAME = 100

KINDS: dict[str, type[Gate]] = {}
"""Every class of gates by its name."""


class GateError(DinoBloomError, ValueError):
    """A gate cannot be made, read, applied or put into a tree; the message names the gate and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(ABC):
    """A region of one or two columns of the cell table.

    Attributes
    ----------
    name : str
        For people: 1 to 100 characters, no ``/`` (it separates the names of a path) and no control characters.
    projection : str
        Hash of the map that the gate was drawn on; "" where its axes are no map, or before it is put into a tree.
    """

    name: str
    projection: str = ""

    @property
    @abstractmethod
    def members(self) -> tuple[Gate | str, ...]:
        """Gates, or keys of gates of the tree, that this one is made of; none for a region."""

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """Columns that the gate reads, each once; those of gates it names by key are not among them."""

    @abstractmethod
    def evaluate(self, columns: Columns, populations: Populations | None = None) -> Mask:
        """Say which cells are inside, from their columns and, for `BooleanGate`, from other gates of the tree."""

    def apply(self, table: pd.DataFrame) -> Mask:
        """Say of each cell whether it is inside.

        Parameters
        ----------
        table : DataFrame
            n cells; every axis is a column of numbers.

        Returns
        -------
        ndarray (n,) bool
            The border is inside; an undefined coordinate is outside.

        Raises
        ------
        GateError
            A column is missing or holds no numbers, or the gate names gates of a tree.
        """
        return self.evaluate(lambda axis: column(table, axis, self.name))

    def renamed(self, name: str) -> Self:
        """Return the same gate under another name."""
        return replace(self, name=name)

    def to_dict(self) -> dict[str, Any]:
        """Return the gate as JSON can hold it; `from_dict` gives it back bit for bit."""
        content = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"type": type(self).__name__, "version": VERSION, **content}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Return the gate that `to_dict` wrote.

        Parameters
        ----------
        raw : mapping
            From JSON, possibly from a stranger's file. `Gate.from_dict` takes every type, a subclass only its own.

        Raises
        ------
        GateError
            A type, version or key that is not known, a missing key, or a value out of its range.
        """
        if not isinstance(raw, Mapping):
            raise GateError("A gate must be a JSON object with 'type', 'version' and 'name'.")
        where = f"Gate {str(raw.get('name'))[:LONGEST_NAME]!r}"
        kind = KINDS.get(str(raw.get("type")))
        if kind is None or not issubclass(kind, cls):
            allowed = ", ".join(sorted(name for name, one in KINDS.items() if issubclass(one, cls)))
            raise GateError(f"{where}: its type {str(raw.get('type'))[:40]!r} is none of {allowed}.")
        version = raw.get("version")
        if type(version) is not int or not 1 <= version <= VERSION:
            raise GateError(
                f"{where}: version {str(version)[:20]} is not known; this program reads up to {VERSION}. "
                "Update with 'pip install -U napari-dinobloom'."
            )
        given = {key: value for key, value in raw.items() if key not in ("type", "version")}
        known = {field.name for field in fields(kind)}
        if unknown := sorted(str(key) for key in set(given) - known):
            raise GateError(f"{where}: the key {unknown[0][:40]!r} is not known{nearest(unknown[0], known)}.")
        try:
            return kind(**given)
        except TypeError as error:  # of dataclasses: a key is missing
            raise GateError(f"{where}: {error}.") from error
        except RecursionError as error:
            raise GateError(f"{where}: too many gates lie within each other.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Region(Gate):
    """A gate that is a shape on its axes and made of no other gates.

    Attributes
    ----------
    axes : tuple of str
        Columns of the cell table.
    """

    axes: tuple[str, ...]

    @property
    def members(self) -> tuple[Gate | str, ...]:
        """No other gates."""
        return ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The axes."""
        return self.axes


def registered(kind: type[Gate]) -> None:
    """Make a class known to `Gate.from_dict`."""
    KINDS[kind.__name__] = kind


def column(table: pd.DataFrame, axis: str, gate: str) -> Float64:
    """Return a column as (n,) float64, NaN where it is not known; raise GateError if it is none of numbers."""
    if axis not in table.columns:
        raise GateError(
            f"Gate {gate!r}: the table has no column {axis!r}{nearest(axis, table.columns)}. "
            "Compute it, or draw the gate on columns that are there."
        )
    values = table[axis]
    if values.dtype.kind in "biuf" and isinstance(values.dtype, np.dtype):
        return np.ascontiguousarray(values.to_numpy(), dtype=np.float64)
    try:
        if not pd.api.types.is_numeric_dtype(values.dtype):
            raise TypeError(f"its type is {values.dtype}")
        return np.ascontiguousarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise GateError(
            f"Gate {gate!r}: the column {axis!r} holds no numbers ({error}). Draw the gate on a measurement."
        ) from error


def nearest(name: str, known: Iterable[object]) -> str:
    """Return "; did you mean ...?" for the nearest known name, or nothing."""
    found = get_close_matches(name, [str(one) for one in known], 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def check_name(name: object) -> str:
    """Return a gate's name if people can read it and paths can hold it."""
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise GateError(f"A gate's name is 1 to {LONGEST_NAME} printable characters, not {str(name)[:40]!r}.")
    if "/" in name:
        raise GateError(f"Gate {name!r}: '/' separates the names of a path. Use another sign.")
    return name


def check_common(gate: Gate, axes: object, count: int) -> tuple[str, ...]:
    """Check name and projection, and return the axes: `count` different names."""
    check_name(gate.name)
    if not isinstance(gate.projection, str):
        raise GateError(f"Gate {gate.name!r}: the projection is the hash of a map as text.")
    listed = tuple(axes) if isinstance(axes, Sequence) and not isinstance(axes, str) else (axes,)
    if len(listed) != count or not all(isinstance(axis, str) and axis for axis in listed) or len(set(listed)) != count:
        words = "one column" if count == 1 else "two different columns"
        raise GateError(f"Gate {gate.name!r}: 'axes' must name {words} of the cell table, not {axes!r}.")
    return tuple(str(axis) for axis in listed)


def check_numbers(gate: str, key: str, values: object, count: int) -> tuple[float, ...]:
    """Return `count` finite numbers below `LARGEST`."""
    try:
        numbers = tuple(float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise GateError(f"Gate {gate!r}: {key!r} must be {count} numbers ({error}).") from error
    if len(numbers) != count:
        raise GateError(f"Gate {gate!r}: {key!r} must be {count} numbers, not {len(numbers)}.")
    for value in numbers:
        if not math.isfinite(value) or abs(value) > LARGEST:
            raise GateError(f"Gate {gate!r}: {key!r} holds {value}; give finite numbers up to {LARGEST:g}.")
    return numbers


def defined(columns: Columns, axes: Iterable[str], n: int) -> Mask:
    """Say for which of `n` cells all axes are known."""
    known = np.ones(n, dtype=bool)
    for axis in axes:
        known &= ~np.isnan(columns(axis))
    return known


def _plain(value: Any) -> Any:
    """Tuples as lists and gates as dicts, all the way down."""
    if isinstance(value, Gate):
        return value.to_dict()
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return [list(one) for one in value]  # the vertices of a lasso are many
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
