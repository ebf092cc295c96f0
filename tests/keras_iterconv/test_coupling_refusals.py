"""What a coupling refuses, and what it says."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.coupled_nets import (
    LOSS,
    make_data,
    make_model,
    sgd,
    variables_and_gradients,
)


@pytest.mark.parametrize(
    "strength", [-0.1, 1.1, float("nan"), float("inf"), True, "0.5", None, [0.5]], ids=str
)
def test_bad_strengths(strength):
    with pytest.raises(ValueError, match=r"`strength` must lie in \[0, 1\]. Received: strength="):
        ki.GradientCoupling(strength)
    if strength is not None:
        with pytest.raises(ValueError, match=r"`coupling` must be None, a strength.*Received: co"):
            make_model().compile("sgd", "mse", coupling=strength)


@pytest.mark.parametrize("kernel", ["uniforn", None, 1])
def test_bad_kernels(kernel):
    with pytest.raises(ValueError, match="`kernel` must be one of"):
        ki.GradientCoupling(0.5, kernel)


@pytest.mark.parametrize("members", [8, [0, 1], "last", (1, None), range(2)])
def test_members_that_are_no_slice(members):
    with pytest.raises(ValueError, match=r"`members` must be None or a slice.*Received: members="):
        ki.GradientCoupling(0.5, members=members)


@pytest.mark.parametrize("members", [slice(0.5, None), slice("a", None), slice(None, None, 0)])
def test_slices_of_no_block_numbers(members):
    with pytest.raises(ValueError, match="`members` must be None or a slice"):
        ki.GradientCoupling(0.5, members=members)


def test_members_that_name_no_block():
    coupling = ki.GradientCoupling(0.5, members=slice(2, None))
    message = (
        r"`members` must select at least one of the 2 blocks of a group.*slice\(2, None, None\)"
    )
    # The second stage has two blocks.
    with pytest.raises(ValueError, match=message):
        make_model().compile("sgd", "mse", coupling=coupling)
    variables, gradients = variables_and_gradients(2)
    with pytest.raises(ValueError, match=message):
        ki.GradientCoupling(0.5, members=slice(2, None), groups=[variables])(gradients, variables)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "`groups` must be a list of lists"),
        ("ab", "`groups` must be a list of lists.*'ab'"),
        (["ab"], "`groups` must be a list of lists"),
        (3, "`groups` must be a list of lists.*3"),
        ([3], "`groups` must be a list of lists"),
        ([[]], r"must hold at least two variables. Received: \[\]"),
        ([["a"]], r"must hold at least two variables. Received: \['a'\]"),
        ([["a", "b"], ["c", "a"]], "must hold each variable once. Received twice: 'a'"),
        ([["a", "a"]], "must hold each variable once. Received twice: 'a'"),
    ],
)
def test_bad_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        ki.GradientCoupling(0.5, groups=groups)


@pytest.mark.parametrize(
    "member", [None, 3, np.zeros(2), tf.zeros(2)], ids=["None", "3", "array", "tensor"]
)
@pytest.mark.parametrize("first", [True, False])
def test_members_of_groups_that_are_no_variables(member, first):
    variable = keras.Variable(np.zeros(2), name="v")
    group = [member, variable] if first else [variable, member]
    with pytest.raises(ValueError, match=r"^`groups` must hold Keras or TensorFlow variables"):
        ki.GradientCoupling(0.5, groups=[group])


def test_groups_of_unlike_shapes():
    variables = [keras.Variable(np.zeros(n), name=f"v{n}") for n in (2, 3)]
    message = "must have one shape.*v2.*2.*v3.*3"
    with pytest.raises(ValueError, match=message):
        ki.GradientCoupling(0.5, groups=[variables])
    paths = [v.path for v in variables]
    for group in (paths, [variables[0], paths[1]]):
        with pytest.raises(ValueError, match=message):
            ki.GradientCoupling(0.5, groups=[group])([tf.zeros(2), tf.zeros(3)], variables)


def test_a_variable_twice_by_itself_and_by_its_path():
    variables = [keras.Variable(np.zeros(2), name=name) for name in ("a", "b")]
    with pytest.raises(ValueError, match=r"each variable once. Received twice: 'a'"):
        ki.GradientCoupling(0.5, groups=[[variables[0], variables[0]]])
    for groups in ([[variables[0], "a"]], [variables, ["a", "b"]]):
        with pytest.raises(ValueError, match="each variable once"):
            ki.GradientCoupling(0.5, groups=groups)([tf.zeros(2)] * 2, variables)


def test_unknown_and_ambiguous_members_of_groups():
    variables = [keras.Variable(np.zeros(2), name=name) for name in ("a", "b", "b")]
    stranger = keras.Variable(np.zeros(2), name="z")
    for group, count in ((["a", "c"], 0), ([variables[0], stranger], 0), (["a", "b"], 2)):
        with pytest.raises(
            ValueError, match=f"which matches {count} of the trainable variables.*a, b, b"
        ):
            ki.GradientCoupling(0.5, groups=[group])([tf.zeros(2)] * 3, variables)
    model = make_model()
    coupling = ki.GradientCoupling(0.5, groups=[["first/kernel1", "second/kernel9"]])
    with pytest.raises(ValueError, match="`groups` names 'second/kernel9', which matches 0"):
        model.compile("sgd", "mse", coupling=coupling)


def test_nothing_to_couple():
    inputs = keras.Input((4,))
    plain = ki.IterativeModel(inputs, ki.NAISDense(4)(inputs))
    for coupling in (0.5, ki.GradientCoupling(1)):
        with pytest.raises(ValueError, match=r"There is nothing to couple.*`groups`"):
            plain.compile("sgd", "mse", coupling=coupling)


FROZEN = "There is nothing to couple: all stacked variables are frozen, first/kernel1, first/gamma1"


@pytest.mark.parametrize("whole", [False, True])
def test_frozen_stacks_are_named(whole):
    model = make_model()
    if whole:
        model.trainable = False
    else:
        model.get_layer("first").trainable = model.get_layer("second").trainable = False
    with pytest.raises(ValueError, match=FROZEN):
        model.compile("sgd", "mse", coupling=0.5)


@pytest.mark.parametrize("how", ["fit", "train_on_batch"])
@pytest.mark.parametrize("trained", [False, True])
def test_stacks_frozen_after_compile_are_named(how, trained):
    model = make_model()
    x, y = make_data(4)
    model.compile(sgd(), LOSS(from_logits=True), coupling=0.5, run_eagerly=True)
    if trained:
        model.train_on_batch(x, y)
    model.get_layer("first").trainable = False
    model.train_on_batch(x, y)  # There is another stage.
    model.get_layer("second").trainable = False
    with pytest.raises(ValueError, match=rf"^{FROZEN}"):
        getattr(model, how)(x, y)


def test_a_frozen_member_of_a_group_is_said_to_be_frozen():
    coupling = ki.GradientCoupling(0.5, groups=[["first/kernel1", "first/kernel2"]])
    model = make_model()
    model.get_layer("first").trainable = False
    with pytest.raises(ValueError, match=r"^`groups` names 'first/kernel1', which is frozen"):
        model.compile("sgd", "mse", coupling=coupling)


def test_a_refused_coupling_leaves_the_model_as_it_was():
    model = make_model()
    model.compile(sgd(), LOSS(from_logits=True), coupling=0.5)
    kept = model.coupling, model.optimizer
    with pytest.raises(ValueError, match="`coupling`"):
        model.compile("adam", "mse", coupling=2)
    assert (model.coupling, model.optimizer) == kept


def test_lists_of_unlike_lengths():
    variables, gradients = variables_and_gradients(3)
    with pytest.raises(ValueError, match=r"the same length. Received: 2 gradients, 3 variables"):
        ki.GradientCoupling(0.5, groups=[variables])(gradients[:2], variables)
