"""Texts of the Patches window."""

from __future__ import annotations

TEXTS = {
    "patches.help": "A vision transformer cuts a cell into patches. Those that it takes for alike get the same "
    "colour. Click a patch to see what resembles it.",
    "patches.scope": "Cells",
    "patches.scope.tip": "Which cells are shown: up to 48 at a time, those in the middle of the view first.",
    "patches.scope.view": "In view",
    "patches.scope.selected": "Selected",
    "patches.rule": "Foreground",
    "patches.rule.tip": "Which patches count: without a rule the colours are spent on the background, too. What "
    "does not count is black in the pictures; on the field the outlines of the cells say it.",
    "patches.rule.all": "All patches",
    "patches.rule.centre": "Unlike the corners",
    "patches.rule.otsu": "First component",
    "patches.opacity": "Opacity",
    "patches.opacity.tip": "How much the colours cover the picture.",
    "patches.on_field": "Field",
    "patches.on_field.tip": "Lay the colours over the cells in the image, as a layer of its own.",
    "patches.on_field.box": "Show on the image",
    "patches.start": "Show patches",
    "patches.start.tip": "Compute the patches of these cells with the study’s encoder, and show them.",
    "patches.done": "Patches of {count:cell|cells}.",
    "patches.colours": "Back to colours",
    "patches.colours.tip": "Leave the similarity, and show the colours again.",
    "patches.anew": "New colours",
    "patches.anew.tip": "Fit the colours to the cells shown now. Else they stay those that the study keeps, so "
    "that a colour means the same in all cells.",
    "patches.pca": "Colours: the first three principal components of the patches as red, green, blue ({shares} of "
    "their variance), fitted to {cells:cell|cells}, encoder {encoder}. Red is not “nucleus”.",
    "patches.similar": "How alike each patch is to the framed one, of {cell}: bright is alike. Compare, do not "
    "take it for a measure.",
    "patches.why.no_cells": "The study has no cells yet. Find them first.",
    "patches.why.select": "Select cells first: click them in the image, on the map or in the gallery.",
    "patches.why.none_in_view": "No cell is in view. Move the image, or open the field with a double click in the "
    "Study window.",
    "patches.why.nothing": "Show patches first.",
    "patches.why.colours": "The colours are shown.",
    "patches.why.gone": "Some of these cells are gone. Choose others.",
    "patches.why.not_shown": "Cells of fields that are not open are shown here only.",
    "patches.why.far_apart": "The cells lie too far apart for one overlay on the image; they are shown here only.",
    "layer.patches": "Patches of {field}",
    "job.patches": "Show patches",
    "step.patch tokens": "Compute patches",
}
