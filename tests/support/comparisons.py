"""Comparisons that several test files make."""

import numpy as np


def assert_near(found, expected, tolerance):
    """Compare gradients, each relative to its largest number."""
    for ours, theirs in zip(found, expected, strict=True):
        largest = max(np.abs(theirs).max(), 1e-2)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


def assert_same_weights(model, other, atol):
    """Compare the weights of two models, up to an absolute difference."""
    for left, right in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=atol)


def assert_same_predictions(found, expected):
    """Compare what an exported file gives with what `with_depth` gives: equal counts."""
    logits = np.asarray(expected["logits"])
    # Logits of an image are sums that cancel: rounding is relative to the largest.
    largest = np.abs(logits).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found["logits"] / largest, logits / largest, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["probabilities"], softmax(logits), atol=1e-4)
    for name in ("depth", "status"):
        np.testing.assert_array_equal(found[name], expected[name])


def softmax(logits):
    """Return probabilities in float64."""
    odds = np.exp(np.float64(logits) - np.max(logits, axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def one_sentence(error) -> str:
    """Return the message of a caught error, which must be one sentence on one line."""
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert ". " not in text
    return text
