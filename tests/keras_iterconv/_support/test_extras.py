import sys

import pytest

from keras_iterconv._support.extras import MissingExtraError, require_addons


def test_addons_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    with pytest.raises(MissingExtraError, match=r'`pip install "keras-iterconv\[addons\]"`.*3\.11'):
        require_addons()


def test_addons_are_imported_quietly(capfd):
    try:
        addons = require_addons()
    except MissingExtraError as error:
        pytest.skip(str(error))
    assert callable(addons.image.translate)
    assert "Addons" not in "".join(capfd.readouterr())


def test_addons_of_legacy_keras_are_refused(monkeypatch):
    monkeypatch.setattr("keras_iterconv._support.extras.LEGACY_KERAS", True)
    with pytest.raises(MissingExtraError, match="unset this environment variable"):
        require_addons()
