"""The recurrence in other orders of the work: loop, tree and chunks agree, at any length, forward and backward."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.mamba import blelloch_scan, recurrence, selective_scan_by, sequential_scan, two_level_scan
from tinytorch.testing import assert_close, check_grad

LENGTHS = (1, 2, 3, 5, 16, 17, 37, 100)
SCANS = [
    sequential_scan,
    pytest.param(blelloch_scan, marks=pytest.mark.exercise("ex-14-7", points=3)),
    pytest.param(two_level_scan, marks=pytest.mark.exercise("ex-14-8", points=2)),
]
each_scan = pytest.mark.parametrize("scan", SCANS)
each_of_ours = pytest.mark.parametrize("scan", [sequential_scan, blelloch_scan, two_level_scan])  # gates none of them
each_length = pytest.mark.parametrize("time", LENGTHS)
DTYPES = [(np.float64, 1e-12), (np.float32, 1e-5)]


def pairs(time, shape=(2, 3), dtype=np.float64, seed=0):
    """Decays from 0.2 to 1 and what is written, (T, ...); the first decay counts for nothing."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 1, (time, *shape)).astype(dtype), rng.standard_normal((time, *shape)).astype(dtype)


def by_definition(a, b):
    """h_t as the sum of all that was written, each with the product of the decays after it, in float64."""
    a, b = a.astype(float), b.astype(float)
    return np.stack([sum(b[s] * np.prod(a[s + 1 : t + 1], axis=0) for s in range(t + 1)) for t in range(len(b))])


# ---- the scans


@pytest.mark.exercise("ex-14-8", points=2)
def test_eight_steps_by_hand_in_chunks_of_two():
    b = np.array([8.0, 0, 0, 0, 8, 0, 0, 0])
    h = two_level_scan(np.full(8, 0.5), b, chunk=2)
    assert_close(h, [8, 4, 2, 1, 8.5, 4.25, 2.125, 1.0625], 1e-14)


@each_scan
def test_eight_steps_by_hand(scan):
    b = np.array([8.0, 0, 0, 0, 8, 0, 0, 0])
    assert_close(scan(np.full(8, 0.5), b), [8, 4, 2, 1, 8.5, 4.25, 2.125, 1.0625], 1e-14)


@each_scan
@each_length
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_states_are_those_of_the_definition_at_any_length(scan, time, dtype, tolerance):
    a, b = pairs(time, dtype=dtype)
    expected = by_definition(a, b)
    h = scan(a, b)
    assert h.dtype == dtype
    assert_close(h, expected, tolerance, tolerance)


@each_scan
@pytest.mark.parametrize("shape", [(), (1,), (4, 2, 3)], ids=str)
def test_any_axes_may_come_after_time(scan, shape):
    a, b = pairs(21, shape)
    expected = by_definition(a, b)
    assert_close(scan(a, b), expected, 1e-12, 1e-13)


@each_scan
def test_what_was_given_is_left_alone(scan):
    a, b = pairs(21)
    scan(a, b)
    for now, before in zip((a, b), pairs(21)):
        assert_close(now, before, 0, 0)


@each_scan
def test_decays_that_come_to_nothing_overflow_nowhere(scan):
    """exp(-16) at every step: after seven steps their product is below what float32 can hold."""
    a, b = pairs(2000, (3,), np.float32)
    a[:, 0] = np.exp(-16.0)
    a[::10, 1], a[:, 2] = 0, 1
    expected = np.zeros((2000, 3))
    for t in range(2000):
        expected[t] = a[t].astype(float) * (expected[t - 1] if t else 0) + b[t]
    assert_close(scan(a, b), expected, 1e-4, 1e-4)


@pytest.mark.exercise("ex-14-8", points=2)
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 37, 50])
def test_chunks_may_have_any_length(chunk):
    a, b = pairs(37)
    assert_close(two_level_scan(a, b, chunk), by_definition(a, b), 1e-12, 1e-13)


@pytest.mark.parametrize("chunk", [0, -1, 2.5])
def test_a_chunk_that_cannot_be_is_refused(chunk):
    with pytest.raises((ValueError, TypeError), match="chunk"):
        two_level_scan(*pairs(5), chunk)


def test_brackets_around_steps_may_be_moved():
    """The operation itself: (a1, b1) then (a2, b2) is (a1 a2, a2 b1 + b2)."""

    def then(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    one, two, three = zip(*pairs(3, (5,)))
    for left, right in zip(then(then(one, two), three), then(one, then(two, three))):
        assert_close(left, right, 1e-14, 1e-15)


# ---- the way back


@pytest.mark.exercise("ex-14-6", points=3)
def test_three_gradients_by_hand():
    """h = (b0, a1 b0 + b1, a2 (a1 b0 + b1) + b2), and the loss is 1 h0 + 10 h1 + 100 h2."""
    a, b = (tt.Tensor(np.array(x), requires_grad=True) for x in ([7.0, 0.5, 0.2], [8.0, 2.0, 1.0]))
    h = recurrence(a, b)
    h.backward(np.array([1.0, 10.0, 100.0]))
    assert_close(h, [8.0, 6.0, 2.2], 1e-14)
    assert_close(b.grad, [16.0, 30.0, 100.0], 1e-14)
    assert_close(a.grad, [0.0, 240.0, 600.0], 1e-14)


@pytest.mark.exercise("ex-14-6", points=3)
@each_length
def test_gradients_are_those_of_the_matrix_of_all_paths(time):
    """H[t, s], the product of the decays after s up to t, is how b_s acts on h_t; a_t acts by what h_(t-1) was."""
    (a, b), g = pairs(time, ()), np.random.default_rng(1).standard_normal(time)
    paths = np.array([[np.prod(a[s + 1 : t + 1]) if s <= t else 0 for s in range(time)] for t in range(time)])
    leaves = [tt.Tensor(x, requires_grad=True) for x in (a, b)]
    recurrence(*leaves).backward(g)
    assert_close(leaves[1].grad, paths.T @ g, 1e-12, 1e-13)
    assert_close(leaves[0].grad, (paths.T @ g) * np.concatenate([[0.0], (paths @ b)[:-1]]), 1e-12, 1e-13)


@pytest.mark.parametrize(
    "scan",
    [pytest.param(sequential_scan, marks=pytest.mark.exercise("ex-14-6", points=3)), blelloch_scan, two_level_scan],
)
@pytest.mark.parametrize("time", [1, 2, 3, 21])
def test_gradients_are_those_of_finite_differences(scan, time):
    check_grad(lambda a, b: recurrence(a, b, scan=scan), *pairs(time))


@pytest.mark.exercise("ex-14-6", points=3)
def test_the_scan_that_was_given_is_used_both_ways():
    def twice_as_much(a, b):
        return 2 * sequential_scan(a, b)

    a, b = (tt.Tensor(np.array(x), requires_grad=True) for x in ([7.0, 0.5, 0.2], [8.0, 2.0, 1.0]))
    h = recurrence(a, b, scan=twice_as_much)
    assert_close(h, [16.0, 12.0, 4.4], 1e-14)
    h.backward(np.array([1.0, 10.0, 100.0]))
    assert_close(b.grad, [32.0, 60.0, 200.0], 1e-14)


# ---- the selective scan by each of them


def scanned(time, dtype):
    rng = np.random.default_rng(2)
    return [
        x.astype(dtype)
        for x in (
            rng.standard_normal((2, time, 3)),
            rng.uniform(0.1, 1.5, (2, time, 3)),
            -rng.uniform(0.2, 2, (3, 4)),
            rng.standard_normal((2, time, 4)),
            rng.standard_normal((2, time, 4)),
            rng.standard_normal(3),
            rng.standard_normal((2, time, 3)),
        )
    ]


def both_ways(function, arrays):
    leaves = [tt.Tensor(x, requires_grad=True) for x in arrays]
    y = function(*leaves)
    y.backward(np.random.default_rng(3).standard_normal(y.shape).astype(y.dtype))
    return [y, *(leaf.grad for leaf in leaves)]


@each_of_ours
@each_length
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_the_selective_scan_is_the_same_by_any_of_them(scan, time, dtype, tolerance):
    arrays = scanned(time, dtype)
    expected = both_ways(tt.selective_scan, arrays)
    for got, wanted in zip(both_ways(lambda *x: selective_scan_by(scan, *x), arrays), expected):
        assert got.dtype == dtype
        assert_close(got, wanted, atol=tolerance * (1 + float(np.abs(wanted.data).max())))


@each_of_ours
def test_the_selective_scan_needs_neither_skip_nor_gate(scan):
    arrays = scanned(9, np.float64)[:5]
    expected = both_ways(tt.selective_scan, arrays)
    for got, wanted in zip(both_ways(lambda *x: selective_scan_by(scan, *x), arrays), expected):
        assert_close(got, wanted, 1e-11, 1e-12)
