"""Checks of arguments."""

from fractions import Fraction

import numpy as np
import pytest

from keras_iterconv.checks import check_between, check_positive_int


@pytest.mark.parametrize("value", [1, 7, 2**31 - 1, np.int8(3), np.uint64(3), np.array(3)])
def test_integers(value):
    checked = check_positive_int("size", value)
    assert checked == value
    assert type(checked) is int


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**31, 1.0, np.float32(2), True, np.True_, "3", None, float("nan"), [3],
     np.array([3]), np.array([3, 4])],
)  # fmt: skip
def test_what_is_no_integer_of_that_range(value):
    with pytest.raises(ValueError, match=r"`size` must be .*Received: size=") as error:
        check_positive_int("size", value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [0.5, np.float16(0.5), np.float32(0.5), Fraction(1, 2)])
def test_numbers(value):
    checked = check_between("share", value, 0, 1)
    assert checked == 0.5
    assert type(checked) is float


@pytest.mark.parametrize(
    "value", [0, 1, -0.1, 1.1, float("nan"), float("inf"), True, np.True_, "0.5", None, 0.5j, [0.5]]
)
def test_what_is_no_number_of_that_range(value):
    with pytest.raises(
        ValueError, match=r"`share` must lie in \(0, 1\)\. Received: share="
    ) as error:
        check_between("share", value, 0, 1)
    assert repr(value) in str(error.value)


def test_a_closed_end():
    assert check_between("share", 1, 0, 1, closed=True) == 1.0
    for value in (0, 1.0000001, True):
        with pytest.raises(ValueError, match=r"`share` must lie in \(0, 1\]\. Received: share="):
            check_between("share", value, 0, 1, closed=True)
