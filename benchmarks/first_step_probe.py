"""`training.fit`, which ends after its first step and writes when that was.

Run it by `python -m benchmarks.first_step_probe FILE OPTIONS`, as `benchmarks.first_step` does.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from iterconv.command_start import load_quietly


def with_end(fit: Callable, file: Path) -> Callable:
    """Return Keras's `fit` as one that ends this process after its first step.

    Args:
        fit: The method of a model.
        file: Gets the moment of the monotonic clock, which all processes share.
    """
    import keras

    class FirstStepEnd(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            # Read first, so that the step is done.
            keras.tree.map_structure(float, logs or {})
            file.write_text(repr(time.monotonic()))
            os._exit(0)

    def ending(self: Any, *data: Any, callbacks: Sequence = (), **settings: Any) -> Any:
        return fit(self, *data, callbacks=[FirstStepEnd(), *callbacks], **settings)

    return ending


def main() -> None:
    """Run `training.fit` to its first step."""
    load_quietly()
    import keras_iterconv as ki
    from training.fit import main

    model: Any = ki.IterativeModel
    model.fit = with_end(model.fit, Path(sys.argv.pop(1)))
    main()


if __name__ == "__main__":
    main()
