"""Module 17: under autocast products of matrices see numbers of 16 bits, both ways, and nothing else does."""

import sys
import threading
from functools import partial

import numpy as np
import pytest
import strict_array
from numpy.testing import assert_allclose, assert_array_equal

import tinytorch as tt
from tinytorch.precision import round_to
from tinytorch.tensor import autocast_mode
from tinytorch.tensor.rounding import MATRIX_PRODUCTS

LOW = ["bfloat16", "float16"]


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def leaves(arrays):
    return [tt.tensor(array, requires_grad=True) for array in arrays]


# ---- what is rounded


@pytest.mark.parametrize("dtype", LOW)
def test_a_linear_layer_by_hand(dtype):
    low = partial(round_to, dtype=dtype)
    x, weight, bias, g = normal(5, 7), normal(3, 7), normal(3), normal(5, 3)
    tensors = leaves([x, weight, bias])
    with tt.autocast(dtype):
        y = tt.linear(*tensors)
    y.backward(g)  # outside, as in PyTorch
    low_g = low(g)
    expected = [
        low(low(x) @ low(weight).T + low(bias)),
        low(low_g @ low(weight)),
        low(low_g.T @ low(x)),
        low(low_g.sum(axis=0)),
    ]
    for got, wanted in zip([y, *(t.grad for t in tensors)], expected, strict=True):
        assert got.dtype == np.float32
        assert_array_equal(got.data, low(got.data))  # numbers of the low type
        assert_allclose(got.data, wanted, rtol=0.01, atol=1e-6)
        assert np.mean(got.data == wanted) > 0.8  # the order of sums may differ in the last bit, before rounding
    assert_array_equal(tensors[1].data, weight)


PRODUCTS = {
    "linear": (tt.linear, [(2, 3, 4), (5, 4), (5,)]),
    "matmul": (tt.matmul, [(2, 3, 4), (4, 5)]),
    "einsum": (partial(tt.einsum, "bij,bjk,k->bik"), [(2, 3, 4), (2, 4, 5), (5,)]),
    "conv": (partial(tt.conv2d, padding=1), [(2, 3, 5, 5), (4, 3, 3, 3), (4,)]),
    "causal_conv1d": (tt.causal_conv1d, [(2, 5, 3), (3, 1, 4), (3,)]),
    "attention": (partial(tt.scaled_dot_product_attention, is_causal=True), [(2, 2, 5, 4)] * 3),
}


def results(function, tensors, g):
    y = function(*tensors)
    y.backward(g(y))
    return [y.data] + [t.grad.data for t in tensors]


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_round_their_inputs_their_outputs_and_both_ends_of_their_rule(name, dtype):
    function, shapes = PRODUCTS[name]
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    rounded = [round_to(array, dtype) for array in arrays]
    plain = results(function, leaves(rounded), lambda y: round_to(normal(*y.shape), dtype))
    with tt.autocast(dtype):
        low = results(function, leaves(arrays), lambda y: normal(*y.shape))
    for got, wanted in zip(low, plain, strict=True):
        assert_array_equal(got, round_to(wanted, dtype))
        assert (got != wanted).any()


def test_the_table_of_products_names_operations_that_there_are():
    assert PRODUCTS.keys() == MATRIX_PRODUCTS.keys()
    for name, (function, shapes) in PRODUCTS.items():
        assert function(*leaves(normal(*shape) for shape in shapes)).grad_fn.name == name


def test_a_product_that_a_student_wrote_is_rounded_by_its_name():
    @tt.op
    def linear(x, weight):
        return x @ weight.T, (lambda g: g @ weight, lambda g: g.T @ x)

    x, weight = leaves([normal(3, 4), normal(2, 4)])
    with tt.autocast():
        y = linear(x, weight)
    assert_array_equal(y.data, round_to(y.data, "bfloat16"))
    assert_allclose(y.data, round_to(x.data, "bfloat16") @ round_to(weight.data, "bfloat16").T, rtol=2**-8)


def test_float16_overflows_to_infinity():
    x = tt.tensor([[300.0, 60000.0]])
    with tt.autocast("float16"):
        assert_array_equal((x @ x.T).data, [[np.inf]])
    with tt.autocast("bfloat16"):
        assert np.isfinite((x @ x.T).item())


# ---- what is not


OTHERS = {
    "softmax": tt.softmax,
    "log_softmax": tt.log_softmax,
    "gelu": tt.gelu,
    "layer_norm": partial(tt.layer_norm, normalized_shape=(8,)),
    "rms_norm": partial(tt.rms_norm, normalized_shape=(8,)),
    "add": lambda x: x + x,
    "mul": lambda x: x * 1.1,
    "mean": lambda x: x.mean(),
    "cumsum": lambda x: x.cumsum(0),
    "cross_entropy": lambda x: tt.cross_entropy(x, tt.tensor([1, 2, 3])),
    "mse_loss": lambda x: tt.mse_loss(x, x.detach() + 0.3),
}


@pytest.mark.parametrize("function", OTHERS.values(), ids=OTHERS)
def test_all_else_stays_float32(function):
    arrays = [normal(3, 8)]
    plain = results(function, leaves(arrays), lambda y: normal(*y.shape))
    with tt.autocast("bfloat16"):
        low = results(function, leaves(arrays), lambda y: normal(*y.shape))
    for got, wanted in zip(low, plain, strict=True):
        assert_array_equal(got, wanted)


def test_float64_and_integers_are_not_rounded():
    x, y = np.random.default_rng(0).standard_normal((2, 3, 3))
    with tt.autocast("float16"):
        assert_array_equal((tt.Tensor(x) @ tt.Tensor(y)).data, x @ y)
        assert_array_equal((tt.tensor([[2049]]) @ tt.tensor([[1]])).data, [[2049]])


def test_the_softmax_of_attention_and_its_mask_stay_float32():
    q, k, v = (tt.tensor(round_to(normal(1, 4, 8, seed=i), "bfloat16")) for i in range(3))
    mask = tt.tensor(normal(4, 4) * 3)
    plain = tt.scaled_dot_product_attention(q, k, v, mask)
    with tt.autocast("bfloat16"):
        low = tt.scaled_dot_product_attention(q, k, v, mask)
    assert_array_equal(low.data, round_to(plain.data, "bfloat16"))


# ---- where it holds


def test_it_holds_inside_only_and_can_be_switched_off_inside():
    x = tt.tensor(normal(4, 4))
    plain = (x @ x).data
    with tt.autocast("bfloat16"):
        with tt.autocast("float32"):
            assert_array_equal((x @ x).data, plain)
        with tt.autocast(None):
            assert_array_equal((x @ x).data, plain)
        with tt.autocast("float16"):
            assert_array_equal((x @ x).data, round_to((x @ x).data, "float16"))
        assert (x @ x).data[0, 0] == round_to((x @ x).data, "bfloat16")[0, 0] != plain[0, 0]
    assert_array_equal((x @ x).data, plain)


def test_it_ends_where_an_exception_leaves_it():
    with pytest.raises(ZeroDivisionError), tt.autocast("float16"):
        raise ZeroDivisionError
    assert autocast_mode.dtype is None


def test_it_decorates_functions():
    x = tt.tensor(normal(4, 4))
    product = tt.autocast("bfloat16")(lambda: x @ x)
    assert_array_equal(product().data, round_to(product().data, "bfloat16"))
    assert autocast_mode.dtype is None


def test_other_threads_are_not_concerned():
    seen = []
    with tt.autocast("float16"):
        thread = threading.Thread(target=lambda: seen.append(autocast_mode.dtype))
        thread.start()
        thread.join()
    assert seen == [None]


@pytest.mark.parametrize("dtype", ["fp16", "float64", np.float16, 16])
def test_other_types_are_refused(dtype):
    context = tt.autocast(dtype)
    with pytest.raises(ValueError, match="autocast needs 'bfloat16', 'float16', or 'float32' for none, but got"):
        context.__enter__()


def test_no_graph_no_rule():
    with tt.autocast(), tt.no_grad():
        y = tt.linear(*leaves([normal(2, 3), normal(4, 3)]))
    assert not y.requires_grad and y.grad_fn is None


def test_a_rule_that_is_missing_is_named_as_without():
    @tt.op
    def matmul(x, y):
        return x @ y

    with tt.autocast():
        y = matmul(*leaves([normal(2, 2), normal(2, 2)]))
    with pytest.raises(NotImplementedError, match="'matmul' has no backward rule yet"):
        y.sum().backward()


def test_on_the_arrays_of_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_array)
    function, shapes = PRODUCTS["attention"]
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    with tt.autocast("bfloat16"):
        here = results(function, leaves(arrays), lambda y: normal(*y.shape))
        there = results(
            function,
            [tt.Tensor(strict_array.asarray(array), requires_grad=True) for array in arrays],
            lambda y: strict_array.asarray(normal(*y.shape)),
        )
    for got, wanted in zip(there, here, strict=True):
        assert_allclose(got.get(), wanted, rtol=2**-7, atol=1e-6)  # memory lies otherwise, and sums are in its order


# ---- training


def train(dtype, steps=60):
    """The losses of a small GPT that learns to count, all but autocast being the same."""
    config = tt.GPTConfig(vocab_size=12, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    model = tt.GPT(config, generator=tt.Generator(0))
    optimizer = tt.AdamW(model.parameters(), lr=0.01)
    rng, losses = np.random.default_rng(0), []
    for _ in range(steps):
        ids = (rng.integers(0, 12, (8, 1)) + np.arange(12)) % 12
        optimizer.zero_grad()
        with tt.autocast(dtype):
            loss, _ = tt.next_token_loss(model, tt.tensor(ids))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_model_learns_in_bfloat16_as_in_float32():
    full, low = train(None), train("bfloat16")
    assert full != low
    assert full[-1] < 0.1 * full[0]
    assert_allclose(low[:20], full[:20], rtol=0.02)
    assert low[-1] < 0.1 * low[0]


@pytest.mark.oracle
def test_pytorch_gives_the_same_up_to_a_bit():
    torch = pytest.importorskip("torch")
    arrays = [normal(6, 8), normal(16, 8), normal(16), normal(3, 16), normal(3)]

    def run(lib, tensors, context):
        x, w1, b1, w2, b2 = tensors
        with context:
            y = lib.linear(lib.relu(lib.linear(x, w1, b1)), w2, b2)
        loss = (y.float() ** 2).mean()
        loss.backward()
        return [loss.item()] + [np.asarray(t.grad) for t in tensors]

    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    wanted = run(torch.nn.functional, theirs, torch.autocast("cpu", dtype=torch.bfloat16))
    for got, expected in zip(run(tt, leaves(arrays), tt.autocast("bfloat16")), wanted, strict=True):
        assert_allclose(got, expected, rtol=2**-7, atol=2**-8 * np.abs(expected).max())
