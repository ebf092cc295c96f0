"""The commands that reproduce experiments of the papers: `python -m training.reproduce --help`."""
