"""Every run that wants a GPU, in the order of its worth; `python -m analyses.gpu.index` lists them."""
