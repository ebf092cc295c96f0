"""The toy inverse problem: the algorithm's rate, the hand-built net, nets and disturbances."""

import keras
import numpy as np
import pytest

from training.reproduce import inverse_problem as toy

T = 3


@pytest.fixture
def problem():
    """Return alpha of both signs, epsilon that fits, and observations."""
    rng = np.random.default_rng(4)
    alpha = rng.uniform(0.5, 2, 5) * np.array([1, -1, 1, -1, 1])
    epsilon = rng.uniform(0.1, 1.9, 5) / np.abs(alpha)
    return alpha, epsilon, rng.uniform(-1, 1, (20, 5))


@pytest.fixture(scope="module")
def trained():
    """Return a shortly trained net of each kind."""
    return {kind: toy.train_net(kind, 5, training_steps=120, blocks=T) for kind in toy.KINDS}


def by_hand(net, kind, x, schedule):
    """Run the blocks of a schedule as a plain NumPy loop over the weights, in float64."""
    weights = [[np.asarray(w, float) for w in block.get_weights()] for block in net.blocks]
    W, b = net.encoder.get_weights()
    state = np.asarray(x, float) @ W + b
    for number in schedule:
        W1, b1, W2, b2 = weights[number]
        change = np.maximum(state @ W1 + b1, 0) @ W2 + b2
        state = change if kind == "feedforward" else state + change
    W, b = net.decoder.get_weights()
    return state @ W + b


def test_the_error_shrinks_by_the_factor_of_the_closed_form(problem):
    alpha, epsilon, z = problem
    path = toy.error_corrective(toy.forward_model(z, alpha), 6, alpha, epsilon)
    first = alpha * z - z
    for t in range(7):
        np.testing.assert_allclose(
            path[t] - z, (1 - np.abs(alpha) * epsilon) ** t * first, atol=1e-12
        )


def test_the_default_is_the_figure_s_problem():
    z = np.array([[0.4, -0.6]])
    path = toy.error_corrective([[0.6, -0.45]], 40)
    np.testing.assert_array_equal(path[0], [[0.6, -0.45]])
    np.testing.assert_allclose(path[-1], z, atol=1e-9)
    np.testing.assert_allclose(path[1] - z, (path[0] - z) * [0.55, 0.4])


@pytest.mark.parametrize(
    ("product", "converges"), [(0.01, True), (1.99, True), (2.0, False), (2.1, False)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_condition_is_where_the_updates_cease_to_converge(product, converges, sign):
    alpha, epsilon = (sign * 0.5,), (2 * product,)
    z, x = np.array([[1.0]]), np.array([[sign * 0.5]])
    estimate = x
    for _ in range(3000):
        estimate = toy.correct(estimate, x, alpha, epsilon)
    if converges:
        np.testing.assert_allclose(estimate, z, atol=1e-6)
        np.testing.assert_allclose(toy.error_corrective(x, 3000, alpha, epsilon)[-1], estimate)
        return
    assert abs(estimate - z) > 0.99 * abs(x - z)
    with pytest.raises(ValueError, match="0 < "):
        toy.error_corrective(x, 1, alpha, epsilon)
    with pytest.raises(ValueError, match="0 < "):
        toy.hand_built_net(1, alpha, epsilon)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
def test_the_hand_built_net_is_the_algorithm(problem, dtype, tolerance):
    alpha, epsilon, x = problem
    x = x.astype(dtype)
    net = toy.hand_built_net(7, alpha, epsilon, dtype)
    expected = toy.error_corrective(x, 7, alpha, epsilon)
    readouts = toy.read_out(net, x, range(7))
    assert readouts.dtype == dtype
    np.testing.assert_allclose(readouts, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(net.model(x), expected[-1], rtol=tolerance, atol=tolerance)


def test_the_hand_built_net_is_a_recurrent_resnet_that_keeps_its_input(problem):
    alpha, epsilon, x = problem
    net = toy.hand_built_net(4, alpha, epsilon, "float64")
    assert len(net.blocks) == 4
    assert len(set(map(id, net.blocks))) == 1
    layers = [type(layer).__name__ for layer in net.blocks[0].layers]
    assert layers == ["InputLayer", "Dense", "ReLU", "Dense", "Add"]
    state = net.encoder(x)
    np.testing.assert_array_equal(state, np.hstack([x, x]))
    for block in net.blocks:
        state = block(state)
    np.testing.assert_array_equal(state[:, :5], x)


@pytest.mark.parametrize("kind", toy.KINDS)
def test_disturbed_readouts_are_a_plain_loop_over_the_weights(trained, kind):
    net = trained[kind]
    z = toy.sample_latents(6, 1, 9)
    x = toy.forward_model(z)
    readouts = toy.disturb(net, x, extra_steps=4)
    assert readouts.early.shape == (T + 1, 6, 2)
    assert readouts.left_out.shape == (T, T, 6, 2)
    assert readouts.repeated.shape == (5, 6, 2)
    close = {"rtol": 1e-4, "atol": 1e-5}
    for t in range(T + 1):
        np.testing.assert_allclose(readouts.early[t], by_hand(net, kind, x, range(t)), **close)
    for k in range(T):
        rest = [number for number in range(T) if number != k]
        for t in range(T):
            expected = by_hand(net, kind, x, rest[:t])
            np.testing.assert_allclose(readouts.left_out[k, t], expected, **close)
    for k in range(5):
        expected = by_hand(net, kind, x, [*range(T), *[T - 1] * k])
        np.testing.assert_allclose(readouts.repeated[k], expected, **close)
    np.testing.assert_allclose(net.model(x), readouts.early[-1], **close)
    # Short as it is, the training must have learned something.
    assert toy.mean_error(readouts.early[-1], z) < 0.25


def test_only_the_recurrent_net_shares_its_weights(trained):
    distinct = {kind: len(set(map(id, net.blocks))) for kind, net in trained.items()}
    assert distinct == {"feedforward": T, "resnet": T, "recurrent": 1}


def test_a_seed_repeats_a_training_exactly(trained):
    keras.utils.set_random_seed(77)
    again = toy.train_net("resnet", 5, training_steps=120, blocks=T).model.get_weights()
    for one, other in zip(trained["resnet"].model.get_weights(), again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_seed_draws_weights_and_examples():
    one, other = (toy.make_net("resnet", seed, blocks=1).model.get_weights() for seed in (0, 1))
    assert not np.allclose(one[0], other[0])
    draws = [toy.sample_latents(500, *which) for which in ((0, 1), (1, 1), (0, 2))]
    for k, draw in enumerate(draws):
        assert draw.dtype == np.float32
        assert 0.95 < np.abs(draw).max() <= 1
        assert not any(np.isin(draw, later).any() for later in draws[k + 1 :])


def test_the_test_set_is_apart_from_the_weights_and_the_training(monkeypatch):
    drawn = []
    sample = toy.sample_latents
    monkeypatch.setattr(toy, "sample_latents", lambda *given: drawn.append(given) or sample(*given))
    toy.train_net("recurrent", 0, training_steps=2, blocks=1)
    toy.measure_net(toy.make_net("recurrent", 0, blocks=1))
    training, test = drawn
    assert training[0] == 2 * toy.BATCH_SIZE
    assert not np.isin(sample(*training), sample(*test)).any()


def test_at_one_seed_the_kinds_start_from_the_same_weights():
    nets = {kind: toy.make_net(kind, 3, blocks=2).model.get_weights() for kind in toy.KINDS}
    for one, other in zip(nets["feedforward"], nets["resnet"], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", toy.KINDS)
def test_the_update_scale_is_for_the_second_layer_of_residual_blocks(kind):
    whole, small = (
        toy.make_net(kind, 3, blocks=2, update_scale=scale).model.get_weights()
        for scale in (1.0, 0.25)
    )
    changed = 0
    for one, other in zip(whole, small, strict=True):
        if one.shape == (toy.HIDDEN, toy.WIDTH) and kind != "feedforward":
            np.testing.assert_allclose(other, 0.25 * one, rtol=1e-5)
            changed += 1
        else:
            np.testing.assert_array_equal(one, other)
    assert changed == {"feedforward": 0, "resnet": 2, "recurrent": 1}[kind]


@pytest.mark.parametrize("kind", toy.KINDS)
def test_a_net_is_measured_on_the_test_set(kind):
    net = toy.make_net(kind, 3, blocks=2)
    z = toy.sample_latents(toy.TEST_SAMPLES, 0, toy.TEST_STREAM)
    x = z * [1.5, 0.75]
    assert toy.chance_error() == pytest.approx(np.sqrt((z**2).sum(axis=1)).mean())
    errors = toy.measure_net(net)
    for measured, schedule in (
        (errors.early[1], [0]),
        (errors.left_out[0, 1], [1]),
        (errors.left_out[1, 1], [0]),
        (errors.repeated[2], [0, 1, 1, 1]),
    ):
        far = np.sqrt(((by_hand(net, kind, x, schedule) - z) ** 2).sum(axis=1)).mean()
        assert measured == pytest.approx(far, rel=1e-4)


def test_the_hand_built_net_is_measured_as_the_algorithm():
    z = toy.sample_latents(toy.TEST_SAMPLES, 0, toy.TEST_STREAM)
    algorithm = toy.error_corrective(z * [1.5, 0.75], toy.BLOCKS + toy.EXTRA_STEPS)
    expected = np.sqrt(((algorithm - z) ** 2).sum(axis=2)).mean(axis=1)
    errors = toy.measure_net(toy.hand_built_net())
    np.testing.assert_allclose(errors.early, expected[: toy.BLOCKS + 1], atol=1e-6)
    np.testing.assert_allclose(errors.repeated, expected[toy.BLOCKS :], atol=1e-6)
    np.testing.assert_allclose(errors.left_out[:, -1], expected[toy.BLOCKS - 1], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: toy.error_corrective([[1.0, 1.0]], 0), "`steps`"),
        (lambda: toy.error_corrective([1.0, 1.0]), r"shape \[N, 2\]"),
        (lambda: toy.error_corrective([[1.0] * 3]), r"x.shape=\(1, 3\)"),
        (lambda: toy.error_corrective([[1.0]], 1, (1.0,), (0.1, 0.2)), "of equal length"),
        (lambda: toy.error_corrective([[1.0]], 1, (0.0,), (0.1,)), "0 < "),
        (lambda: toy.error_corrective([[1.0]], 1, (-1.0,), (-0.1,)), "0 < "),
        (lambda: toy.error_corrective([[1.0]], 1, (float("nan"),), (0.1,)), "0 < "),
        (lambda: toy.hand_built_net(0), "`blocks`"),
        (lambda: toy.make_net("resnets"), "Did you mean 'resnet'"),
        (lambda: toy.make_net("resnet", blocks=1.5), "`blocks`"),
        (lambda: toy.make_net("resnet", update_scale=0), "`update_scale`"),
        (lambda: toy.train_net("resnet", training_steps=0), "`training_steps`"),
        (lambda: toy.disturb(toy.hand_built_net(), [[1.0, 1.0]], 0), "`extra_steps`"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(ValueError, match=said) as refusal:
        call()
    assert "Received" in str(refusal.value)
