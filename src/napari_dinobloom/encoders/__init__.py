"""Model registry, checkpoints, the vision transformer, embeddings, patch tokens and their PCA."""
