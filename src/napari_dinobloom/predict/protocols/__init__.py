"""How the DinoBloom paper judged encoders, again and more strictly: data sets, folds, scores and published figures."""
