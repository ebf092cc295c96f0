"""The installed commands, under a name that no other package has.

In a wheel `training` lies in this package. In a checkout it lies beside it, where
`python -m training.fit` finds it, so the checkout's root is searched for it too.
"""

from pathlib import Path

_root = Path(__file__).parent.parent
if (_root / "pyproject.toml").is_file():
    __path__.append(str(_root))
