"""What wants a GPU, as one queue: `python -m analyses.gpu`. `jobs` is the table of jobs; README.md lists it."""
