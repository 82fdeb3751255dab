"""PyTorch beside us, live: outputs and gradients on shapes drawn at random, and weights that travel both ways."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.testing import assert_close

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.oracle
drawn = settings(deadline=None, derandomize=True, max_examples=20, database=None)
sizes, seeds = st.integers(1, 6), st.integers(0, 2**16)
functional = torch.nn.functional


@pytest.fixture(autouse=True)
def same_initial_weights_every_time():
    torch.manual_seed(0)
    tt.manual_seed(0)


def normal(seed, *shape, scale=1.0):
    """Standard normal float64 numbers, times `scale`."""
    return scale * np.random.default_rng(seed).standard_normal(shape)


def compare(ours, theirs, *arrays):
    """Equal outputs, and equal gradients of all floating point inputs under one random cotangent."""
    own = [tt.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    other = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    y, expected = ours(*own), theirs(*other)
    assert_close(y, expected.detach().numpy(), 1e-10, 1e-11)
    g = normal(99, *y.shape)
    y.backward(g)
    expected.backward(torch.tensor(g))
    for mine, leaf in zip(own, other):
        if leaf.requires_grad:
            assert_close(mine.grad, leaf.grad.numpy(), 1e-9, 1e-10)


def same_output(ours, theirs, *inputs, **masks):
    """Equal outputs of two modules in float32; `masks` are NumPy arrays by the name that both know."""
    own = ours(*map(tt.tensor, inputs), **{name: tt.tensor(mask) for name, mask in masks.items()})
    other = theirs(*map(torch.tensor, inputs), **{name: torch.tensor(mask) for name, mask in masks.items()})
    other = other[0] if isinstance(other, tuple) else other
    assert_close(own, other.detach().numpy(), 1e-4, 1e-5)


def to_torch(state_dict):
    return {name: torch.tensor(value.numpy()) for name, value in state_dict.items()}


# ---- functions


PAIRS = {
    "relu": (tt.relu, torch.relu),
    "sigmoid": (tt.sigmoid, torch.sigmoid),
    "tanh": (tt.tanh, torch.tanh),
    "silu": (tt.silu, functional.silu),
    "gelu": (tt.gelu, functional.gelu),
    "gelu_tanh": (lambda x: tt.gelu(x, "tanh"), lambda x: functional.gelu(x, approximate="tanh")),
    "erf": (tt.erf, torch.erf),
}


@pytest.mark.parametrize("name", PAIRS)
@drawn
@given(shape=st.lists(st.integers(0, 4), max_size=3), scale=st.sampled_from([0.1, 3.0, 40.0]), seed=seeds)
def test_activation_agrees(name, shape, scale, seed):
    compare(*PAIRS[name], np.asarray(normal(seed, *shape, scale=scale)))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@drawn
@given(shape=st.lists(sizes, min_size=1, max_size=3), scale=st.sampled_from([1.0, 1000.0]), seed=seeds, data=st.data())
def test_softmax_agrees(name, shape, scale, seed, data):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    ours, theirs = getattr(tt, name), getattr(torch, name)
    compare(lambda x: ours(x, dim), lambda x: theirs(x, dim), normal(seed, *shape, scale=scale))


@drawn
@given(lead=st.lists(st.integers(0, 4), max_size=3), n_in=sizes, n_out=sizes, bias=st.booleans(), seed=seeds)
def test_linear_agrees(lead, n_in, n_out, bias, seed):
    arrays = [normal(seed, *lead, n_in), normal(seed + 1, n_out, n_in), normal(seed + 2, n_out)]
    compare(tt.linear, functional.linear, *arrays[: 3 if bias else 2])


@drawn
@given(ids=st.lists(st.integers(0, 4), min_size=1, max_size=8), padding=st.sampled_from([None, 0, 4, -1]), seed=seeds)
def test_embedding_agrees(ids, padding, seed):
    compare(
        lambda ids, weight: tt.embedding(ids, weight, padding),
        lambda ids, weight: functional.embedding(ids, weight, padding),
        np.array(ids),
        normal(seed, 5, 3),
    )


@drawn
@given(lead=st.lists(sizes, max_size=2), shape=st.lists(st.integers(2, 5), min_size=1, max_size=2), seed=seeds)
def test_layer_norm_agrees(lead, shape, seed):
    compare(
        lambda x, weight, bias: tt.layer_norm(x, shape, weight, bias),
        lambda x, weight, bias: functional.layer_norm(x, shape, weight, bias),
        normal(seed, *lead, *shape, scale=3.0) + 1,
        normal(seed + 1, *shape),
        normal(seed + 2, *shape),
    )


@drawn
@given(lead=st.lists(sizes, max_size=2), n=sizes, s=sizes, d=sizes, kind=st.sampled_from("-cbf"), seed=seeds)
def test_scaled_dot_product_attention_agrees(lead, n, s, d, kind, seed):
    arrays = [normal(seed, *lead, n, d), normal(seed + 1, *lead, s, d), normal(seed + 2, *lead, s, d + 1)]
    mask = normal(seed + 3, n, s)
    arrays += {"b": [mask > 0], "f": [mask]}.get(kind, [])
    causal = kind == "c"

    def theirs(*inputs):
        return functional.scaled_dot_product_attention(*inputs, is_causal=causal)

    compare(lambda *inputs: tt.scaled_dot_product_attention(*inputs, is_causal=causal), theirs, *arrays)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"])
@drawn
@given(shape=st.lists(sizes, max_size=3), seed=seeds)
def test_elementwise_loss_agrees(name, reduction, shape, seed):
    x, target = (np.asarray(np.random.default_rng(seed + i).random(shape)) for i in range(2))
    compare(
        lambda x: getattr(tt, name)(x, tt.tensor(target), reduction=reduction),
        lambda x: getattr(functional, name)(x, torch.tensor(target), reduction=reduction),
        x,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@drawn
@given(n=sizes, classes=sizes, more=st.lists(sizes, max_size=2), scale=st.sampled_from([1.0, 300.0]), seed=seeds)
def test_cross_entropy_agrees(reduction, n, classes, more, scale, seed):
    target = np.random.default_rng(seed).integers(0, classes, (n, *more))
    target[np.random.default_rng(seed + 1).random(target.shape) < 0.3] = -7
    target.flat[0] = 0  # the mean needs one that counts
    compare(
        lambda x: tt.cross_entropy(x, tt.tensor(target), ignore_index=-7, reduction=reduction),
        lambda x: functional.cross_entropy(x, torch.tensor(target), ignore_index=-7, reduction=reduction),
        normal(seed, n, classes, *more, scale=scale),
    )


# ---- convolutions, pooling, batch normalisation


@drawn
@given(axes=st.sampled_from([1, 2]), batch=st.integers(1, 3), groups=st.integers(1, 3), seed=seeds, data=st.data())
def test_convolution_agrees(axes, batch, groups, seed, data):
    def each(least, most):
        return data.draw(st.one_of(st.integers(least, most), st.tuples(*[st.integers(least, most)] * axes)))

    padding = data.draw(st.sampled_from(["numbers", "valid", "same"]))
    widths = [1, 3] if padding == "same" else [1, 2, 3]  # PyTorch warns of even kernels, which it pads twice
    kernel = data.draw(st.tuples(*[st.sampled_from(widths)] * axes))
    settings = {
        "stride": 1 if padding == "same" else each(1, 3),
        "padding": each(0, 3) if padding == "numbers" else padding,
        "dilation": each(1, 2),
        "groups": groups,
    }
    sizes_of_images = data.draw(st.tuples(*[st.integers(5, 8)] * axes))
    depth, filters = data.draw(st.integers(1, 3)), groups * data.draw(st.integers(1, 3))
    arrays = [normal(seed, batch, groups * depth, *sizes_of_images), normal(seed + 1, filters, depth, *kernel)]
    arrays += [normal(seed + 2, filters)] if data.draw(st.booleans()) else []
    ours, theirs = (getattr(library, f"conv{axes}d") for library in (tt, functional))
    compare(lambda *inputs: ours(*inputs, **settings), lambda *inputs: theirs(*inputs, **settings), *arrays)


@pytest.mark.parametrize("kind", ["max", "avg"])
@drawn
@given(axes=st.sampled_from([1, 2]), kernel=st.integers(1, 4), stride=st.integers(0, 3), seed=seeds, data=st.data())
def test_pooling_agrees(kind, axes, kernel, stride, seed, data):
    padding = data.draw(st.integers(0, kernel // 2))
    shape = data.draw(st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(4, 7)] * axes))
    ours, theirs = (getattr(library, f"{kind}_pool{axes}d") for library in (tt, functional))
    x = np.maximum(normal(seed, *shape), 0)  # with ties, as after a ReLU
    compare(lambda x: ours(x, kernel, stride or None, padding), lambda x: theirs(x, kernel, stride or None, padding), x)


@pytest.mark.parametrize("training", [True, False])
@drawn
@given(shape=st.lists(st.integers(2, 5), min_size=2, max_size=4), momentum=st.sampled_from([0.1, 0.5, 1.0]), seed=seeds)
def test_batch_norm_agrees(training, shape, momentum, seed):
    statistics = normal(seed + 3, shape[1]), 0.5 + normal(seed + 4, shape[1]) ** 2
    own, other = ([library.tensor(array) for array in statistics] for library in (tt, torch))
    compare(
        lambda *inputs: tt.batch_norm(inputs[0], *own, *inputs[1:], training, momentum),
        lambda *inputs: functional.batch_norm(inputs[0], *other, *inputs[1:], training, momentum),
        normal(seed, *shape, scale=3.0) + 1,
        normal(seed + 1, shape[1]),
        normal(seed + 2, shape[1]),
    )
    for mine, theirs in zip(own, other):
        assert_close(mine, theirs.numpy(), 1e-10, 1e-11)


# ---- modules: their weights travel both ways


def gpt_pair():
    """The GPT of benchmarks/torch_gpt.py, and ours of the same shape."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import torch_gpt
    finally:
        sys.path.remove(folder)
    config = tt.GPTConfig(vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=3)
    return tt.GPT(config), torch_gpt.GPT(config)


def module_pairs():
    ids, vectors = np.array([[1, 4, 0], [2, 2, 3]]), normal(0, 2, 3, 12).astype(np.float32)
    return {
        "linear": (tt.Linear(12, 5), torch.nn.Linear(12, 5), vectors),
        "linear_no_bias": (tt.Linear(12, 5, bias=False), torch.nn.Linear(12, 5, bias=False), vectors),
        "embedding": (tt.Embedding(5, 4, padding_idx=2), torch.nn.Embedding(5, 4, padding_idx=2), ids),
        "layer_norm": (tt.LayerNorm(12), torch.nn.LayerNorm(12), vectors),
        "layer_norm_2d": (tt.LayerNorm((3, 12)), torch.nn.LayerNorm((3, 12)), vectors),
        "gpt": (*gpt_pair(), ids),
        "sequential": (
            tt.Sequential(tt.Linear(12, 4), tt.GELU(), tt.Linear(4, 2)),
            torch.nn.Sequential(torch.nn.Linear(12, 4), torch.nn.GELU(), torch.nn.Linear(4, 2)),
            vectors,
        ),
    }


MODULES = ["linear", "linear_no_bias", "embedding", "layer_norm", "layer_norm_2d", "gpt", "sequential"]


@pytest.mark.parametrize("name", MODULES)
def test_weights_travel_to_torch(name):
    ours, theirs, x = module_pairs()[name]
    for i, parameter in enumerate(ours.parameters()):  # ones and zeros would not show whether they were copied
        parameter.data[...] = normal(i, *parameter.shape, scale=0.5)
    theirs.load_state_dict(to_torch(ours.state_dict()))
    same_output(ours, theirs, x)


@pytest.mark.parametrize("name", MODULES)
def test_weights_travel_from_torch(name):
    ours, theirs, x = module_pairs()[name]
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours.load_state_dict(theirs.state_dict())
    same_output(ours, theirs, x)


def image_networks(library):
    """Every layer of module 09, by name, in either library."""
    nn = tt if library is tt else torch.nn
    return {
        "images": nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, (3, 1), padding="same", groups=4, bias=False), nn.BatchNorm2d(8, momentum=None), nn.ReLU(),
            nn.AvgPool2d(2, stride=1, padding=1), nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5, affine=False),
        ),
        "signals": nn.Sequential(
            nn.Conv1d(3, 6, 5, dilation=2), nn.BatchNorm1d(6, eps=1e-2), nn.ReLU(), nn.MaxPool1d(3, 2, 1),
            nn.Conv1d(6, 6, 2, groups=6), nn.BatchNorm1d(6, track_running_stats=False), nn.AvgPool1d(2),
        ),
    }  # fmt: skip


INPUTS = {"images": normal(0, 4, 3, 8, 8).astype(np.float32), "signals": normal(0, 4, 3, 20).astype(np.float32)}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("to_ours", [True, False])
def test_networks_of_convolutions_travel_and_agree_in_both_modes(name, to_ours):
    ours, theirs = (image_networks(library)[name] for library in (tt, torch))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [tuple(v.shape) for v in ours.state_dict().values()] == [
        tuple(v.shape) for v in theirs.state_dict().values()
    ]
    teacher, convert = (theirs, torch.tensor) if to_ours else (ours, tt.tensor)
    for seed in (1, 2):  # statistics that are not those at the start
        teacher(convert(normal(seed, *INPUTS[name].shape, scale=2.0).astype(np.float32)))
    if to_ours:
        ours.load_state_dict(theirs.state_dict())
    else:
        theirs.load_state_dict(to_torch(ours.state_dict()))
    for mode in (False, True, False):  # training moves the statistics that evaluation then uses
        same_output(ours.train(mode), theirs.train(mode), INPUTS[name])
    for key, value in theirs.state_dict().items():
        assert str(ours.state_dict()[key].dtype) == str(value.dtype).removeprefix("torch.")
        assert_close(ours.state_dict()[key], value.numpy(), 1e-5, 1e-6, what=key)


def stacked(module):
    """The state dict of our MultiHeadAttention with the names of torch.nn.MultiheadAttention."""
    state = to_torch(module.state_dict())
    for kind in ("weight", "bias"):
        parts = [state.pop(f"{name}_proj.{kind}") for name in "qkv" if f"{name}_proj.{kind}" in state]
        if parts:
            state[f"in_proj_{kind}"] = torch.cat(parts)
    return state


MASKS = {
    "no_mask": {},
    "causal": {"attn_mask": np.triu(np.ones((5, 5), bool), 1)},
    "added": {"attn_mask": normal(5, 5, 5).astype(np.float32)},
    "padding": {"key_padding_mask": np.arange(5) >= np.array([[5], [3]])},
}


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("to_ours", [True, False])
def test_multi_head_attention_weights_travel(to_ours, bias, masks):
    ours = tt.MultiHeadAttention(12, 3, bias=bias)
    theirs = torch.nn.MultiheadAttention(12, 3, bias=bias, batch_first=True)
    if to_ours:
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        ours.load_state_dict(theirs.state_dict())
    else:
        for i, parameter in enumerate(ours.parameters()):
            parameter.data[...] = normal(i, *parameter.shape, scale=0.5)
        theirs.load_state_dict(stacked(ours))
    x = normal(0, 2, 5, 12).astype(np.float32)
    numbers = {name: torch.tensor(mask) for name, mask in masks.items()}
    expected, weights = theirs(*[torch.tensor(x)] * 3, average_attn_weights=False, **numbers)
    y, own_weights = ours(tt.tensor(x), need_weights=True, **{name: tt.tensor(mask) for name, mask in masks.items()})
    assert_close(y, expected.detach().numpy(), 1e-4, 1e-5)
    assert_close(own_weights, weights.detach().numpy(), 1e-4, 1e-5)
    same_output(ours, lambda x, **kwargs: theirs(x, x, x, **kwargs), x, **masks)


def test_multi_head_attention_inside_a_model_finds_its_stacked_weights():
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.MultiheadAttention(4, 2, batch_first=True))
    ours = tt.Sequential(tt.Linear(3, 4), tt.MultiHeadAttention(4, 2))
    ours.load_state_dict(theirs.state_dict())
    rows = theirs[1].in_proj_weight.detach().numpy()
    assert_close(ours[1].k_proj.weight, rows[4:8])


# ---- optimizers


OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.1}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {"lr": 0.1, "weight_decay": 0.01}),
    "adamw": ("AdamW", {"lr": 0.1}),
}
SHAPES = [(3, 2), (4,)]


class Training:
    """One optimizer of one library on parameters of its own, step by step."""

    def __init__(self, library, kind, options, start):
        parameter, optimizers = (tt.Parameter, tt) if library is tt else (torch.nn.Parameter, torch.optim)
        self.library = library
        self.parameters = [parameter(library.tensor(a)) for a in start]
        self.optimizer = getattr(optimizers, kind)(self.parameters, **options)

    def step(self, grads):
        for parameter, grad in zip(self.parameters, grads):
            parameter.grad = self.library.tensor(grad)
        self.optimizer.step()

    def values(self):
        return [parameter.detach().numpy().copy() for parameter in self.parameters]


def gradients(seed):
    return [normal(seed + 10 * i, *shape) for i, shape in enumerate(SHAPES)]


def converted(state_dict, convert):
    """An optimizer's state dict with `convert` applied to every array or tensor in its state."""
    state = {
        number: {name: convert(value) if np.ndim(value) else value for name, value in entries.items()}
        for number, entries in state_dict["state"].items()
    }
    return {"state": state, "param_groups": state_dict["param_groups"]}


every_optimizer = pytest.mark.parametrize(("kind", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS)


def go_on_together(one, other):
    """Three more steps give the same parameters."""
    for seed in (20, 40, 60):
        one.step(gradients(seed))
        other.step(gradients(seed))
        for value, expected in zip(one.values(), other.values()):
            assert_close(value, expected, 1e-9, 1e-12)


@every_optimizer
def test_training_goes_on_from_the_state_of_torch(kind, options):
    theirs = Training(torch, kind, options, gradients(1))
    for seed in (2, 3, 4):
        theirs.step(gradients(seed))
    ours = Training(tt, kind, {"lr": 99.0}, theirs.values())  # the settings are in the state dict, too
    ours.optimizer.load_state_dict(converted(theirs.optimizer.state_dict(), lambda tensor: tensor.numpy().copy()))
    go_on_together(ours, theirs)


@every_optimizer
def test_torch_goes_on_from_our_state(kind, options):
    ours = Training(tt, kind, options, gradients(1))
    for seed in (2, 3, 4):
        ours.step(gradients(seed))
    theirs = Training(torch, kind, {"lr": 99.0}, ours.values())
    theirs.optimizer.load_state_dict(converted(ours.optimizer.state_dict(), torch.tensor))
    go_on_together(theirs, ours)


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_adam_state_dict_has_the_structure_of_torch(kind):
    states = []
    for library in (tt, torch):
        training = Training(library, kind, {}, gradients(1))
        training.step(gradients(2))
        training.step(gradients(3))
        states.append(training.optimizer.state_dict())
    own, expected = states
    assert own.keys() == expected.keys()
    assert own["state"].keys() == expected["state"].keys()
    for number, entries in expected["state"].items():
        assert own["state"][number].keys() == entries.keys()
        for name, value in entries.items():
            assert_close(own["state"][number][name], value.numpy(), 1e-10, 1e-14)
    for group, theirs in zip(own["param_groups"], expected["param_groups"]):
        assert group == {name: theirs[name] for name in group}


def test_a_loaded_state_is_saved_again_before_the_first_step():
    theirs = Training(torch, "SGD", {"momentum": 0.9}, gradients(1))
    theirs.step(gradients(2))
    ours = Training(tt, "SGD", {"momentum": 0.9}, theirs.values())
    ours.optimizer.load_state_dict(theirs.optimizer.state_dict())
    saved = ours.optimizer.state_dict()["state"]
    for number, entries in theirs.optimizer.state_dict()["state"].items():
        assert_close(saved[number]["momentum_buffer"], entries["momentum_buffer"].numpy())


# ---- initial weights: both libraries against the closed form


def uniform_within(weight, bound):
    """Whether 10,000 and more numbers look like U(-bound, bound): its support, mean and standard deviation."""
    assert weight.size >= 10_000
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert abs(weight.mean()) < 5 * weight.std() / np.sqrt(weight.size)
    assert_close(weight.std(), bound / np.sqrt(3), rtol=0.02)


def initial(module):
    """Its parameters as arrays by name, from a fixed seed."""
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}


def seeded(library):
    if library is torch:
        torch.manual_seed(0)
        return {}
    return {"generator": tt.Generator(0)}


libraries = pytest.mark.parametrize("library", [tt, torch], ids=["tinytorch", "torch"])


@libraries
def test_linear_starts_uniform_within_one_over_the_root_of_its_inputs(library):
    make = torch.nn.Linear if library is torch else tt.Linear
    weights = initial(make(100, 20_000, **seeded(library)))
    uniform_within(weights["weight"], 0.1)
    uniform_within(weights["bias"], 0.1)


@libraries
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_start_uniform_within_one_over_the_root_of_what_a_filter_sees(library, groups):
    nn = torch.nn if library is torch else tt
    for module, seen in (
        (nn.Conv2d(8, 10_000, (3, 5), groups=groups, **seeded(library)), 8 // groups * 15),
        (nn.Conv1d(16, 10_000, 4, groups=groups, **seeded(library)), 16 // groups * 4),
    ):
        weights = initial(module)
        uniform_within(weights["weight"], 1 / np.sqrt(seen))
        uniform_within(weights["bias"], 1 / np.sqrt(seen))


@libraries
def test_batch_norm_starts_as_the_identity_that_saw_nothing(library):
    nn = torch.nn if library is torch else tt
    state = {name: value.numpy() for name, value in nn.BatchNorm2d(4).state_dict().items()}
    for name, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
        assert_close(state[name], np.full(4, value, np.float32), 0, 0)
    assert (state["num_batches_tracked"].shape, state["num_batches_tracked"].dtype) == ((), np.int64)
    assert state["num_batches_tracked"] == 0


@libraries
def test_attention_starts_as_glorot_and_bengio_over_the_stacked_projections(library):
    make = torch.nn.MultiheadAttention if library is torch else tt.MultiHeadAttention
    weights = initial(make(120, 3, **seeded(library)))
    projections = ["in_proj_weight"] if library is torch else ["q_proj.weight", "k_proj.weight", "v_proj.weight"]
    for name in projections:
        uniform_within(weights[name], np.sqrt(6 / (120 + 3 * 120)))
    uniform_within(weights["out_proj.weight"], 1 / np.sqrt(120))
    assert not any(weights[name].any() for name in weights if name.endswith("bias"))


@libraries
def test_embedding_starts_standard_normal_with_zeros_at_the_padding(library):
    make = torch.nn.Embedding if library is torch else tt.Embedding
    weight = initial(make(400, 100, padding_idx=7, **seeded(library)))["weight"]
    assert not weight[7].any()
    rest = np.delete(weight, 7, axis=0)
    assert abs(rest.mean()) < 5 / np.sqrt(rest.size)
    assert_close(rest.std(), 1.0, rtol=0.02)
    assert_close(np.mean(np.abs(rest) < 1), 0.6827, atol=0.01)  # one standard deviation of a normal distribution


@libraries
def test_layer_norm_starts_as_the_identity(library):
    make = torch.nn.LayerNorm if library is torch else tt.LayerNorm
    weights = initial(make(5))
    assert_close(weights["weight"], np.ones(5), 0, 0)
    assert_close(weights["bias"], np.zeros(5), 0, 0)
