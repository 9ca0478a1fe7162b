"""Training classifiers from scratch on small images: pixels in memory, augmentation on the device."""
