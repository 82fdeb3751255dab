"""Mamba-2: products of matrices over chunks give what the recurrence gives, and the mixer is that of the paper."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.mamba import ssd_composed
from tinytorch.mamba.mamba2 import _decays_between
from tinytorch.testing import assert_close, check_grad

LENGTHS = (1, 2, 3, 5, 16, 17, 37, 100)
both = pytest.mark.parametrize("function", [tt.ssd, ssd_composed])


def inputs(time=7, groups=2, heads=4, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [
        x.astype(dtype)
        for x in (
            rng.standard_normal((2, time, heads, 3)),
            rng.uniform(0.1, 1.5, (2, time, heads)),
            -rng.uniform(0.2, 2, heads),
            rng.standard_normal((2, time, groups, 5)),
            rng.standard_normal((2, time, groups, 5)),
        )
    ]


def ssd_by_definition(x, delta, A, B, C):
    """One head and one step after the other; a state is (P, N)."""
    y, heads = np.zeros(x.shape), x.shape[2]
    for b, head in np.ndindex(len(x), heads):
        group = head // (heads // B.shape[2])
        h = np.zeros((x.shape[3], B.shape[3]))
        for t in range(x.shape[1]):
            h = np.exp(delta[b, t, head] * A[head]) * h
            h += np.outer(delta[b, t, head] * x[b, t, head], B[b, t, group])
            y[b, t, head] = h @ C[b, t, group]
    return y


# ---- the decays of a chunk


@pytest.mark.exercise("ex-14-10", points=2)
def test_decays_between_three_steps_by_hand():
    """Decays of a half, a quarter and a fifth: from step 0 to step 2 it is a quarter times a fifth."""
    total = np.cumsum(np.log([1 / 2, 1 / 4, 1 / 5]))
    assert_close(_decays_between(tt.Tensor(total)), [[1, 0, 0], [1 / 4, 1, 0], [1 / 20, 1 / 5, 1]], 1e-14, 1e-15)


@pytest.mark.exercise("ex-14-10", points=2)
@pytest.mark.parametrize("shape", [(1,), (6,), (2, 3, 5)], ids=str)
def test_decays_are_products_of_those_after_the_earlier_step(shape):
    decay = np.random.default_rng(0).uniform(0.2, 1, shape)
    found = _decays_between(tt.Tensor(np.cumsum(np.log(decay), -1))).data
    assert found.shape == (*shape, shape[-1])
    for *place, i, j in np.ndindex(found.shape):
        expected = np.prod(decay[(*place, slice(j + 1, i + 1))]) if i >= j else 0
        assert_close(found[(*place, i, j)], expected, 1e-12, 1e-13)


@pytest.mark.exercise("ex-14-10", points=2)
def test_gradients_of_decays_are_those_of_finite_differences():
    check_grad(_decays_between, np.cumsum(-np.random.default_rng(0).uniform(0.1, 1, (2, 5)), -1))


@pytest.mark.exercise("ex-14-10", points=2)
def test_decays_that_come_to_nothing_have_finite_values_and_gradients():
    """Totals down to -1,600: exp of the differences above the diagonal would be inf, of each total alone 0."""
    total = tt.Tensor(np.arange(-16.0, -1601, -16, np.float32), requires_grad=True)
    decays = _decays_between(total)
    decays.backward(1 - np.eye(100, dtype=np.float32))
    assert_close(np.diag(decays.data, -1), np.full(99, np.exp(-16.0)), 1e-5)
    assert_close(np.diag(decays.data), np.ones(100), 0, 0)
    ends = np.exp(-16.0) + np.exp(-32.0)  # from the first step to the next two, and from two to the last
    assert_close(total.grad.data[[0, -1]], [-ends, ends], 1e-5)


# ---- the scan as products


@both
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_values_are_those_of_the_definition(function, groups):
    arrays = inputs(groups=groups)
    assert_close(function(*map(tt.Tensor, arrays)), ssd_by_definition(*arrays), 1e-12, 1e-13)


@pytest.mark.exercise("ex-14-10", points=2)
@pytest.mark.parametrize("time", LENGTHS)
@pytest.mark.parametrize("chunk_size", [1, 5, 16, 128])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_chunks_of_any_size_give_the_same_at_any_length(time, chunk_size, dtype, tolerance):
    arrays = inputs(time, dtype=dtype)
    y, expected = tt.ssd(*map(tt.Tensor, arrays), chunk_size), ssd_by_definition(*(x.astype(float) for x in arrays))
    assert y.dtype == dtype
    assert_close(y, expected, atol=tolerance * (1 + float(np.abs(expected).max())))


def test_with_one_decay_for_a_head_it_is_the_selective_scan():
    x, delta, A, B, C = inputs(20, groups=1)
    flat = [
        x.reshape(2, 20, 12),
        np.repeat(delta, 3, axis=-1),
        np.tile(np.repeat(A, 3)[:, None], 5),
        B[:, :, 0],
        C[:, :, 0],
    ]
    assert_close(
        tt.ssd(*map(tt.Tensor, (x, delta, A, B, C))).flatten(2), tt.selective_scan(*map(tt.Tensor, flat)), 1e-12, 1e-13
    )


@pytest.mark.exercise("ex-14-10", points=2)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("chunk_size", [1, 3, 32])
def test_gradients_are_those_of_the_recurrence(groups, chunk_size):
    found = []
    for function in (lambda *x: tt.ssd(*x, chunk_size), ssd_composed):
        leaves = [tt.Tensor(x, requires_grad=True) for x in inputs(groups=groups)]
        y = function(*leaves)
        y.backward(np.random.default_rng(1).standard_normal(y.shape))
        found.append([y, *(leaf.grad for leaf in leaves)])
    for chunked, composed in zip(*found):
        assert_close(chunked, composed, 1e-10, 1e-11)


def test_gradients_are_those_of_finite_differences():
    check_grad(lambda *x: tt.ssd(*x, chunk_size=3), *inputs())


def test_long_and_strong_decays_stay_finite_and_right():
    x, delta, A, B, C = inputs(2000, dtype=np.float32)
    A[:2] = -16
    leaves = [tt.Tensor(y, requires_grad=True) for y in (x, delta, A, B, C)]
    y = tt.ssd(*leaves, 64)
    y.backward(np.ones(y.shape, np.float32))
    expected = ssd_by_definition(*(given.astype(float) for given in (x, delta, A, B, C)))
    assert_close(y, expected, 1e-4, 1e-5 * np.abs(expected).max())
    assert all(np.isfinite(leaf.grad.data).all() for leaf in leaves)


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (0, (2, 7, 4), r"needs x of shape \(batch, time, heads, width\), none of them 0, but got \(2, 7, 4\)"),
        (0, (2, 0, 4, 3), r"needs x of shape .* none of them 0, but got \(2, 0, 4, 3\)"),
        (1, (2, 7, 3), r"needs delta of shape \(2, 7, 4\), but got \(2, 7, 3\)"),
        (2, (4, 1), r"needs A of shape \(4,\), but got \(4, 1\)"),
        (3, (2, 7, 3, 5), r"needs B of shape \(2, 7, groups, N\), as many groups as divide 4 heads, but got \(2, 7, 3"),
        (3, (2, 7, 0, 5), r"needs B of shape .* but got \(2, 7, 0, 5\)"),
        (3, (2, 7, 5), r"needs B of shape .* but got \(2, 7, 5\)"),
        (4, (2, 7, 2, 6), r"needs C of shape .* but got \(2, 7, 2, 6\)"),
        (4, (2, 6, 2, 5), r"needs C of shape .* but got \(2, 6, 2, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(place, shape, message):
    given = list(map(tt.Tensor, inputs()))
    given[place] = tt.ones(*shape)
    with pytest.raises(ValueError, match=message):
        tt.ssd(*given)


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_a_chunk_that_cannot_be_is_refused(chunk_size):
    with pytest.raises(ValueError, match="chunk_size"):
        tt.ssd(*map(tt.Tensor, inputs()), chunk_size)


# ---- the mixer


def mixer(n_groups=1, **changes):
    """A small one, with parameters that all count."""
    sizes = {"d_model": 8, "d_state": 5, "expand": 2, "head_dim": 4, "chunk_size": 4, **changes}
    layer, rng = tt.Mamba2Mixer(n_groups=n_groups, **sizes, generator=tt.Generator(0)), np.random.default_rng(0)
    for parameter in layer.parameters():
        parameter.data[...] += 0.3 * rng.standard_normal(parameter.shape).astype(np.float32)
    return layer


def silu(x):
    return x / (1 + np.exp(-x))


def mixed_by_definition(layer, x, groups):
    """The mixer in plain NumPy, its scan as the recurrence."""
    state = {name: tensor.numpy().astype(float) for name, tensor in layer.state_dict().items()}
    heads, inner = len(state["D"]), len(state["norm.weight"])
    taps = state["conv1d.weight"][:, 0]
    z, convolved, delta = np.split(x.astype(float) @ state["in_proj.weight"].T, [inner, inner + len(taps)], axis=-1)
    padded, time = np.pad(convolved, ((0, 0), (taps.shape[1] - 1, 0), (0, 0))), x.shape[1]
    convolved = silu(sum(padded[:, j : j + time] * taps[:, j] for j in range(taps.shape[1])) + state["conv1d.bias"])
    u, B, C = np.split(convolved, [inner, inner + (len(taps) - inner) // 2], axis=-1)
    u, B, C = (y.reshape(*x.shape[:2], n, -1) for y, n in ((u, heads), (B, groups), (C, groups)))
    delta = np.log1p(np.exp(delta + state["dt_bias"]))
    y = ssd_by_definition(u, delta, -np.exp(state["A_log"]), B, C) + state["D"][:, None] * u
    y = (y.reshape(*x.shape[:2], inner) * silu(z)).reshape(*x.shape[:2], groups, -1)  # each group has its norm
    y = (y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5)).reshape(*x.shape[:2], inner) * state["norm.weight"]
    return y @ state["out_proj.weight"].T


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("time", [1, 4, 11])
def test_the_mixer_is_that_of_the_definition(groups, time):
    layer, x = mixer(groups), np.random.default_rng(1).standard_normal((2, time, 8)).astype(np.float32)
    assert_close(layer(tt.tensor(x)), mixed_by_definition(layer, x, groups), 1e-4, 1e-5)


def test_the_mixer_begins_as_in_the_paper():
    layer = tt.Mamba2Mixer(256, generator=tt.Generator(0))
    decay = np.exp(layer.A_log.data)
    assert 1 <= decay.min() < 3
    assert 14 < decay.max() <= 16
    dt = np.log1p(np.exp(layer.dt_bias.data))
    assert 0.999e-3 < dt.min() < dt.max() < 0.1001
    assert_close(layer.D, np.ones(16), 0, 0)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "in_proj.weight": (512 + 512 + 2 * 64 + 16, 256),
        "conv1d.weight": (512 + 2 * 64, 1, 4),
        "conv1d.bias": (512 + 2 * 64,),
        "dt_bias": (16,),
        "A_log": (16,),
        "D": (16,),
        "norm.weight": (512,),
        "out_proj.weight": (256, 512),
    }


def test_every_parameter_of_the_mixer_gets_a_gradient():
    layer = mixer(2)
    layer(tt.randn(2, 9, 8, generator=tt.Generator(1))).sum().backward()
    assert [name for name, parameter in layer.named_parameters() if not parameter.grad.data.any()] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": 5}, r"needs expand \* d_model = 16 divisible by head_dim, .* but got head_dim=5 and n_groups=1"),
        ({"n_groups": 3}, r"its heads by n_groups, but got head_dim=4 and n_groups=3"),
        *(
            ({name: 0}, name)
            for name in ("d_model", "d_state", "d_conv", "expand", "head_dim", "n_groups", "chunk_size")
        ),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        tt.Mamba2Mixer(**{"d_model": 8, "head_dim": 4, **changes})


@pytest.mark.oracle
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("time", [1, 37])
def test_the_mixer_is_that_of_transformers(time, groups):
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    sizes = {"hidden_size": 8, "state_size": 5, "expand": 2, "head_dim": 4, "num_heads": 4, "n_groups": groups}
    theirs = modeling.Mamba2Mixer(modeling.Mamba2Config(**sizes, chunk_size=16, num_hidden_layers=1), layer_idx=0)
    ours = mixer(groups)
    theirs.load_state_dict({name: torch.tensor(tensor.numpy()) for name, tensor in ours.state_dict().items()})
    x = np.random.default_rng(1).standard_normal((2, time, 8)).astype(np.float32)
    leaf, other = tt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = ours(leaf), theirs.eval()(other)
    assert_close(y, expected.detach().numpy(), 1e-4, 1e-5)
    g = np.random.default_rng(2).standard_normal(x.shape).astype(np.float32)
    y.backward(g)
    expected.backward(torch.tensor(g))
    gradients = {"x": leaf.grad} | {name: parameter.grad for name, parameter in ours.named_parameters()}
    wanted = {"x": other.grad} | {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, gradient in wanted.items():
        scale = 1 + float(gradient.abs().max())
        assert_close(gradients[name], gradient.numpy(), atol=2e-5 * scale, what=name)
