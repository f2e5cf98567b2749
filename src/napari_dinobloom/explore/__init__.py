"""Neighbours, maps of cells and placing on them, re-standardisation, gates, and duplicates between fields."""
