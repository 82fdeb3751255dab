"""The selective scan runs a state along a sequence: the loop, the blocked operation, and the way back through both."""

import tracemalloc

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.mamba import selective_scan_composed
from tinytorch.testing import assert_close, check_grad

LENGTHS = (1, 2, 3, 5, 16, 17, 37, 100)
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "initial_state")
both = pytest.mark.parametrize("scan", [tt.selective_scan, selective_scan_composed])
each_length = pytest.mark.parametrize("time", LENGTHS)


def inputs(time=5, batch=2, channels=3, state=4, seed=0):
    """Arrays by name: all that the scan takes, in float64."""
    rng = np.random.default_rng(seed)
    return {
        "u": rng.standard_normal((batch, time, channels)),
        "delta": rng.uniform(0.1, 1.5, (batch, time, channels)),
        "A": -rng.uniform(0.2, 2, (channels, state)),
        "B": rng.standard_normal((batch, time, state)),
        "C": rng.standard_normal((batch, time, state)),
        "D": rng.standard_normal(channels),
        "z": rng.standard_normal((batch, time, channels)),
        "initial_state": rng.standard_normal((batch, channels, state)),
    }


def scan_by_definition(u, delta, A, B, C, D=None, z=None, initial_state=None, starts=None):
    """One number of the state at a time. Returns the outputs and the last state."""
    time = u.shape[1]
    y, last = np.zeros(u.shape), np.zeros((len(u), *A.shape))
    for b, e, n in np.ndindex(last.shape):
        h = 0.0 if initial_state is None else initial_state[b, e, n]
        for t in range(time):
            h = 0.0 if starts is not None and starts[b, t] else h
            h = np.exp(delta[b, t, e] * A[e, n]) * h + delta[b, t, e] * B[b, t, n] * u[b, t, e]
            y[b, t, e] += C[b, t, n] * h
        last[b, e, n] = h
    y = y if D is None else y + D * u
    return (y if z is None else y * z / (1 + np.exp(-z))), last


def pick(given, *options):
    """The five inputs that are always there, and some of the others."""
    return {name: given[name] for name in (*NAMES[:5], *options)}


def tensors(given, dtype=None, requires_grad=False):
    return {
        name: tt.Tensor(x if x.dtype == bool else x.astype(dtype or x.dtype), requires_grad=requires_grad)
        for name, x in given.items()
    }


def with_gradients(scan, given, starts=None, dtype=np.float64):
    """The output of a scan and the gradients of all its inputs, under a random cotangent."""
    leaves = tensors(given, dtype, requires_grad=True)
    y = scan(**leaves, starts=None if starts is None else tt.tensor(starts))
    y.backward(np.random.default_rng(9).standard_normal(y.shape).astype(dtype))
    return {"y": y, **{name: leaf.grad for name, leaf in leaves.items()}}


STARTS = np.array([[False, False, True, False, True], [True, True, False, False, False]])
OPTIONS = [(), ("D",), ("z",), ("initial_state",), ("D", "z", "initial_state")]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "_and_".join(options) or "nothing_else")


# ---- values


@pytest.mark.exercise("ex-14-1", points=4)
@both
def test_three_steps_by_hand(scan):
    """One channel and two numbers of state, of which a step of size 1 leaves a half and a quarter."""
    u, delta = np.array([1.0, 2.0, 0.0]).reshape(1, 3, 1), np.array([1.0, 1.0, 2.0]).reshape(1, 3, 1)
    A, B, C = -np.log([[2.0, 4.0]]), np.array([[[1.0, 2.0]] * 3]), np.array([[[1.0, -1.0]] * 3])
    y = scan(*map(tt.Tensor, (u, delta, A, B, C)))
    assert_close(y.flatten(), [-1.0, -2.0, 0.34375], 1e-12)  # of the states (1, 2), (2.5, 4.5) and (0.625, 0.28125)


@pytest.mark.exercise("ex-14-1", points=4)
@both
@pytest.mark.parametrize("starts", [None, STARTS], ids=["one_document", "documents"])
@each_option
def test_values_are_those_of_the_definition(scan, options, starts):
    given = pick(inputs(), *options)
    y = scan(**tensors(given), starts=None if starts is None else tt.tensor(starts))
    assert_close(y, scan_by_definition(**given, starts=starts)[0], 1e-12, 1e-13)


@pytest.mark.exercise("ex-14-1", points=4)
@both
def test_a_step_of_size_zero_leaves_the_state_as_it_is(scan):
    given = pick(inputs(time=6))
    given["delta"][:, 2:] = 0
    given["C"][:] = given["C"][:, 1:2]
    y = scan(**tensors(given)).data
    assert_close(y[:, 2:], np.repeat(y[:, 1:2], 4, axis=1), 0, 0)


@both
def test_with_fixed_parameters_the_scan_is_a_convolution(scan):
    """What does not depend on the input is one kernel for the whole sequence, C exp(k delta A) delta B."""
    given, time = pick(inputs(time=12)), 12
    for name in ("delta", "B", "C"):
        given[name][:] = given[name][:1, :1]
    delta, B, C = given["delta"][0, 0], given["B"][0, 0], given["C"][0, 0]
    kernel = np.stack([(np.exp(k * delta[:, None] * given["A"]) * B * C).sum(1) * delta for k in range(time)])
    expected = [[np.convolve(row[:, e], kernel[:, e])[:time] for e in range(3)] for row in given["u"]]
    assert_close(scan(**tensors(given)), np.swapaxes(expected, 1, 2), 1e-12, 1e-13)


def test_the_future_does_not_change_the_past():
    given = pick(inputs(time=80), "D", "z")
    before = tt.selective_scan(**tensors(given)).data
    for name in ("u", "delta", "B", "C", "z"):
        given[name][:, 70] += 1
    changed = np.abs(tt.selective_scan(**tensors(given)).data - before).max(axis=(0, 2)) > 0
    assert changed.tolist() == [t >= 70 for t in range(80)]


# ---- the blocked operation beside the loop


@pytest.mark.exercise("ex-14-1", points=4)
@each_length
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_fused_is_composed_at_any_length_both_ways(time, dtype, tolerance):
    given = inputs(time)
    starts = np.random.default_rng(1).random((2, time)) < 0.2
    fused, composed = (
        with_gradients(scan, given, starts, dtype) for scan in (tt.selective_scan, selective_scan_composed)
    )
    for name, expected in composed.items():
        scale = 1 + float(np.abs(expected.data).max())
        assert fused[name].dtype == dtype
        assert_close(fused[name], expected, atol=tolerance * scale, what=name)


@pytest.mark.parametrize("sizes", [(70, 2, 1, 16), (9, 2, 2500, 16), (23, 1, 520, 64), (2, 1, 5000, 16)], ids=str)
def test_fused_is_composed_whatever_the_size_of_a_block(sizes):
    """With tens of thousands of numbers of state for each step, a block has few steps, and the last one a rest."""
    given, time = inputs(*sizes), sizes[0]
    starts = np.random.default_rng(1).random((sizes[1], time)) < 0.2
    results = [with_gradients(scan, given, starts) for scan in (tt.selective_scan, selective_scan_composed)]
    for name, expected in results[1].items():
        assert_close(results[0][name], expected, atol=1e-11 * (1 + float(np.abs(expected.data).max())), what=name)


@each_option
def test_gradients_are_those_of_finite_differences(options):
    given = pick(inputs(time=20), *options)
    names = tuple(given)
    starts = tt.tensor(np.arange(40).reshape(2, 20) % 13 == 5)
    check_grad(lambda *x: tt.selective_scan(**dict(zip(names, x)), starts=starts), *given.values())


def test_only_what_asks_for_a_gradient_gets_one():
    leaves = tensors(inputs())
    leaves["A"].requires_grad_()
    tt.selective_scan(**leaves).sum().backward()
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == ["A"]


def test_inputs_and_incoming_gradients_are_left_alone():
    given = inputs(time=20)
    leaves, g = tensors(given, requires_grad=True), tt.ones(2, 20, 3, dtype=tt.float64)
    tt.selective_scan(**leaves).backward(g)
    for name, x in inputs(time=20).items():
        assert_close(leaves[name], x, 0, 0, what=name)
    assert_close(g, np.ones((2, 20, 3)), 0, 0)


# ---- long sequences


def state_by_state(u, delta, A, B, C):
    """The recurrence in float64, over all channels at once."""
    h, y = np.zeros((len(u), *A.shape)), []
    for t in range(u.shape[1]):
        h = np.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * u[:, t])[..., None] * B[:, t, None]
        y.append((h * C[:, t, None]).sum(-1))
    return np.stack(y, 1)


@pytest.mark.parametrize("decay", [-16.0, -1e-3])
def test_long_and_strong_decays_stay_finite_and_right(decay):
    """The sum of delta A reaches -17,600: quotients of exponentials would have overflowed after ten steps."""
    given = pick(inputs(time=2000, batch=1, channels=4, state=2))
    given["delta"], given["A"][:] = np.random.default_rng(2).uniform(0.1, 1, given["delta"].shape), decay
    found = with_gradients(tt.selective_scan, given, dtype=np.float32)
    expected = state_by_state(**{name: x.astype(np.float32).astype(float) for name, x in given.items()})
    assert_close(found["y"], expected, 1e-5, 1e-5 * np.abs(expected).max())
    assert all(np.isfinite(x.data).all() for x in found.values())


def test_gradients_of_a_long_sequence_reach_its_beginning():
    """With u_0 alone, y_T = C exp(sum of delta A) delta_0 u_0 B_0."""
    time = 300
    u = tt.zeros(1, time, 1, dtype=tt.float64, requires_grad=True)
    delta, ones = tt.full((1, time, 1), 0.01, dtype=tt.float64), tt.ones(1, time, 1, dtype=tt.float64)
    tt.selective_scan(u, delta, tt.tensor([[-1.0]], dtype=tt.float64), ones, ones)[:, -1].sum().backward()
    assert_close(u.grad.data[0, :, 0], 0.01 * np.exp(-0.01 * np.arange(time)[::-1]), 1e-12, 0)


def peak(work):
    """Bytes at the highest point while `work` runs, above those before it."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_blocks_and_not_of_all_states():
    """Keeping every state and every decay would take 2 T B E N numbers."""
    time, channels, state = 8192, 32, 32
    given = {name: x.astype(np.float32) for name, x in inputs(time, 1, channels, state).items()}
    leaves, all_of_them, kept = tensors(given, requires_grad=True), 2 * time * channels * state * 4, []

    def both_ways():
        y = tt.selective_scan(**leaves)
        kept.append(tracemalloc.get_traced_memory()[0])
        y.backward(np.ones((1, time, channels), np.float32))

    assert peak(both_ways) < 0.4 * all_of_them
    assert kept[0] < 0.2 * all_of_them


def test_a_second_way_back_through_a_kept_graph_finds_its_states_again():
    """The first one writes over the block that forward left in the buffers."""
    given = tensors(inputs(time=2 * 64 + 3), requires_grad=True)
    y = tt.selective_scan(**given)
    g = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(g, retain_graph=True)
    first = {name: x.grad.numpy().copy() for name, x in given.items()}
    y.backward(g)
    for name, x in given.items():
        assert_close(x.grad, 2 * first[name], 1e-12)


# ---- documents, and sequences in parts


@pytest.mark.exercise("ex-14-1", points=4)
@both
@pytest.mark.parametrize("lengths", [(4, 5, 1), (1, 1, 8), (10,), (3, 70, 2)])
def test_documents_in_one_row_are_those_that_run_alone(scan, lengths):
    given, starts = pick(inputs(sum(lengths), batch=1), "D", "z"), np.zeros((1, sum(lengths)), bool)
    ends = np.cumsum(lengths)
    starts[0, ends[:-1]] = True
    together = scan(**tensors(given), starts=tt.tensor(starts))
    for end, length in zip(ends, lengths):
        part = {name: x[:, end - length : end] if x.ndim == 3 else x for name, x in given.items()}
        alone = scan_by_definition(**part)[0]
        assert_close(together[:, end - length : end], alone, 1e-11, 1e-12)


@pytest.mark.parametrize("channels", [3, 9000])  # the state of the second is cut into blocks of a few steps
@pytest.mark.parametrize("cut", [1, 4, 16, 19])
def test_the_last_state_goes_on_with_a_sequence_exactly(cut, channels):
    given = inputs(time=20, channels=channels)
    whole, last = tt.selective_scan(**tensors(given), return_last_state=True)
    parts = [
        {name: x[:, place] if name in ("u", "delta", "B", "C", "z") else x for name, x in given.items()}
        for place in (slice(cut), slice(cut, None))
    ]
    first, state = tt.selective_scan(**tensors(parts[0]), return_last_state=True)
    second, end = tt.selective_scan(**tensors(parts[1] | {"initial_state": state.data}), return_last_state=True)
    assert_close(end, last, 0, 0)
    assert_close(np.concatenate([first.data, second.data], axis=1), whole, 1e-14, 1e-15)


@each_length
def test_the_last_state_is_that_of_the_definition_and_has_no_graph(time):
    given = inputs(time)
    _, state = tt.selective_scan(**tensors(given, requires_grad=True), return_last_state=True)
    assert_close(state, scan_by_definition(**given)[1], 1e-12, 1e-13)
    assert not state.requires_grad


# ---- what makes no sense


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"u": (2, 5)}, r"needs u of shape \(batch, time, channels\), none of them 0, but got \(2, 5\)"),
        ({"u": (2, 0, 3)}, r"needs u of shape .* none of them 0, but got \(2, 0, 3\)"),
        ({"A": (4,)}, r"needs A of shape \(3, N\), but got \(4,\)"),
        ({"A": (4, 3)}, r"needs A of shape \(3, N\), but got \(4, 3\)"),
        ({"A": (3, 0)}, r"needs A of shape \(3, N\), but got \(3, 0\)"),
        ({"delta": (2, 5, 1)}, r"needs delta of shape \(2, 5, 3\), but got \(2, 5, 1\)"),
        ({"B": (2, 5, 3)}, r"needs B of shape \(2, 5, 4\), but got \(2, 5, 3\)"),
        ({"B": (5, 4)}, r"needs B of shape \(2, 5, 4\), but got \(5, 4\)"),
        ({"C": (2, 4, 4)}, r"needs C of shape \(2, 5, 4\), but got \(2, 4, 4\)"),
        ({"D": (4,)}, r"needs D of shape \(3,\), but got \(4,\)"),
        ({"z": (2, 5, 4)}, r"needs z of shape \(2, 5, 3\), but got \(2, 5, 4\)"),
        ({"initial_state": (2, 4, 3)}, r"needs initial_state of shape \(2, 3, 4\), but got \(2, 4, 3\)"),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused_by_name(changes, message):
    given = tensors(inputs()) | {name: tt.ones(*shape) for name, shape in changes.items()}
    with pytest.raises(ValueError, match=message):
        tt.selective_scan(**given)


def test_numbers_of_documents_are_no_starts():
    with pytest.raises(ValueError, match="needs starts of booleans, true where a document begins, but got int64"):
        tt.selective_scan(**tensors(inputs()), starts=tt.tensor(np.zeros((2, 5), int)))


def test_weights_of_another_dtype_widen_the_result():
    given = tensors(inputs())
    given["A"] = given["A"].float()
    one, other = (scan(**given) for scan in (tt.selective_scan, selective_scan_composed))
    assert one.dtype == other.dtype == tt.float64
    assert_close(one, other.numpy(), 1e-12, 1e-13)
    y, last = tt.selective_scan(**{**given, "u": given["u"].float()}, return_last_state=True)
    assert y.dtype == last.dtype == tt.float64


def test_starts_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"needs starts of shape \(2, 5\), but got \(5,\)"):
        tt.selective_scan(**tensors(inputs()), starts=tt.tensor([True] * 5))
