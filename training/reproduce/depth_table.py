"""Accuracy and confidence by depth, as a table."""

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_iterconv.depth.figure_by_class import DEPTH_GROUPS, Depths, Group, group_by_depth


def print_depths(console: Console, depths: Depths) -> None:
    """Print a table of accuracy and confidence by depth."""
    table = Table(title=f"{depths.name}, {len(depths.depth):,} test images", title_justify="left")
    for column in ("updates", "images", "accuracy", "confidence, median"):
        table.add_column(column, justify="right")
    everything = Group(int(depths.depth.min()), int(depths.depth.max()), depths.depth >= 0)
    for group in (*group_by_depth(depths.depth, DEPTH_GROUPS), everything):
        table.add_row(
            group.label,
            f"{group.members.sum():,}",
            f"{depths.right[group.members].mean():.2%}",
            f"{np.median(depths.confidence[group.members]):.2%}",
            end_section=group.most == depths.depth.max(),
        )
    console.print(table)
    mean = depths.depth.mean()
    console.print(f"{mean:.1f} updates on average, at most {depths.limit}")
