"""Texts of the window that counts white cells: its form, what it says of an image, and its results."""

from __future__ import annotations

TEXTS = {
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
    "run.encoder.tip": "The network that describes each cell. “starter” comes with the plugin and needs no download.",
    "run.start": "Run",
    "run.start.tip": "Find, embed, classify and count the white cells of this image.",
    "run.cancel": "Cancel",
    "run.cancel.tip": "Stop after the present step. What is finished is kept; Run continues from there.",
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
    "image.pictures": "“{name}” are pictures of single cells: nothing is to be found in them. Drop their folder on the "
    "Study window and tick “Each image is one cell”.",
    "image.empty": "“{name}” is empty.",
    "image.dtype": "“{name}” has values of type {dtype}, which is no colour image.",
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
    "reason.unreviewed": "not reviewed",
    "reason.platelet": "platelets",
    "reason.artefact": "artefacts",
    "reason.left out": "left out by the scheme",
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
    "cell.distance": "reference cells at {distance:#.3g}",
}
