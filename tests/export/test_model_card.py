"""What a model's card tells its reader to write."""

import json
from pathlib import Path

import pytest

from export import model_card as card

ZOO = Path(__file__).parents[2] / "saved_models"


@pytest.mark.parametrize("named", ["the checkout's", "another"])
def test_a_card_names_its_zoo_where_that_is_not_the_checkouts(named, tmp_path, monkeypatch):
    # A checkout may be imported through a link.
    (tmp_path / "link").symlink_to(ZOO)
    monkeypatch.setattr(card, "CHECKOUT_ZOO", tmp_path / "link")
    zoo = ZOO if named == "the checkout's" else tmp_path / "zoo"
    entry = json.loads((ZOO / "index.json").read_text())["models"]["nais_mnist"]
    text = card.make_card("nais_mnist", entry, tmp_path, zoo)
    arguments = '"nais_mnist"' if zoo == ZOO else f'"nais_mnist", zoo="{zoo}"'
    assert f"model = ki.load_pretrained({arguments})" in text


def test_a_card_names_the_accuracy_by_mirror_images(tmp_path):
    entry = json.loads((ZOO / "index.json").read_text())["models"]["fast_cifar10"]
    text = card.make_card("fast_cifar10", entry, tmp_path, ZOO)
    accuracy, mirrored = (entry["result"][f"test_accuracy{end}"] for end in ("", "_mirrored"))
    assert mirrored > accuracy
    assert (
        f"| test accuracy | {accuracy:.2%} |\n| by the mean of the logits of an image and" in text
    )
    assert f"its mirror image | {mirrored:.2%} |\n" in text
