"""The papers' experiments, each a command: `python -m training.reproduce --help`."""
