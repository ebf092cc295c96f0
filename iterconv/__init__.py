"""What all commands share, and the script `iterconv`.

A wheel holds the commands `training` and `export` in this package, where their common names are
nobody else's; in a checkout they lie beside it.
"""
