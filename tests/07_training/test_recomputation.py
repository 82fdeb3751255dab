"""Module 07: a part that is computed twice gives the same gradients, to the bit, and holds less memory in between."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import tinytorch as tt
from tinytorch.autograd import grad_mode
from tinytorch.device import default_generator
from tinytorch.tensor import autocast_mode
from tinytorch.testing import check_grad
from tinytorch.training.recomputation import Recomputation


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


class Counting(tt.Module):
    """tanh(linear(x)), and how often that was computed."""

    def __init__(self, width=4, seed=0):
        self.linear = tt.Linear(width, width, generator=tt.Generator(seed))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x).tanh()


def plain(module, *inputs, **settings):
    return module(*inputs, **settings)


def outcome(make, run, x=None):
    """Output, gradients of x and of all parameters, and the default generator's state, after a run and its backward."""
    tt.manual_seed(7)
    module = make()
    x = tt.tensor(normal(3, 4) if x is None else x, requires_grad=True)
    y = run(module, x)
    y.backward(normal(*y.shape, seed=1))
    gradients = [None if p.grad is None else p.grad.data for p in (x, *module.parameters())]
    return [y.data, *gradients, tt.randn(3).data, *(buffer.data for _, buffer in module.named_buffers())]


def assert_same(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.dtype == b.dtype and np.array_equal(a, b))


# ---- the same gradients

DROPOUT = tt.Generator(3)


OUTSIDE = tt.Dropout(0.3, generator=DROPOUT)


def with_own_generator():
    DROPOUT.manual_seed(3)
    return tt.Sequential(
        Counting(), tt.Dropout(0.5, generator=DROPOUT), tt.Dropout(0.3), tt.Dropout(0.5, generator=DROPOUT)
    )


MODULES = {
    "linear and tanh": Counting,
    "dropout": lambda: tt.Sequential(
        Counting(), tt.Dropout(0.5), tt.Linear(4, 2, generator=tt.Generator(1)), tt.Dropout(0.3)
    ),
    "dropout with a generator of its own": with_own_generator,
    "batch norm": lambda: tt.Sequential(Counting(), tt.BatchNorm1d(4), tt.BatchNorm1d(4, momentum=None)),
    "no parameters": tt.Tanh,
    "the input itself": tt.Sequential,
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_outputs_gradients_buffers_and_random_numbers_are_those_of_a_plain_call(make):
    assert_same(outcome(make, tt.checkpoint), outcome(make, plain))


@pytest.mark.parametrize("make", [MODULES["dropout"], with_own_generator], ids=["default", "own"])
def test_random_numbers_drawn_between_do_not_matter(make):
    def run(call):
        def drawing(module, x):
            y = call(module, x)
            tt.randn(5)
            DROPOUT.random(5)
            return y

        return drawing

    assert_same(outcome(make, run(tt.checkpoint)), outcome(make, run(plain)))


def test_generators_stay_where_they_were_before_the_backward():
    module = with_own_generator()
    y = tt.checkpoint(module, tt.tensor(normal(3, 4), requires_grad=True))
    default_generator.random(3)
    before = default_generator.get_state(), DROPOUT.get_state()
    y.sum().backward()
    assert (default_generator.get_state(), DROPOUT.get_state()) == before


def test_gradients_agree_with_finite_differences():
    layer = tt.Linear(4, 4, generator=tt.Generator(0)).double()
    check_grad(lambda x: tt.checkpoint(tt.Sequential(layer, tt.Tanh()), x * 2) * x, normal(3, 4))


def test_a_part_runs_once_forward_and_once_backward():
    module = Counting()
    y = tt.checkpoint(module, tt.tensor(normal(2, 4)))
    assert module.calls == 1 and repr(y.grad_fn) == "<checkpoint>"
    y.sum().backward()
    assert module.calls == 2


def test_gradients_are_added_to_those_that_are_there():
    module, x = Counting(), tt.tensor(normal(2, 4))
    tt.checkpoint(module, x).sum().backward()
    once = module.linear.weight.grad.data.copy()
    tt.checkpoint(module, x).sum().backward()
    assert_array_equal(module.linear.weight.grad.data, once + once)


def test_a_parameter_inside_outside_and_in_two_parts():
    """Tied weights: each place adds its share once, in the same order."""

    def run(call):
        def tied(module, x):
            x = tt.linear(x, module.linear.weight)
            x = call(module, x) + x
            return tt.linear(call(module, x), module.linear.weight) * x

        return tied

    assert_same(outcome(Counting, run(tt.checkpoint)), outcome(Counting, run(plain)))


def test_a_computed_tensor_that_a_function_finds_outside():
    """The gradient goes on through its graph, to which others belong too."""

    def run(call):
        def closing(module, x):
            scale = module.linear(x).exp()
            return call(lambda x: (x * scale).tanh(), x) + scale

        return closing

    assert_same(outcome(Counting, run(tt.checkpoint)), outcome(Counting, run(plain)))


def test_parts_within_parts():
    class Outer(Counting):
        def __init__(self, call):
            super().__init__()
            self.inner, self.dropout, self.call = Counting(seed=1), tt.Dropout(0.4), call

        def forward(self, x):
            return self.call(self.inner, self.dropout(super().forward(x))) * x

    def nested(call):
        return outcome(lambda: Outer(call), call)

    assert_same(nested(tt.checkpoint), nested(plain))


def test_frozen_parameters_and_inputs_without_gradients():
    module, x = Counting(), tt.tensor(normal(2, 4))
    module.linear.weight.requires_grad = False
    tt.checkpoint(module, x).sum().backward()
    assert module.linear.weight.grad is None and x.grad is None
    plain_bias, module.linear.bias.grad = module.linear.bias.grad.data, None
    module(x).sum().backward()
    assert_array_equal(module.linear.bias.grad.data, plain_bias)


def test_where_nothing_needs_a_gradient_it_is_the_plain_call():
    module = Counting()
    module.requires_grad_(False)
    y = tt.checkpoint(module, tt.tensor(normal(2, 4)))
    assert not y.requires_grad and y.grad_fn is None
    module.requires_grad_(True)
    with tt.no_grad():
        y = tt.checkpoint(module, tt.tensor(normal(2, 4)))
    assert not y.requires_grad and y.grad_fn is None


def test_integers_that_come_out_have_no_graph():
    y = tt.checkpoint(lambda x: x.argmax(dim=1), tt.tensor(normal(2, 4), requires_grad=True))
    assert y.dtype == np.int64 and not y.requires_grad


def test_several_inputs_with_and_without_gradients_by_place_and_by_name():
    def part(x, ids, y=None, factor=1.0):
        return (x[ids] * y).exp() * factor

    ids = tt.tensor([1, 0, 1])
    results = []
    for call in (tt.checkpoint, plain):
        x, y = tt.tensor(normal(2, 4), requires_grad=True), tt.tensor(normal(3, 4, seed=1), requires_grad=True)
        call(part, x, ids, y=y, factor=2.0).sum().backward()
        results.append([x.grad.data, y.grad.data])
    assert_same(*results)


def test_the_autocast_and_the_mode_of_the_first_run_hold_in_the_second():
    make = MODULES["dropout"]

    def run(call):
        def low(module, x):
            with tt.autocast("bfloat16"):
                y = call(module, x)
            module.eval()
            return y

        return low

    got = outcome(make, run(tt.checkpoint))
    assert_same(got, outcome(make, run(plain)))
    assert any((a != b).any() for a, b in zip(got, outcome(make, plain)))


def test_the_backward_leaves_modes_as_they_were():
    module = tt.Sequential(Counting(), tt.Dropout(0.5))
    y = tt.checkpoint(module, tt.tensor(normal(2, 4)))
    module.eval()
    with tt.no_grad():
        y.backward(tt.ones(2, 4))
        assert not grad_mode.enabled
    assert module[0].linear.weight.grad is not None
    assert not module[1].training


@pytest.mark.parametrize(("forward", "backward"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_the_backward_leaves_the_autocast_around_it_as_it_was(forward, backward):
    with tt.autocast(forward):
        y = tt.checkpoint(Counting(), tt.tensor(normal(2, 4)))
    with tt.autocast(backward):
        around = autocast_mode.dtype
        y.backward(tt.ones(2, 4))
        assert autocast_mode.dtype == around
    assert autocast_mode.dtype is None


@pytest.mark.parametrize("place", ["around it", "of the file"])
def test_a_function_without_a_name_finds_the_generators_of_the_layers_it_calls(place):
    """They stand outside of it, in a variable of the function around it or of the file."""

    def run(call):
        DROPOUT.manual_seed(3)
        module, inside = Counting(), tt.Dropout(0.3, generator=DROPOUT)
        x = tt.tensor(normal(3, 4), requires_grad=True)
        function = (lambda x: inside(module(x))) if place == "around it" else (lambda x: OUTSIDE(module(x)))
        y = call(function, x)
        DROPOUT.manual_seed(8)  # as whatever comes between the two runs may
        y.backward(normal(3, 4, seed=1))
        return [y.data, x.grad.data, *(p.grad.data for p in module.parameters())]

    assert_same(run(tt.checkpoint), run(plain))


def test_retain_graph_allows_a_second_backward_and_without_it_is_refused_in_words():
    module = Counting()
    y = tt.checkpoint(module, tt.tensor(normal(2, 4))).sum()
    y.backward(retain_graph=True)
    once = module.linear.weight.grad.data.copy()
    y.backward()
    assert module.calls == 3
    assert_array_equal(module.linear.weight.grad.data, once + once)
    module = Counting()
    y = tt.checkpoint(module, tt.tensor(normal(2, 4)))
    y.backward(tt.ones(2, 4))
    with pytest.raises(RuntimeError, match="went through 'checkpoint' a second time"):
        y.backward(tt.ones(2, 4))


def test_an_exception_on_the_way_back_leaves_everything_as_it_was():
    class Failing(Counting):
        def forward(self, x):
            if self.calls:
                raise ZeroDivisionError
            return super().forward(x)

    module = tt.Sequential(Failing(), tt.Dropout(0.5))
    y = tt.checkpoint(module, tt.tensor(normal(2, 4)))
    module.eval()
    before = default_generator.get_state()
    with tt.no_grad(), pytest.raises(ZeroDivisionError):
        y.backward(tt.ones(2, 4))
    assert grad_mode.enabled and not module[1].training and default_generator.get_state() == before


# ---- what is refused


def test_a_result_that_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="checkpoint needs halves to return one tensor, but got a tuple"):
        tt.checkpoint(halves, tt.ones(4))


def halves(x):
    return x.split(2)


def test_an_input_that_a_run_changes_is_refused():
    attention = tt.MultiHeadAttention(4, 1, generator=tt.Generator(0))
    with pytest.raises(
        TypeError, match="runs MultiHeadAttention twice, so it takes tensors and constants, but got a KVCache"
    ):
        tt.checkpoint(attention, tt.ones(1, 1, 4), is_causal=True, cache=tt.KVCache(4))


def test_a_part_that_changes_between_its_runs_is_noticed():
    rows = [3, 2]
    y = tt.checkpoint(lambda x: x[: rows.pop(0)], tt.ones(4, requires_grad=True))
    with pytest.raises(RuntimeError, match=r"gave shape \(3,\) at first and \(2,\) when it ran again"):
        y.sum().backward()


# ---- blocks that recompute themselves


def gpt(n_layer=3, **settings):
    config = tt.GPTConfig(
        **{
            "vocab_size": 11,
            "n_positions": 16,
            "n_embd": 16,
            "n_head": 2,
            "dropout": 0.1,
            "n_layer": n_layer,
            **settings,
        }
    )
    return tt.GPT(config, generator=tt.Generator(0))


def ids_of(batch=2, time=12, vocab=11):
    return tt.tensor(np.random.default_rng(0).integers(0, vocab, (batch, time)))


def training_step(model, pad_id=None):
    """The loss, then all gradients, of one batch; and what the generator says next."""
    tt.manual_seed(5)
    loss, _ = tt.next_token_loss(model, ids_of(), pad_id)
    loss.backward()
    return [loss.data, *(p.grad.data for p in model.parameters()), tt.randn(2).data]


@pytest.mark.parametrize("pad_id", [None, 3])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize(
    "settings", [{}, {"positions": "rotary", "norm": "rms_norm", "mlp": "swiglu", "n_kv_head": 1}], ids=str
)
def test_a_gpt_that_recomputes_its_blocks_has_the_same_gradients(settings, dtype, pad_id):
    with tt.autocast(dtype):
        wanted = training_step(gpt(**settings), pad_id)
        assert_same(training_step(tt.recompute_blocks(gpt(**settings)), pad_id), wanted)


def nodes(output):
    """How often each kind of node is between an output and its leaves."""
    waiting, found = [output.grad_fn], {}
    while waiting:
        node = waiting.pop()
        if node not in found and hasattr(node, "inputs"):
            found[node] = type(node)
            waiting += [edge[0] for edge in node.inputs if edge is not None]
    return list(found.values()).count(Recomputation)


def test_blocks_recompute_only_in_training_while_recording_and_only_where_asked():
    model = gpt()
    ids = ids_of()
    assert nodes(model(ids)) == 0
    assert tt.recompute_blocks(model) is model
    assert nodes(model(ids)) == 3
    assert nodes(model.eval()(ids)) == 0
    model.train()
    with tt.no_grad():
        assert not model(ids).requires_grad
    tt.recompute_blocks(model, enabled=False)
    assert nodes(model(ids)) == 0
    assert list(model.state_dict()) == list(gpt().state_dict())


def test_generation_with_a_cache_goes_on_in_a_model_that_recomputes():
    model = gpt(dropout=0.0)
    prompt = ids_of(1, 4)
    wanted = model.generate(prompt, 5, generator=tt.Generator(0)).tolist()
    assert tt.recompute_blocks(model).generate(prompt, 5, generator=tt.Generator(0)).tolist() == wanted


def test_a_model_without_blocks_is_told():
    with pytest.raises(
        ValueError, match="needs a model with blocks that are Recomputable, such as GPT, but Linear has none"
    ):
        tt.recompute_blocks(tt.Linear(2, 2))


# ---- the memory


def peak(model, ids):
    """The most memory, in bytes, that a loss and its gradients take beyond the model."""
    gc.collect()
    tracemalloc.start()
    try:
        tt.next_token_loss(model, ids)[0].backward()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_deep_model_takes_a_fraction_of_the_memory():
    ids = ids_of(4, 64)
    shape = {"n_layer": 12, "n_embd": 32, "n_positions": 64}
    plainly, recomputing = peak(gpt(**shape), ids), peak(tt.recompute_blocks(gpt(**shape)), ids)
    assert recomputing < plainly / 4


def test_each_further_layer_takes_no_more_than_its_input_and_its_gradients():
    ids = ids_of(4, 64)
    shape = {"n_embd": 32, "n_positions": 64}
    few, many = (peak(tt.recompute_blocks(gpt(n_layer=n, **shape)), ids) for n in (4, 12))
    layer = sum(p.data.nbytes for p in gpt(n_layer=1, **shape).h[0].parameters())
    stream = 4 * 63 * 32 * 4  # B * (T - 1) * C float32
    assert (many - few) / 8 < 1.1 * (layer + stream)


def test_the_input_is_let_go_after_the_backward():
    x = tt.tensor(normal(2, 4), requires_grad=True)
    middle = x * 2
    seen = weakref.ref(middle)
    y = tt.checkpoint(Counting(), middle)
    del middle
    assert seen() is not None
    y.sum().backward()
    assert seen() is None
