"""Vision towers of transformers: which there are, how their folders are read, and the adapter they share."""
