"""The commands `python -m training.fit` and `python -m training.reproduce`."""
