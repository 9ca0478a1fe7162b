"""Small classifiers that are trained from scratch, and how they load as models."""
