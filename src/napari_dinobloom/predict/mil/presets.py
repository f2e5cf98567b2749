"""Settings of attention MIL: how a network is built and trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from napari_dinobloom.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """How a network is built and trained."""

    name: str
    """``gated`` or ``paper``."""
    network: Literal["gated", "paper"] = "gated"
    """Which network; see `network`."""
    hidden: int = 32
    """Features of a cell (gated)."""
    attention: int = 16
    """Units of the attention (gated)."""
    members: int = 5
    """Networks, each with a fifth of the training patients (of their groups) held back to stop it (gated)."""
    epochs: int = 10
    """Passes over the patients: at least (gated), at most (paper)."""
    steps: int = 600
    """Steps of training at least, however few patients there are (gated)."""
    batch: int = 16
    """Patients in a step (gated; paper: one)."""
    most_cells: int = 256
    """Cells of a patient in a step; of more, a random part, drawn anew each time (gated; paper: all)."""
    rate: float = 4e-3
    """Highest learning rate."""
    decay: float = 1e-2
    """Weight decay (AdamW)."""
    drop: float = 0.25
    """Share of features left out in training."""
    patience: int = 20
    """Epochs without a better loss of the patients held back after which training stops (paper)."""

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        for name in ("hidden", "attention", "epochs", "steps", "batch", "most_cells", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; 1 is the least.")
        if self.members < 2 and self.network == "gated":
            raise InputError(f"members is {self.members}; 2 is the least: each holds other patients back.")
        if not (self.rate > 0 and self.decay >= 0 and 0 <= self.drop < 1):
            raise InputError("rate must be above 0, decay 0 or above, drop from 0 to below 1.")

    def to_dict(self) -> dict[str, Any]:
        """Settings as plain values."""
        return asdict(self)


PRESETS = {
    "gated": Preset(name="gated"),
    "paper": Preset(
        name="paper",
        network="paper",
        members=1,
        epochs=150,
        batch=1,
        most_cells=1 << 62,
        rate=1e-3,
        decay=0.0,
        drop=0.0,
    ),
}
"""``gated``: standardised embeddings, gated attention beside a mean, AdamW, class weights, an ensemble over folds.
``paper``: as the code of the DinoBloom evaluation (SGD, momentum 0.9, Nesterov, one bag a step, cosine over 150 *bags*,
not epochs), with its defects mended: the best weights are kept as a copy, test patients are never seen, classes have
one order, the softmax names its axis. Settings of ``gated`` were chosen on the generated cohorts of
``benchmarks/predict_mil_cohorts.py``."""


def preset_of(name: str | Preset, **changes: Any) -> Preset:
    """Return a preset by name, with changes.

    Raises
    ------
    InputError
        If the name or a setting is unknown.
    """
    if not isinstance(name, Preset):
        if name not in PRESETS:
            raise InputError(f"There is no preset {name!r}: give {' or '.join(PRESETS)}.")
        name = PRESETS[name]
    known = [one.name for one in fields(Preset) if one.name not in ("name", "network")]
    if unknown := [key for key in changes if key not in known]:
        raise InputError(f"There is no setting {unknown[0]!r} of attention MIL. Settings: {', '.join(known)}.")
    return replace(name, **changes)
