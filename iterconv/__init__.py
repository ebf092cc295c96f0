"""The script `iterconv`, and the code that all commands share.

In a wheel, the commands `training` and `export` are in this package, since their names are too
common for top-level packages; in a checkout they are beside it.
"""
