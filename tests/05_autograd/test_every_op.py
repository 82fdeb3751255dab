"""What every differentiable operation keeps: right gradients, float32, its inputs untouched, no garbage."""

import gc
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from catalogue import CASES, each_case, each_twin

import tinytorch as tt
from tinytorch.autograd import Node
from tinytorch.testing import check_grad

NOT_DIFFERENTIABLE = {"all", "any", "argmax", "argmin", "and", "or", "invert", "eq", "ne", "lt", "le", "gt", "ge"}
TESTED_BY_HAND = {"to_dtype", "to_device"}  # below, and in device/test_strict_array.py: finite differences need float64
GATES = {  # which exercise the cases of an operation belong to
    "add": pytest.mark.exercise("ex-05-1", points=1),
    "mul": pytest.mark.exercise("ex-05-2", points=1),
    "relu": pytest.mark.exercise("ex-05-3", points=1),
    "sum": pytest.mark.exercise("ex-05-4", points=2),
    "matmul": pytest.mark.exercise("ex-05-7", points=3),
    "softmax": pytest.mark.exercise("ex-05-8", points=3),
}
each_gated_case = pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=GATES.get(case.name.partition(",")[0], ()), id=case.name) for case in CASES],
)


def leaves(case, dtype=np.float64):
    """The case's inputs as tensors; those of floating point in `dtype`, asking for their gradient."""
    arrays = [x.astype(dtype) if x.dtype.kind == "f" else x for x in case.inputs()]
    return [tt.Tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]


def cotangent(output):
    return np.random.default_rng(1).standard_normal(output.shape).astype(output.dtype)


def outcome(function, tensors):
    """The output of a function and the gradients of its inputs, from a random gradient of the output."""
    output = function(*tensors)
    output.backward(cotangent(output))
    return [output.detach().numpy()] + [x.grad.numpy() for x in tensors if x.requires_grad]


# ---- the catalogue is whole


def package():
    """Every module of tinytorch."""
    for info in pkgutil.walk_packages(tt.__path__, "tinytorch."):
        yield importlib.import_module(info.name)


def operations():
    """(name of its nodes, function) for everything in the package that `@op` lifted; they all share one code object."""
    lifted = tt.op(lambda x: x).__code__
    for module in package():
        classes = [value for value in vars(module).values() if inspect.isclass(value)]
        for owner in [module, *classes]:
            for value in vars(owner).values():
                if getattr(value, "__code__", None) is lifted:
                    yield value.__name__.strip("_"), value


def recorded(case):
    """The names of the nodes between a case's output and its inputs."""
    waiting, names = [case.function(*leaves(case)).grad_fn], set()
    while waiting:
        node = waiting.pop()
        names.add(node.name)
        waiting += [edge[0] for edge in node.inputs if edge is not None and isinstance(edge[0], Node)]
    return names


def test_every_differentiable_operation_has_a_case():
    found = {name for name, _ in operations()}
    assert {"add", "getitem", "attention", "layer_norm"} <= found, "the search for operations finds too little"
    with_case = set().union(*map(recorded, CASES))
    assert found - NOT_DIFFERENTIABLE - TESTED_BY_HAND == with_case


def test_no_two_operations_share_a_name():
    by_name = {}
    for name, function in operations():
        by_name.setdefault(name, set()).add(function)
    assert [name for name, functions in by_name.items() if len(functions) > 1] == []


def test_every_composed_twin_has_a_case():
    twins = {name for module in package() for name in vars(module) if name.endswith("_composed")}
    assert {name.removesuffix("_composed") for name in twins} == {c.name.partition(",")[0] for c in CASES if c.composed}


# ---- what holds for each


@each_gated_case
def test_gradients_agree_with_finite_differences(case):
    check_grad(case.function, *case.inputs())


@each_case
def test_gradients_scale_with_the_gradient_of_the_output(case):
    once = outcome(case.function, leaves(case))[1:]
    thrice = outcome(lambda *inputs: case.function(*inputs) * 3.0, leaves(case))[1:]
    for g, g3 in zip(once, thrice, strict=True):
        np.testing.assert_allclose(g3, 3 * g, rtol=1e-12, atol=1e-12)


@each_case
def test_float32_stays_float32(case):
    tensors = leaves(case, np.float32)
    results = outcome(case.function, tensors)
    assert {x.dtype for x in results} == {np.dtype(np.float32)}
    assert all(x.grad.shape == x.shape for x in tensors if x.requires_grad)


@each_case
def test_neither_inputs_nor_the_incoming_gradient_are_written_into(case):
    tensors = leaves(case)
    for x in tensors:
        x.data.flags.writeable = False
    output = case.function(*tensors)
    g = cotangent(output)
    g.flags.writeable = False
    output.backward(g)
    for x, before in zip(tensors, case.inputs(), strict=True):
        np.testing.assert_array_equal(x.data, before)


@each_case
def test_nothing_is_left_for_the_cycle_collector(case):
    outcome(case.function, leaves(case))  # what is imported or cached at the first call does not count
    gc.freeze()  # nor does the garbage of others
    gc.disable()
    try:
        outcome(case.function, leaves(case))
        assert gc.collect() == 0
    finally:
        gc.enable()
        gc.unfreeze()


@each_twin
def test_a_fused_operation_equals_its_composed_twin(case):
    fused = outcome(case.function, leaves(case))
    composed = outcome(case.composed, leaves(case))
    for ours, twin in zip(fused, composed, strict=True):
        np.testing.assert_allclose(ours, twin, rtol=1e-9, atol=1e-12)


# ---- by hand


def test_a_gradient_comes_back_through_a_change_of_dtype_in_the_dtype_of_its_leaf():
    x = tt.tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = x.to(tt.float32) * tt.tensor([3.0, 0.1])
    y.backward(tt.ones(2))
    assert (x.dtype, y.dtype, x.grad.dtype) == (tt.float64, tt.float32, tt.float64)
    np.testing.assert_array_equal(x.grad.numpy(), np.array([3.0, 0.1], np.float32))


def test_a_float64_gradient_reaches_a_float32_leaf_as_float32():
    x = tt.tensor([1.0, 2.0], requires_grad=True)
    y = x * tt.tensor(np.array([3.0, 0.1]))
    y.backward(np.ones(2))
    assert (y.dtype, x.grad.dtype) == (tt.float64, tt.float32)


@tt.op
def forgetful_softmax(x):
    """A softmax with a rule that takes each output to depend on its own input alone, a common mistake."""
    p = np.exp(x) / np.sum(np.exp(x), axis=-1, keepdims=True)
    return p, lambda g: g * p * (1 - p)


def test_check_grad_sees_a_wrong_rule_of_softmax():
    with pytest.raises(AssertionError, match="gradient of input 0 is wrong"):
        check_grad(forgetful_softmax, np.array([[0.1, 0.5, -0.3]]))


@pytest.mark.parametrize("factor", [0.5, -1, 1.001])
def test_check_grad_sees_a_gradient_of_the_wrong_size(factor):
    wrong = tt.op(lambda x: (x * x, lambda g: factor * 2 * g * x))
    with pytest.raises(AssertionError, match="gradient of input 0 is wrong"):
        check_grad(wrong, np.array([0.3, -2.0]))


def test_check_grad_sees_a_graph_that_was_cut():
    with pytest.raises(AssertionError, match="Input 1 got no gradient"):
        check_grad(lambda x, y: x * y.detach(), np.ones(3), np.ones(3))
