"""Small nets and a command line for the tests of training."""

import pytest

from keras_iterconv.models import registry
from training import fit


@pytest.fixture
def small_nets(monkeypatch):
    """Cut the chains to few blocks and updates: tracing them is slow."""
    chain = {"blocks": 1, "filters": (4,)}
    for name, small in (
        ("nais10", chain),
        ("nais_adaptive", chain),
        ("nais_fast", chain),
        ("resnet54", chain),
        ("resnet_sh_bn", {"max_unroll": 3}),
    ):
        entry = registry.ARCHITECTURES[name]
        settings = {**entry.settings, **small}
        monkeypatch.setitem(registry.ARCHITECTURES, name, entry._replace(settings=settings))


@pytest.fixture
def fit_command(monkeypatch, capsys):
    """Return a function that runs `python -m training.fit` in this process.

    It returns the exit code, what went to the screen, and what went to the error stream.
    """

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["fit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            fit.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run
