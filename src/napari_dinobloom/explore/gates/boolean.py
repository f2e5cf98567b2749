"""Gates made of other gates: and, or, not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_dinobloom.explore.gates.base import (
    Columns,
    Gate,
    GateError,
    Mask,
    Populations,
    check_common,
    defined,
    registered,
)

BoolType = Literal["and", "or", "not"]
DEEPEST = 50
"""Gates within gates within gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BooleanGate(Gate):
    """Cells that are in all, in any, or not in one of other gates.

    A cell is outside of "not" if a column that the negated gate needs is not known for it: what has no place on a map
    is not beside a gate either.

    Attributes
    ----------
    bool_type : {"and", "or", "not"}
        How the gates are joined.
    gate_refs : sequence of Gate or str
        Gates, or keys of gates of the tree that this one is put into: their populations, which follow when those
        gates are changed. Exactly one for "not", else two or more.
    """

    bool_type: BoolType
    gate_refs: Sequence[Gate | str]

    def __post_init__(self) -> None:
        check_common(self, (), 0)
        given: object = self.gate_refs
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise GateError(f"Gate {self.name!r}: 'gate_refs' must be a list of gates or of keys of gates.")
        refs = tuple(_member(self.name, one) for one in given)
        object.__setattr__(self, "gate_refs", refs)
        if self.bool_type not in ("and", "or", "not"):
            raise GateError(f"Gate {self.name!r}: 'bool_type' is 'and', 'or' or 'not', not {self.bool_type!r:.30}.")
        if len(refs) != 1 if self.bool_type == "not" else len(refs) < 2:
            wanted = "exactly one gate" if self.bool_type == "not" else "two gates or more"
            raise GateError(f"Gate {self.name!r}: {self.bool_type!r} joins {wanted}, not {len(refs)}.")
        if _depth(self) > DEEPEST:
            raise GateError(f"Gate {self.name!r}: more than {DEEPEST} gates lie within each other. Make it flatter.")

    @property
    def axes(self) -> tuple[str, ...]:
        """Columns of the gates within, each once, in the order in which they come."""
        return self.needs

    @property
    def members(self) -> tuple[Gate | str, ...]:
        """The gates, or their keys, that are joined."""
        return tuple(self.gate_refs)

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of the gates within."""
        return tuple(dict.fromkeys(axis for one in self.members if isinstance(one, Gate) for axis in one.needs))

    def evaluate(self, columns: Columns, populations: Populations | None = None) -> Mask:
        """Join the masks of the gates."""
        masks = [self._mask_of(one, columns, populations) for one in self.members]
        if self.bool_type == "not":
            known = self._known(self.members[0], columns, populations, len(masks[0]))
            return np.asarray(~masks[0] & known)
        join = np.logical_and if self.bool_type == "and" else np.logical_or
        return np.asarray(join.reduce(masks))

    def _mask_of(self, one: Gate | str, columns: Columns, populations: Populations | None) -> Mask:
        if isinstance(one, Gate):
            return one.evaluate(columns, populations)
        if populations is None:
            raise GateError(
                f"Gate {self.name!r} names the gate with the key {one!r}, which only its tree knows. "
                "Put it into a GateTree and ask for tree.masks(table)."
            )
        return populations(one)[0]

    def _known(self, one: Gate | str, columns: Columns, populations: Populations | None, n: int) -> Mask:
        """For which cells the member is defined: where all columns that it reads, at any depth, are known."""
        if isinstance(one, Gate):
            known = defined(columns, one.needs, n)
            for key in references(one):
                if populations is not None:
                    known &= populations(key)[1]
            return known
        return np.ones(n, dtype=bool) if populations is None else populations(one)[1]


def references(gate: Gate) -> Iterator[str]:
    """Keys of gates of the tree that a gate names, at any depth."""
    for one in gate.members:
        if isinstance(one, str):
            yield one
        else:
            yield from references(one)


def _depth(gate: Gate) -> int:
    return 1 + max((_depth(one) for one in gate.members if isinstance(one, Gate)), default=0)


def _member(gate: str, one: Any) -> Gate | str:
    """Return a gate or the key of one."""
    if isinstance(one, Mapping):
        return Gate.from_dict(one)
    if isinstance(one, Gate) or (isinstance(one, str) and one):
        return one
    raise GateError(f"Gate {gate!r}: 'gate_refs' holds {str(one)[:40]!r}, which is neither a gate nor the key of one.")


registered(BooleanGate)
