"""Patients: their group from a bag of cells by attention MIL, beside mean pooling, judged by cross-validation."""
