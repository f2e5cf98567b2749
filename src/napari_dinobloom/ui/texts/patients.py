"""Texts of the Patients window."""

from __future__ import annotations

TEXTS = {
    "patients.table": "Patients",
    "patients.table.tip": "The patients of the study. Select one to see which cells its prediction rests on.",
    "patients.patient": "Patient",
    "patients.patient.tip": "As the study has it.",
    "patients.cells": "Cells",
    "patients.cells.tip": "Cells of the patient, without excluded and deleted ones.",
    "patients.group": "Known",
    "patients.group.tip": "Known group of the patient. Double click or F2 to type; it is kept at once.",
    "patients.predicted": "Predicted group",
    "patients.predicted.tip": "The group with the largest probability. It is a prediction, nothing more.",
    "patients.probability": "%",
    "patients.probability.tip": "Probability of the predicted group.",
    "patients.how": "How",
    "patients.how.tip": "Out of fold: predicted by models that never saw this patient. Applied: by a model that "
    "was trained on other patients.",
    "patients.how.out_of_fold": "Out of fold",
    "patients.how.applied": "Applied",
    "patients.load": "Groups from CSV…",
    "patients.load.tip": "Take the known groups of a file with the columns patient and group.",
    "patients.put": "Put into group",
    "patients.put.tip": "Put the selected patients into this group; an empty name puts them into none.",
    "patients.put_name": "Group of the selected patients",
    "patients.put_name.tip": "A group that is there, or a new name.",
    "patients.loaded": "Known groups of {count:patient|patients} of this study are taken from {file}.",
    "patients.loaded_others": "Known groups of {count:patient|patients} of this study are taken from {file}; of "
    "{others} more in it there is no cell here.",
    "patients.preset": "Model",
    "patients.preset.tip": "Gated: gated attention with early stopping, an ensemble over folds; the one to take. "
    "Paper: the model of the DinoBloom paper.",
    "patients.preset.gated": "Gated attention",
    "patients.preset.paper": "As in the paper",
    "patients.folds": "Folds",
    "patients.folds.tip": "Parts that the patients are split into; each is predicted by models trained on the others.",
    "patients.repeats": "Repeats",
    "patients.repeats.tip": "How often the split is made anew. More give steadier figures and take longer.",
    "patients.train": "Train",
    "patients.train.tip": "Train on the patients with a known group, and predict each of them by models that never "
    "saw it. Mean pooling is trained beside it, and a control with groups at random.",
    "patients.apply": "Apply a model…",
    "patients.apply.tip": "Predict the groups of all patients by a model that was trained before, perhaps in "
    "another study.",
    "patients.few": "Few patients",
    "patients.few.ask": "There are {counts}. With fewer than {least} patients in a group the figures say very "
    "little, and other patients may well be predicted wrongly. Train all the same?",
    "patients.few.count": "{n} in “{group}”",
    "patients.few.note": "Fewer than {least} patients in a group: {counts}. The figures say very little.",
    "patients.why.no_study": "Open a study with several patients first.",
    "patients.why.no_cells": "The study has no cells yet. Find them first.",
    "patients.why.no_groups": "Give the patients their known groups first: type them into the table, or read a CSV.",
    "patients.why.groups_unread": "The known groups cannot be read: {problem} Repair or delete groups.csv in the "
    "study folder first.",
    "patients.why.one_group": "All patients are in one group. Two groups are needed.",
    "patients.why.too_few": "The group “{group}” has {n} of the patients here. Each group needs {least} or more: "
    "two to learn from and one to test.",
    "patients.why.no_result": "Train or apply a model first.",
    "patients.why.no_patient": "Select one patient in the table first.",
    "patients.why.no_selection": "Select patients in the table first.",
    "patients.why.no_attention": "This patient has no cell with attention.",
    "patients.scores": "How good the model is",
    "patients.scores.tip": "Over the patients with a known group, each predicted out of fold.",
    "patients.scores_applied": "How good the model is on these patients",
    "patients.scores_applied.tip": "Over the patients with a known group, by a model that was trained before, "
    "perhaps on some of them.",
    "patients.model": "Model",
    "patients.model.tip": "Mean pooling knows only the mean over a patient’s cells; with few patients it often "
    "wins. The control is trained with the groups shuffled.",
    "patients.f1": "Weighted F1",
    "patients.f1.tip": "With its 95 % interval over patients.",
    "patients.balanced": "Balanced acc.",
    "patients.balanced.tip": "Balanced accuracy: mean over the groups of the share predicted right, with its 95 % "
    "interval.",
    "patients.auc": "AUC",
    "patients.auc.tip": "Area under the ROC curve, with its 95 % interval.",
    "patients.attention": "What the prediction rests on",
    "patients.attention.tip": "How much the model looked at each cell of a patient, from 0 to 1 within the "
    "patient. It says where the model looked, not why.",
    "patients.class": "For the group",
    "patients.class.tip": "Each group has its own attention.",
    "patients.count": "Cells",
    "patients.count.tip": "How many cells are selected.",
    "patients.top": "Top cells",
    "patients.top.tip": "Select the cells of this patient that the model looked at most. The gallery shows them alone.",
    "patients.bottom": "Bottom cells",
    "patients.bottom.tip": "Select the cells of this patient that the model looked at least. The gallery shows "
    "them alone.",
    "patients.colour": "Colour by attention",
    "patients.colour.tip": "Colour the cells by their attention on the map, in the image and in the gallery; off "
    "goes back to classes.",
    "patients.one": "{patient}: predicted group “{predicted}”",
    "patients.one.none": "{patient}: no prediction yet",
    "patients.one.help": "Select a patient in the table: its top cells are selected on the map, in the image "
    "and in the gallery.",
    "patients.of_model": "{probability:.0%} by attention, {mean:.0%} by mean pooling",
    "patients.of_model_only": "{probability:.0%}",
    "patients.outdated": "Made with other embeddings or cells than the study has now: train or apply again.",
    "patients.done": "Done. Predictions and attention are in the study.",
    "patients.read_only": "The groups cannot be changed: {why}",
    "job.patients": "Train on patients",
    "job.apply_patients": "Apply a model to patients",
}
