"""Training of the encoders: from labelled or unlabelled cell pictures to weights."""
