"""Canaries: tests that must fail, of everything by which the lessons' tests tell right from wrong.

They run before and after the tests of an exercise. One that passes, or says nothing, means that an answer has reached
into what judges it.
"""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close, check_grad


def plain_assert():
    assert len("canary") == 7


def close():
    np.testing.assert_allclose(np.ones(3), np.zeros(3))


def equal():
    np.testing.assert_array_equal(np.ones(3), np.zeros(3))


def own_close():
    assert_close(np.ones(3), np.zeros(3))


def gradient():
    check_grad(lambda x: tt.Tensor(x.numpy()), np.ones(3))


def raises():
    with pytest.raises(ValueError):
        len("canary")


def words_of_an_error():
    with pytest.raises(ValueError, match="needed"):
        raise ValueError("something else")


def approx():
    assert pytest.approx(2.0) == 1.0


def an_error():
    raise RuntimeError("canary")


CANARIES = [plain_assert, close, equal, own_close, gradient, raises, words_of_an_error, approx, an_error]


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.__name__)
@pytest.mark.parametrize("when", ["before", "after"])
def test_canary(canary, when):
    canary()
