"""Exact neighbours, the UMAP projection, and duplicates between overlapping fields."""
