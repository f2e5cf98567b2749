"""Augmentation in batches, on the device: crops of a picture that the student has to recognise as the same cell."""

from __future__ import annotations

from napari_dinobloom.training.augment.draws import Augmentations, Draws
from napari_dinobloom.training.augment.views import Augmentation, Views, apply

__all__ = ["Augmentation", "Augmentations", "Draws", "Views", "apply"]
