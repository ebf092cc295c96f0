"""The depth of images in a net of adaptive depth: what it depends on, each beside chance."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from iterconv.command_errors import as_user_error

from ..experiment import Case, Claim, Experiment, Outcome, Results, Verdict
from ..image_characteristics import background_texture, blueness, object_size
from ..permutations import Relation, class_effect, rank_correlation
from ..verdicts import combine

if TYPE_CHECKING:
    from keras_iterconv.depth.figure_by_class import Depths

# A net of the zoo, of 54 blocks.
PUBLISHED = ("nais_adaptive_cifar10",)
THRESHOLD = 1e-4
# The classes of Fig. 5.
CLASSES = ("airplane", "bird", "frog", "ship")
IMAGES = 10_000
# The smallest correlation that counts as a relation. Its square is a share of variance.
WEAK = 0.1
SIGNIFICANT = 0.05
CHARACTERISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blueness": blueness,
    "texture": background_texture,
    "size": object_size,
}


def conditions(scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of the net: of the zoo, or to be trained with the paper's settings."""
    if scale == "paper":
        preset = "nais-adaptive-cifar10"
        return {"nais_adaptive": {"preset": preset, "model": "nais_adaptive", "dataset": "cifar10"}}
    # Imported late: it imports the data sets, and the list of experiments needs none.
    from ..published_nets import published

    return published(PUBLISHED, dataset="cifar10")


def compute(case: Case, folder: Path, console: Console) -> dict[str, Any]:
    """Return the depth of the test images of a net, and its relations to what they show.

    Returns:
        `dataset`; `accuracy`; `updates`, mean; `quartiles`, fewest, quartiles and most updates;
        `limit`; `relations`, a `Relation` or None each, as `describe` returns them; and `depths`,
        the updates of the images of each class of `CLASSES` in the order of the test part.
    """
    import keras_iterconv as ki
    from keras_iterconv.depth.figure_by_class import measure_depths

    if "published" in case.settings:
        from ..published_nets import load_published

        name = case.settings["published"]
        console.print(f"measuring the depths of {name}")
        model, data = load_published(name)
    else:
        from ..depth_measures import load_run
        from ..trainings import trained

        name = case.condition
        model, data = load_run(trained(case, folder, console))
    ki.set_depth(model, threshold=THRESHOLD)
    depths = as_user_error(measure_depths, model, name, data, IMAGES)
    return {"dataset": data.name, **describe(depths, CLASSES)}


def describe(depths: "Depths", classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the measures of `compute` for measured depths.

    The `relations` are `class`, the effect of the class; `confidence` and `right`, rank
    correlations within all classes; and for each characteristic of images those within each class
    of `classes`.
    """
    depth, labels = depths.depth, depths.labels
    relations: dict[str, Any] = {
        "class": _as_dict(class_effect(depth, labels)),
        "confidence": _as_dict(rank_correlation(depth, depths.confidence, labels)),
        "right": _as_dict(rank_correlation(depth, depths.right, labels)),
    }
    members = {name: labels == depths.classes.index(name) for name in classes}
    for characteristic, measured in CHARACTERISTICS.items():
        relations[characteristic] = {
            name: _as_dict(
                rank_correlation(depth[m], measured(depths.pictures[m]), labels[m])
                if depths.pictures.shape[-1] == 3
                else None
            )
            for name, m in members.items()
        }
    return {
        "accuracy": float(depths.right.mean()),
        "updates": float(depth.mean()),
        "quartiles": [float(q) for q in np.quantile(depth, [0, 0.25, 0.5, 0.75, 1])],
        "limit": depths.limit,
        "relations": relations,
        "depths": {name: depth[m].tolist() for name, m in members.items()},
    }


def _as_dict(relation: Relation | None) -> dict[str, float] | None:
    return None if relation is None else relation._asdict()


def _each_net(judge: Callable[[Mapping[str, Any]], Verdict], results: Results) -> Verdict:
    return combine([judge(row.measures) for row in results.rows])


def _judge_spread(measures: Mapping[str, Any]) -> Verdict:
    fewest, low, _, high, most = measures["quartiles"]
    text = (
        f"{measures['updates']:.1f} updates on average, {fewest:.0f} to {most:.0f}, quartiles "
        f"{low:.0f} and {high:.0f}, of at most {measures['limit']}"
    )
    return Verdict(Outcome.AGREES if high - low >= 1 else Outcome.DIFFERS, text)


def _judge_class(measures: Mapping[str, Any]) -> Verdict:
    relation = measures["relations"]["class"]
    if relation is None:
        return Verdict(Outcome.UNDECIDABLE, "all images have one depth")
    related = relation["p"] < SIGNIFICANT and relation["value"] >= WEAK**2
    text = f"{relation['value']:.1%} of the variance, by chance at most {relation['high']:.1%}"
    return Verdict(
        Outcome.AGREES if related else Outcome.DIFFERS, f"{text}, p = {relation['p']:.4f}"
    )


def _judge_relation(measures: Mapping[str, Any], path: tuple[str, ...], expected: int) -> Verdict:
    relation: Any = measures["relations"]
    for key in path:
        relation = relation[key]
    name = " of ".join(path)
    if relation is None:
        return Verdict(Outcome.UNDECIDABLE, f"{name}: a measure is the same for all images")
    text = (
        f"{name}: rank correlation {relation['value']:+.3f}, by chance {relation['low']:+.3f} to "
        f"{relation['high']:+.3f}, p = {relation['p']:.4f}"
    )
    signed = expected * relation["value"]
    if signed >= WEAK and relation["p"] < SIGNIFICANT:
        return Verdict(Outcome.AGREES, text)
    if signed + (relation["high"] - relation["low"]) / 2 < WEAK:
        return Verdict(Outcome.DIFFERS, text)
    return Verdict(Outcome.UNDECIDABLE, text)


def _judge_relations(
    results: Results, paths: tuple[tuple[str, ...], ...], expected: int
) -> Verdict:
    return combine(
        [_judge_relation(row.measures, path, expected) for row in results.rows for path in paths]
    )


_FIG5 = "NAIS-Net, 5.3 and Fig. 5"
_RULE = (
    "it agrees if the correlation is at least 0.1 and p, by 2,000 permutations within the class, "
    "below 0.05; it differs if the correlation with half the range of chance added is below 0.1."
)


def _related(
    text: str, source: str, what: str, paths: tuple[tuple[str, ...], ...], expected: int
) -> Claim:
    sign = "positive" if expected > 0 else "negative"
    return Claim(
        text,
        source,
        f"The rank correlation of updates and {what} is {sign}: {_RULE}",
        partial(_judge_relations, paths=paths, expected=expected),
    )


# The relations of the claims, in the order of the figure, each with its expected sign.
CORRELATIONS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("texture", "frog"), -1),
    (("blueness", "ship"), -1),
    (("blueness", "airplane"), -1),
    (("size", "bird"), 1),
    (("right",), -1),
    (("confidence",), -1),
)
CLAIMS = (
    Claim(
        "The depth depends on the image.",
        _FIG5,
        "The quartiles of the updates of an image lie at least one update apart.",
        partial(_each_net, _judge_spread),
    ),
    Claim(
        "The depth depends on the class: similar images need similar depth.",
        _FIG5,
        "At least 1% of the variance of the ranks lies between classes, and p, by 2,000 "
        "permutations of the labels, is below 0.05; otherwise it differs.",
        partial(_each_net, _judge_class),
    ),
    _related(
        "Frogs on a textured background take fewer updates than those on a plain one.",
        _FIG5,
        "the mean difference of neighbouring pixels in the frame of 4 pixels",
        (("texture", "frog"),),
        -1,
    ),
    _related(
        "Blue ships and airplanes take fewer updates than grey or white ones.",
        _FIG5,
        "the blue of an image less the mean of red and green, in both classes,",
        (("blueness", "ship"), ("blueness", "airplane")),
        -1,
    ),
    _related(
        "Large birds take more updates.",
        _FIG5,
        "the share of pixels that differ from the frame in colour (the size in the image; the "
        "paper means that of the species)",
        (("size", "bird"),),
        1,
    ),
    _related(
        "Images that are classified wrong take more updates.",
        "ours",
        "correctness, within classes,",
        (("right",),),
        -1,
    ),
    _related(
        "The less confident the prediction, the more updates.",
        "ours",
        "the probability of the predicted class, within classes,",
        (("confidence",),),
        -1,
    ),
)


def draw(path: Path, results: Results) -> None:
    """Draw the relations beside chance, and images of four classes by depth."""
    from .depth_of_images_figure import draw_depth_of_images

    draw_depth_of_images(path, results.rows[0].measures, [path for path, _ in CORRELATIONS])


DEPTH_OF_IMAGES = Experiment(
    name="depth",
    title="The depth of images: class, correctness, confidence, colour and size",
    source="NAIS-Net, 5.3 and Fig. 5",
    conditions=conditions,
    seeds={"cpu": 1, "paper": 5},
    compute=compute,
    claims=CLAIMS,
    draw=draw,
    reduced="A net of the zoo that was trained for 16 epochs, most of them with one update of a "
    "block, in place of 450 epochs.",
)
