"""Small nets of stages whose indices are known, or can be computed by a slow loop."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki

CLASSES = 4


class Nets:
    """Nets whose logits are the mean of their last state, and data for them."""

    image = (3, 2)

    def images(self, samples=64, channels=CLASSES, seed=0):
        return (np.random.default_rng(seed).normal(size=(samples, *self.image, channels))).astype(
            np.float32
        )

    def chain(self, blocks, skip_from="previous", lipschitz_cap=None, width=CLASSES, seed=0):
        """Return a net of random stages of so many blocks, its statistics as after training."""
        inputs = state = keras.Input((*self.image, width))
        stages = []
        for s, count in enumerate(blocks):
            stage = ki.ResidualStage(
                width, count, skip_from, lipschitz_cap=lipschitz_cap, name=f"stage{s}"
            )
            state = stage(state)
            stages.append(stage)
            state = keras.layers.Conv2D(width, 1, activation="tanh", name=f"to{s + 1}")(state)
        state = keras.layers.GlobalAveragePooling2D()(state)
        model = ki.IterativeModel(inputs, keras.layers.Dense(CLASSES, name="head")(state))
        rng = np.random.default_rng(seed)
        for stage in stages:
            for name in ("gamma1", "gamma2", "variance1", "variance2"):
                getattr(stage, name).assign(rng.uniform(0.5, 1.5, stage.gamma1.shape))
            for name in ("beta1", "beta2", "mean1", "mean2"):
                getattr(stage, name).assign(rng.normal(size=stage.gamma1.shape))
        model.converge_caps()
        return model

    def adding(self, steps, skip_from="previous"):
        """Return a net of one stage whose block t adds `steps[t]`, `[CLASSES]`, to each pixel.

        A convolution of no spatial extent reads a constant: gamma is zero, so that what enters is
        the shift alone. The logits are the last state's mean.
        """
        stage = ki.ResidualStage(CLASSES, len(steps), skip_from, name="stage")
        inputs = keras.Input((*self.image, CLASSES))
        model = ki.IterativeModel(inputs, keras.layers.GlobalAveragePooling2D()(stage(inputs)))
        centre = np.zeros(stage.kernel2.shape, np.float32)
        for t, step in enumerate(steps):
            # After ReLU of the shift there is a one in each channel.
            centre[t, 1, 1] = np.diag(step)
        for name, value in (("gamma1", 0), ("gamma2", 0), ("beta2", 1), ("kernel2", centre)):
            variable = getattr(stage, name)
            variable.assign(np.broadcast_to(value, variable.shape))
        return model

    def run(self, model, x, name=None, schedule=None):
        """Return the logits with one stage on a schedule, layer by layer."""
        state = x
        for layer in model.layers[1:]:
            if layer.name == name:
                state = layer(state, training=False, schedule=schedule)
            elif isinstance(layer, ki.ResidualStage):
                state = layer(state, training=False)
            else:
                state = layer(state)
        return np.asarray(state)


@pytest.fixture
def nets():
    return Nets()
