"""Every sentence, label and tooltip that the widgets show, in one dictionary.

Keys are ``place.thing``; ``place.thing.tip`` is the tooltip of ``place.thing``. Values may hold ``{names}`` that
`text` fills in.
"""

from __future__ import annotations

from types import MappingProxyType

TEXTS = MappingProxyType(
    {
        "disclaimer": "Research use, not for diagnosis",
        # The form of the run widget.
        "run.image": "Image",
        "run.image.tip": "The smear to work on: any colour image that is open. A stack counts as several fields.",
        "run.folder": "Study folder",
        "run.folder.tip": "Where cells, classes and the report are kept. A folder that holds a study already is "
        "continued: only what is missing or changed is computed.",
        "run.browse": "Choose…",
        "run.browse.tip": "Choose another place for the study folder.",
        "run.specimen": "Specimen",
        "run.specimen.tip": "Blood counts white cells; erythroblasts are given per 100 white cells. "
        "Marrow counts all nucleated cells and gives the myeloid to erythroid ratio.",
        "run.specimen.blood": "Blood",
        "run.specimen.marrow": "Bone marrow",
        "run.pixel": "Pixel size",
        "run.pixel.tip": "Micrometres per pixel. Left empty, it is taken from the layer, from the file, or measured "
        "on the red cells, in this order.",
        "run.pixel.from_layer": "{size:g} µm, from the layer",
        "run.pixel.automatic": "from file or red cells",
        "run.pixel.unit": "µm",
        "run.encoder": "Encoder",
        "run.encoder.tip": "The network that describes each cell. “starter” comes with the plugin and needs no "
        "download.",
        "run.start": "Run",
        "run.start.tip": "Find, embed, classify and count the white cells of this image.",
        "run.cancel": "Cancel",
        "run.cancel.tip": "Stop after the present step. What is finished is kept; Run continues from there.",
        # The form of the Segment and crop window.
        "segment.segmenter": "Segmenter",
        "segment.segmenter.tip": "What finds the cells. The built-in one needs no setting and no download. Cells of a "
        "labels layer are taken over as they are.",
        "segment.segmenter.learned": "Built-in",
        "segment.segmenter.cellpose": "Cellpose-SAM",
        "segment.segmenter.labels": "Labels layer",
        "segment.segmenter.kept": "As before: {name}",
        "segment.licence": "Licence",
        "segment.licence.tip": "The weights of Cellpose-SAM were made from data under CC BY-NC: they may be used for "
        "non-commercial work only. They are fetched from their authors on first use (1.2 GB). That you accept this is "
        "kept in the study and printed in its report.",
        "segment.licence.box": "I accept: non-commercial use",
        "segment.why.licence": "Accept the terms of Cellpose-SAM first, or choose another segmenter.",
        "segment.labels": "Labels",
        "segment.labels.tip": "The labels layer whose cells are taken: as large as the image, 0 for no cell.",
        "segment.view": "Crop width",
        "segment.view.tip": "Side of the square around a cell that the encoder gets to see. Take cell diameters where "
        "nobody knows the pixel size. The bundled atlas was made with 25 µm.",
        "segment.unit.um": "µm",
        "segment.unit.diameters": "cell diameters",
        "segment.interpolation": "Interpolation",
        "segment.interpolation.tip": "How a crop is resized. The bundled atlas was made with bilinear.",
        "segment.interpolation.bilinear": "Bilinear",
        "segment.interpolation.bicubic": "Bicubic",
        "segment.interpolation.lanczos": "Lanczos",
        "segment.mask": "Neighbours",
        "segment.mask.tip": "Whether other white cells in a crop are painted over with the colour of the background. "
        "The bundled atlas was made without.",
        "segment.mask.box": "Blank out other white cells",
        "segment.start": "Find cells",
        "segment.start.tip": "Find the white cells of this image and cut them out. What you corrected by hand stays.",
        "segment.why.no_labels": "Choose a labels layer that holds the cells, or another segmenter.",
        "segment.why.size": "“{name}” has {found} pixels, the image {wanted}. Choose labels of the same size.",
        "segment.why.view": "The crop width must be a number between {low:g} and {high:g} {unit}.",
        # What was found.
        "cells.none": "No white cell was found. Check the pixel size, and that the image is a stained smear.",
        "cells.one": "1 white cell",
        "cells.count": "{count} white cells",
        "cells.border": "at the border",
        "cells.excluded": "excluded",
        "cells.quality.debris": "debris",
        "cells.quality.clump": "clumps",
        "cells.quality.smudge": "smudge cells",
        "cells.quality.out_of_focus": "out of focus",
        "cells.quality.precipitate": "stain precipitate",
        "cells.quality.platelets": "platelet clumps",
        "cells.scale": "{size} µm per pixel, {source}.",
        "cells.scale.file": "from the file",
        "cells.scale.user": "as given",
        "cells.scale.red cells": "measured on the red cells",
        "cells.scale.white cells": "estimated from the nuclei",
        "cells.scale.assumed": "assumed, since nothing tells it",
        "cells.more_notes": "And {count} more; see the report of the run.",
        # Correction by hand.
        "edit.title": "Correct by hand",
        "edit.add": "Add a cell by a click",
        "edit.add.tip": "Add a cell: click where a white cell was missed.",
        "edit.box": "Add a cell by a box",
        "edit.box.tip": "Add a cell: drag a box around a white cell that was missed.",
        "edit.delete": "Delete",
        "edit.delete.tip": "Delete the selected cells (Del): they are no white cells.",
        "edit.merge": "Merge",
        "edit.merge.tip": "Make one cell of the selected ones.",
        "edit.split": "Split",
        "edit.split.tip": "Split the selected cell: drag a line across it.",
        "edit.repaint": "Repaint",
        "edit.repaint.tip": "Paint the outline of the selected cell with napari’s brush.",
        "edit.exclude": "Exclude",
        "edit.exclude.tip": "Leave the selected cells out of every count; they stay visible.",
        "edit.include": "Include",
        "edit.include.tip": "Take the selected cells back into the counts.",
        "edit.undo": "Undo",
        "edit.undo.tip": "Take the last act back (Ctrl+Z), also one of an earlier day.",
        "edit.redo": "Redo",
        "edit.redo.tip": "Do again what was taken back (Ctrl+Shift+Z).",
        "edit.apply": "Apply",
        "edit.apply.tip": "Make what you painted the outline of the cell.",
        "edit.discard": "Discard",
        "edit.discard.tip": "Drop what you painted.",
        "edit.selected": "Selected: {count}. Shift-click adds a cell or takes it out.",
        "edit.help.select": "Click a cell to select it, Shift-click for several. What you do is kept at once.",
        "edit.help.add": "Click the white cells that were missed. Drag moves the image. Esc puts the tool down.",
        "edit.help.box": "Drag a box around each white cell that was missed. Esc puts the tool down.",
        "edit.help.split": "Drag a line across the selected cell, where it is to be parted. Esc puts the tool down.",
        "edit.help.repaint": "Paint the cell in the image; the eraser is in the layer controls. Then apply or discard.",
        "edit.why.no_study": "Find the cells first; then they can be corrected here.",
        "edit.why.no_layer": "The layer with the cells was removed. Press Find cells to see them again.",
        "edit.why.held": "The study “{name}” is open for writing elsewhere ({holder}), so it can only be looked at. "
        "Close it there, then press Find cells.",
        "edit.why.read_only": "The study “{name}” cannot be written, so it can only be looked at.",
        "edit.why.painting": "Apply or discard what you painted first.",
        "edit.why.select": "Select cells first: click them in the image.",
        "edit.why.select_one": "Select one cell first: click it in the image.",
        "edit.why.select_two": "Select two or more cells first: Shift-click them in the image.",
        "edit.why.one_field": "The selected cells lie in several fields.",
        "edit.why.no_undo": "There is nothing to take back.",
        "edit.why.no_redo": "Nothing was taken back.",
        # The crops of the selected cells.
        "crops.title": "What the encoder sees",
        "crops.title.tip": "The selected cells as they are cut out.",
        "crops.more": "And {count} more.",
        # Why a button cannot be pressed; also its tooltip then.
        "run.why.no_image": "Open a smear image first: drop a file into the window, "
        "or take File > Open Sample > DinoBloom.",
        "run.why.no_folder": "Choose a study folder first.",
        "run.why.not_a_study": "“{folder}” exists and is not a study. Choose another study folder.",
        "run.why.pixel": "The pixel size must be a number between 0.01 and 5 µm, or empty.",
        "run.why.busy": "“{job}” is under way. Wait for it or cancel it first.",
        "run.why.idle": "Nothing is running.",
        "run.why.no_report": "The report is written at the end of a run.",
        # Why an image cannot be used.
        "image.grey": "“{name}” is grey: cells are told apart by their stain, so a colour image is needed.",
        "image.channels": "“{name}” holds its colours as separate planes. Select it, split it "
        "(Layers > Data > Split Stack) and merge the three (Merge to RGB), then choose the result.",
        "image.dims": "“{name}” has {ndim} dimensions besides colour; a smear has two, a stack of fields three.",
        "image.empty": "“{name}” is empty.",
        "image.dtype": "“{name}” has values of type {dtype}, which is no colour image.",
        # Jobs and their status line.
        "job.run": "Find and name white cells",
        "job.segment": "Find and cut out white cells",
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
        "error.disk_full": "The disk of “{folder}” is full. Free some space and press Run again; "
        "what is finished is kept.",
        "error.permission": "“{folder}” cannot be written. Choose a study folder in a place of your own.",
        "error.memory": "There is not enough memory for this image. Close other images or crop it, then run again.",
        "error.layer_gone": "The image was removed while the run was under way; its cells are in “{folder}”.",
        "error.planes": "The labels have {labels} planes, the image has {images} fields. "
        "Choose labels of the same size.",
        "error.not_in_study": "“{name}” was left out: {problem}",
        "error.no_browser": "No program opened the report. It is here: {path}",
        # Results.
        "result.summary": "White cells found: {cells}, counted: {counted}",
        "result.summary_marrow": "Cells found: {cells}, nucleated cells counted: {counted}",
        "result.none": "No white cell was found. Check the pixel size, and that the image is a stained smear.",
        "result.slide": "Differential of slide “{slide}”",
        "result.class": "Class",
        "result.n": "n",
        "result.percent": "%",
        "result.interval": "95 % interval",
        "result.class.tip": "The colour is that of the outlines in the image.",
        "result.n.tip": "Cells of this class.",
        "result.percent.tip": "Share of the counted cells. Empty for classes that stay out of the count.",
        "result.interval.tip": "Wilson interval: counting error only. Errors of the classifier come on top; "
        "the report gives the corrected figures.",
        "result.footnote": "Intervals: counting error only (Wilson, 95 %).",
        "result.per_100": "{figure} per 100",
        "reason.border": "at the border",
        "reason.duplicate": "duplicate",
        "reason.unreadable": "unreadable",
        "reason.excluded": "excluded",
        "reason.platelet": "platelets",
        "reason.artefact": "artefacts",
        "reason.per 100": "given per 100",
        "result.report": "Open report",
        "result.report.tip": "The full report, in the web browser: fields, galleries, map, differential, settings.",
        "result.open_folder": "Open folder",
        "result.open_folder.tip": "The study folder with all tables.",
        # The cell under a click.
        "cell.none": "Click a cell in the image to see its class.",
        "cell.line": "{cell_id}: {title}",
        "cell.by_hand": "named by hand, {author}",
        "cell.confidence": "confidence {confidence:.0%}",
        "cell.not_counted": "not counted ({reason})",
        "cell.distance": "nearest reference at {distance:.3g}",
        # Layers that the plugin adds.
        "layer.cells": "Cells of {name}",
        "layer.selected": "Selected cells",
        "layer.tool.add": "Add a cell",
        "layer.tool.box": "Add a cell by a box",
        "layer.tool.split": "Split a cell",
        "layer.repaint": "Repaint {cell_id}",
        # Sample data and reader.
        "sample.generated": "Generated smear",
        "sample.fetching": "Fetch the real fields",
        "sample.real": "Real fields (BCCD)",
        "reader.no_fields": "The study “{folder}” has no field that could be read. Run it again on its images.",
        "reader.no_image": "The picture of {count} field(s) of this study was not found; their cells are shown without "
        "it. First: {problem}",
    }
)


def text(key: str, /, **values: object) -> str:
    """Return the text of `key` with its ``{names}`` filled in from `values`.

    Raises
    ------
    KeyError
        If there is no such text, or a name in it has no value.
    """
    template = TEXTS[key]
    return template.format(**values) if values else template


def tip(key: str, /) -> str:
    """Tooltip of the control whose label is `key`."""
    return TEXTS[f"{key}.tip"]


def step_title(step: str, /) -> str:
    """Name of a step of the pipeline for people; a step that is not known keeps its own."""
    return TEXTS.get(f"step.{step}", step)
