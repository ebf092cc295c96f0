"""The dry run: what is built and counted, how hours add up, and that nothing is written."""

import io

import pytest
from rich.console import Console

from keras_iterconv import create_model
from training.reproduce import __main__ as reproduce
from training.reproduce import catalogue_of_experiments as catalogue
from training.reproduce import dry_run
from training.reproduce.dry_run import NetCost, estimate, images_per_epoch, measure_net, phases
from training.reproduce.experiment import SCALES, Experiment
from training.settings import make_settings

NET = {"model": "resnet_w8", "dataset": "mnist", "width": 2, "blocks": 1, "epochs": 2}
CONDITIONS = {
    "plain": {**NET, "limit_train": 3600},
    "longer": {**NET, "limit_train": 3600, "epochs": 5, "learning_rate": 0.1},
    "coupled": {**NET, "coupling": 0.5},
    "scheduled": {
        "preset": "nais-cifar10",
        "epochs": 6,
        "unroll_schedule": "0:1,4:10",
    },
}


def make_experiment():
    return Experiment(
        name="nets",
        title="Nets",
        source="nobody",
        conditions=lambda scale: CONDITIONS,
        seeds={"cpu": 1, "paper": 3},
        compute=None,
        claims=(),
        draw=None,
        reduced="",
        single=lambda scale: {"zoo": {"published": "nais_mnist"}},
    )


@pytest.fixture
def measured(monkeypatch):
    """Replace the measurement: 10 images a second, or 1 for a net of ten updates."""
    asked = []

    def measure(settings, max_unroll=None):
        asked.append((settings.model, settings.coupling, max_unroll))
        return NetCost(1234, 5e9, 1.0 if max_unroll == 10 else 10.0)

    monkeypatch.setattr(dry_run, "measure_net", measure)
    return asked


def test_hours_add_up_and_equal_nets_are_measured_once(measured):
    text = io.StringIO()
    hours = estimate(make_experiment(), "paper", Console(file=text, width=150))
    assert measured == [
        ("resnet_w8", None, None),
        ("resnet_w8", 0.5, None),
        ("nais10", None, 1),
        ("nais10", None, 10),
    ]
    # The preset trains on all 50,000 images, the others leave a tenth out.
    seconds = 3 * (
        2 * 3600 / 10 + 5 * 3600 / 10 + 2 * 54_000 / 10 + (4 * 50_000 / 10 + 2 * 50_000 / 1)
    )
    assert hours == pytest.approx(seconds / 3600)
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in text.getvalue().splitlines()
        if line.startswith("│")
    ]
    assert cells[0] == ["plain", "1,234", "5", "10", "3", "0.6"]
    assert len(cells) == 4
    assert "zoo: no training of training.fit, but published nais_mnist" in text.getvalue()
    assert "about 111.1 hours" in text.getvalue()


@pytest.mark.parametrize(
    ("given", "images"),
    [
        ({"dataset": "mnist"}, 54_000),
        ({"dataset": "mnist", "validation_share": 0.0}, 60_000),
        ({"dataset": "cifar100"}, 45_000),
        # It has a validation part of its own.
        ({"dataset": "digitclutter3"}, 100_000),
        ({"dataset": "cifar10", "limit_train": 500}, 500),
    ],
)
def test_images_per_epoch(given, images):
    assert images_per_epoch(make_settings(model="resnet_w8", **given)) == images


def test_phases_cover_all_epochs():
    assert phases(make_settings(**CONDITIONS["scheduled"])) == [(4, 1), (2, 10)]
    assert phases(make_settings(**CONDITIONS["longer"])) == [(5, None)]


def test_a_net_is_built_in_full_and_its_operations_are_those_of_its_layers():
    settings = make_settings(**NET, batch_size=8)
    cost = measure_net(settings)
    model = create_model("resnet_w8", (28, 28, 1), 10, width=2, blocks=1)
    assert cost.parameters == model.count_params()
    # 2, 4 and 8 channels on 28, 14 and 7 pixels: before each stage a transition, then a block.
    stem, pairs = 9 * 2 * 28**2, [9 * (4**s) * 4 * (28 >> s) ** 2 for s in range(3)]
    transitions = [9 * 2 * 4 * 14**2, 9 * 4 * 8 * 7**2]
    dense = 8 * 10
    whole = stem + 2 * sum(pairs) + sum(transitions) + dense
    assert cost.operations == 3 * 2 * whole
    assert cost.images_per_second > 0


@pytest.mark.parametrize("dataset", ["digits", "digitclutter2"])
def test_an_adaptive_net_counts_at_its_largest_depth(dataset, monkeypatch):
    monkeypatch.setattr(dry_run, "_step_seconds", lambda model, images, labels: 1.0)
    given = {"dataset": dataset, "blocks": 1, "batch_size": 4, "gradient": "unroll"}
    adaptive = measure_net(make_settings(model="nais_adaptive", threshold=1e9, **given))
    fixed = measure_net(make_settings(model="nais10", **given))
    assert adaptive.operations == fixed.operations
    shallow = measure_net(make_settings(model="nais10", **given), max_unroll=1)
    assert 3 * shallow.operations < fixed.operations


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", catalogue.NAMES)
def test_every_training_of_the_experiments_can_be_estimated(name, scale, measured):
    experiment = catalogue.find_experiment(name)
    hours = estimate(experiment, scale, Console(file=io.StringIO(), width=150))
    assert (hours > 0) == bool(measured)


def test_the_command_writes_nothing(measured, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalogue, "find_experiment", lambda name: make_experiment())
    monkeypatch.setattr(
        "sys.argv", ["reproduce", "run", "nets", "--scale", "paper", "--dry-run", "--seeds", "1"]
    )
    with pytest.raises(SystemExit) as stop:
        reproduce.main()
    captured = capsys.readouterr()
    assert (stop.value.code, captured.err) == (0, "")
    assert "All trainings: about 37.0 hours" in captured.out
    assert list(tmp_path.iterdir()) == []
