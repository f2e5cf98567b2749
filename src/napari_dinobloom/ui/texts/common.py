"""Texts that no window has for itself: jobs and their status line, errors, layers, sample data, the reader."""

from __future__ import annotations

TEXTS = {
    "disclaimer": "Research use, not for diagnosis",
    # Jobs and their status line.
    "job.run": "Find and name white cells",
    "job.segment": "Find and cut out white cells",
    "job.suggest": "Suggest gates",
    "job.copy_gates": "Copy gates",
    "job.look_up": "Looking something up",
    "job.export_gates": "Export gates",
    "job.compare": "Compare groups of patients",
    "job.preparing": "Preparing the image",
    "job.refused": "“{job}” is still under way, so “{title}” was not started. Wait for it or cancel it first.",
    "step.read": "Read",
    "step.segment": "Find cells",
    "step.crop": "Cut out cells",
    "step.embed": "Describe cells",
    "step.map": "Map cells",
    "step.classify": "Name cells",
    "step.differential": "Count",
    "step.report": "Write report",
    "job.cancelled": "“{title}” was cancelled.",
    "status.ready": "Ready.",
    "status.step": "{what} ({done} of {total})",
    "status.cancelling": "Stopping after the present step…",
    "status.cancelled": "Cancelled. What is finished is kept; Run continues from there.",
    "status.failed": "Stopped: {message}",
    "status.done": "Done in {seconds:.0f} s.",
    "error.unexpected": "{title} stopped by an unexpected error ({kind}: {error}). What is finished is kept; "
    "Run continues from there. If it stops again, please report it with the details below.",
    "error.look_up": "{title} stopped by an unexpected error ({kind}: {error}). Nothing was changed. If it stops "
    "again, please report it with the details below.",
    "error.disk_full": "The disk of “{folder}” is full. Free some space and press Run again; what is finished is kept.",
    "error.permission": "“{folder}” cannot be written. Choose a study folder in a place of your own.",
    "error.gone": "“{path}” is gone: it was moved, renamed or deleted, or its disk is not connected. Put it back.",
    "error.memory": "There is not enough memory for this image. Close other images or crop it, then run again.",
    "error.layer_gone": "The image was removed while the run was under way; its cells are in “{folder}”.",
    "error.planes": "The labels have {labels:plane|planes}, the image has {images:field|fields}. Choose "
    "labels of the same size.",
    "error.not_in_study": "“{name}” was left out: {problem}",
    "error.no_browser": "No program opened the report. It is here: {path}",
    # Layers that the plugin adds.
    "layer.cells": "Cells of {name}",
    "layer.quality": "Quality of {name} (green: right)",
    "layer.selected": "Selected cells",
    "layer.tool.add": "Add a cell",
    "layer.tool.box": "Add a cell by a box",
    "layer.tool.split": "Split a cell",
    "layer.repaint": "Repaint {cell_id}",
    # Sample data and reader.
    "sample.generated": "Generated smear",
    "sample.making": "Make the sample study (once, a minute or two)",
    "sample.fetching": "Fetch the real fields",
    "sample.real": "Real fields (BCCD)",
    "layer.captions": "Names in {name}",
    "reader.no_pictures": "There is no image in “{folder}”.",
    "reader.not_cells": "“{file}” has {width} x {height} pixels, so it is a field and no picture of one cell. Drop the "
    "folder on the Study window, or let napari open it.",
    "writer.dims": "“{name}” has {ndim} dimensions; a label image has two, a stack of them three.",
    "writer.no_cells": "“{name}” holds no cells of a study, so there is neither a table nor outlines of them. Save a "
    "layer “Cells of …”.",
    "writer.exists": "“{name}” is there already and would be replaced. Choose another name or folder.",
    "writer.too_large": "“{name}” holds the label {value}; label images are written up to 2147483647.",
    "reader.no_fields": "The study “{folder}” has no field that could be read. Run it again on its images.",
    "reader.no_image": "Pictures of this study were not found ({count:field|fields}); their cells are shown alone. "
    "Drop the folder that holds them on the window Study, then press “Do the next steps”. {problem}",
}
