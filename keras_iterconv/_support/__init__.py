"""Internal functions that several parts of the package share."""
