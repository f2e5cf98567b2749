"""Classes of cells and how far to trust them: k-NN with a reference atlas, linear probe, evaluation."""
