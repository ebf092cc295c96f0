"""The experiments of the papers, one a module."""
