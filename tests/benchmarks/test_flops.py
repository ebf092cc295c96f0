"""Arithmetic, counted by hand."""

import keras_iterconv as ki  # isort: skip  # settles TensorFlow's environment before it is loaded

import pytest

from benchmarks.flops import forward_flops, training_flops


def nais(**settings):
    return ki.create_model(
        "nais10", (8, 6, 3), 4, filters=(4, 5), blocks=2, max_unroll=7, **settings
    )


# Two operations a multiply-add: pixels, taps, channels in, channels out.
TRANSITIONS = 2 * (48 * 9 * 3 * 4 + 12 * 9 * 4 * 5)
CHAIN = 2 * (48 * 9 * 4 * 4 + 12 * 9 * 5 * 5)  # one convolution in one block of each stage


def test_a_chain_makes_its_updates_and_one_injection():
    assert forward_flops(nais()) == TRANSITIONS + 2 * CHAIN * (7 + 1)


def test_untied_each_update_has_an_injection():
    assert forward_flops(nais(tied=False)) == TRANSITIONS + 2 * CHAIN * (7 + 7)


@pytest.mark.parametrize("gradient", ["unroll", "recompute"])
def test_an_exact_step_is_three_forward_passes(gradient):
    model = nais(gradient=gradient)
    assert training_flops(model) == 3 * forward_flops(model)


def test_a_frozen_step_has_one_gradient_in_the_kernel():
    # Forward 7; through the state 7; in the kernel 1. Three for the injection.
    assert training_flops(nais(gradient="frozen")) == 3 * TRANSITIONS + 2 * CHAIN * (15 + 3)


def test_a_residual_block_makes_two():
    model = ki.create_model("resnet_w8", (8, 8, 3), 4, blocks=3)
    stages = (64 * 8**2, 16 * 16**2, 4 * 32**2)
    transitions = (64 * 3 * 8, 16 * 8 * 16, 4 * 16 * 32)
    assert forward_flops(model) == 2 * 9 * (sum(transitions) + 3 * 2 * sum(stages))
