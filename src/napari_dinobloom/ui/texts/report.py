"""Texts of the Report window."""

from __future__ import annotations

TEXTS = {
    "report.per_patient": "A page for each patient",
    "report.per_patient.tip": "Differential, cells, flagged cells, map and a line to sign, of each patient; to be "
    "printed or filed.",
    "report.cohort": "A page over all patients",
    "report.cohort.tip": "Patients side by side.",
    "report.pseudonyms": "Pseudonyms",
    "report.pseudonyms.tip": "Write the pages chosen above, or without them the report, under pseudonyms and into "
    "a folder of their own. The key stays in the study: never pass that on.",
    "report.start": "Write report",
    "report.start.tip": "Do the steps that are missing, and write the report and the chosen pages.",
    "report.files": "Written",
    "report.files.tip": "Reports and tables in the study folder. A double click opens one.",
    "report.none": "Nothing is written yet.",
    "report.column.name": "File",
    "report.column.name.tip": "Below the study folder.",
    "report.column.when": "When",
    "report.column.when.tip": "Month, day and time at which it was written.",
    "report.open": "Open in the browser",
    "report.open.tip": "Open the chosen file, else the report.",
    "report.exports": "Export",
    "report.exports.tip": "For other programs: what is there now, corrections included.",
    "report.tables": "Tables (CSV)",
    "report.tables.tip": "Cells with all measurements and labels, the differential and its summary.",
    "report.outlines": "Outlines (GeoJSON)",
    "report.outlines.tip": "Cells and nuclei of each field with class and colour, for QuPath.",
    "report.labels": "Label images (TIFF)",
    "report.labels.tip": "One image a field: 0, or the number of the cell.",
    "report.export": "Export…",
    "report.export.tip": "Choose a folder, and write what is ticked into a new one in it.",
    "report.exported": "{count:file is|files are} in {folder}.",
    "report.done": "The report is written.",
    "report.why.no_cells": "The study has no cells yet. Find them first.",
    "report.why.nothing": "Tick what is to be exported.",
    "job.report": "Write the report",
    "job.export": "Export",
}
