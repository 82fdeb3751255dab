"""Modules find what is inside them and load it whole or not at all; Linear and Dropout do what their formulas say."""

import math
import re

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.layers import linear_composed
from tinytorch.testing import assert_close, check_grad


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def seeded(seed=0):
    return tt.Generator(seed)


class Affine(tt.Module):
    """One parameter of each kind of attribute, a buffer, and nothing where there is nothing."""

    def __init__(self):
        self.scale = tt.Parameter([1.0, 2.0])
        self.register_buffer("count", tt.tensor([3, 4]))
        self.missing = None
        self.shift = tt.Parameter([0.5, -0.5])
        self.name = "affine"

    def forward(self, x):
        return x * self.scale + self.shift


class Net(tt.Module):
    def __init__(self):
        self.first = tt.Linear(2, 3, generator=seeded())
        self.temperature = tt.Parameter([1.0])
        self.blocks = tt.ModuleList([Affine(), tt.Sequential(tt.Linear(3, 2, generator=seeded(1)), tt.Dropout(0.5))])

    def forward(self, x):
        return self.blocks[1](self.first(x)) * self.temperature


NET_PARAMETERS = [
    "temperature",
    "first.weight",
    "first.bias",
    "blocks.0.scale",
    "blocks.0.shift",
    "blocks.1.0.weight",
    "blocks.1.0.bias",
]


# ---- what is inside a module


@pytest.mark.exercise("ex-03-5", points=2)
def test_parameters_have_dotted_names_in_order_of_assignment_own_ones_first():
    assert [name for name, _ in Net().named_parameters()] == NET_PARAMETERS


def test_parameters_are_the_objects_that_were_assigned():
    net = Net()
    named = dict(net.named_parameters())
    assert named["first.weight"] is net.first.weight
    assert [id(p) for p in net.parameters()] == [id(p) for p in named.values()]


@pytest.mark.exercise("ex-03-5", points=2)
def test_buffers_are_saved_and_not_learned():
    net = Net()
    assert [name for name, _ in net.named_buffers()] == ["blocks.0.count"]
    assert "blocks.0.count" in net.state_dict()
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.exercise("ex-03-4", points=2)
def test_modules_come_with_dotted_names_the_whole_first():
    names = [name for name, _ in Net().named_modules()]
    assert names == ["", "first", "blocks", "blocks.0", "blocks.1", "blocks.1.0", "blocks.1.1"]


def test_a_replaced_parameter_takes_the_place_of_the_old():
    net = Net()
    net.first.weight = tt.Parameter(np.ones((3, 2), np.float32))
    assert dict(net.named_parameters())["first.weight"] is net.first.weight
    assert len(list(net.parameters())) == len(NET_PARAMETERS)


@pytest.mark.exercise("ex-03-4", points=2)
def test_a_shared_module_comes_once():
    layer = tt.Linear(2, 2)
    assert [name for name, _ in tt.Sequential(layer, tt.ReLU(), layer).named_modules()] == ["", "0", "1"]


@pytest.mark.exercise("ex-03-5", points=2)
def test_a_parameter_of_two_modules_comes_once():
    first, second = tt.Linear(2, 2), tt.Linear(2, 2)
    second.weight = first.weight
    names = [name for name, _ in tt.Sequential(first, second).named_parameters()]
    assert names == ["0.weight", "0.bias", "1.bias"]


def test_a_shared_parameter_is_learned_once_and_saved_under_both_names():
    pair = tt.Sequential(tt.Linear(3, 3), tt.Linear(3, 3))
    pair[1].weight = pair[0].weight
    assert [name for name, _ in pair.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert list(pair.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    y = pair(tt.tensor(random(1, 3).astype(np.float32)))
    y.sum().backward()
    assert pair[0].weight.grad is pair[1].weight.grad


@pytest.mark.parametrize("container", [list, tuple])
def test_a_list_of_modules_is_refused_because_its_parameters_would_be_missed(container):
    class Careless(tt.Module):
        def __init__(self):
            self.parts = container([tt.Linear(2, 2)])

    with pytest.raises(TypeError, match=r"Careless\.parts is a .*missed.*Keep modules in a ModuleList"):
        list(Careless().parameters())


def test_a_module_without_forward_says_so():
    class Empty(tt.Module):
        pass

    with pytest.raises(TypeError, match="Empty needs a forward method"):
        Empty()(1)


def test_a_call_passes_arguments_to_forward():
    class Sum(tt.Module):
        def forward(self, x, *, times):
            return x * times

    assert Sum()(tt.tensor([2.0]), times=3).item() == 6


def test_a_parameter_is_a_leaf_that_wants_its_gradient():
    parameter = tt.Parameter([1.0, 2.0])
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert not tt.Parameter([1.0], requires_grad=False).requires_grad


def test_a_parameter_of_integers_is_refused():
    with pytest.raises(TypeError, match="Only floating point tensors have gradients"):
        tt.Parameter([1, 2])


# ---- changing all of it


@pytest.mark.exercise("ex-03-6", points=1)
def test_train_and_eval_reach_every_module():
    net = Net()
    assert all(module.training for module in net.modules())
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert net.train() is net
    assert all(module.training for module in net.modules())


@pytest.mark.exercise("ex-03-6", points=1)
def test_train_of_a_part_leaves_the_rest():
    net = Net().eval()
    net.blocks[1].train()
    assert [name for name, module in net.named_modules() if module.training] == ["blocks.1", "blocks.1.0", "blocks.1.1"]


def test_apply_visits_every_module_once():
    net, visited = Net(), []
    assert net.apply(visited.append) is net
    assert sorted(map(id, visited)) == sorted(map(id, net.modules()))


def test_requires_grad_freezes_and_thaws():
    net = Net().requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    net.first.requires_grad_()
    net.eval()(tt.ones(1, 2)).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is not None] == ["first.weight", "first.bias"]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_forgets_or_fills(set_to_none):
    net = Net()
    net(tt.ones(1, 2)).sum().backward()
    net.zero_grad(set_to_none=set_to_none)
    assert net.blocks[0].scale.grad is None  # it took no part
    if set_to_none:
        assert all(parameter.grad is None for parameter in net.parameters())
    else:
        assert_close(net.first.weight.grad, np.zeros((3, 2)), 0, 0)


@pytest.mark.parametrize("positional", [True, False])
def test_to_a_dtype_moves_floats_in_place_and_leaves_integers(positional):
    net = Net()
    weight = net.first.weight
    net(tt.ones(1, 2)).sum().backward()
    assert (net.to(tt.float64) if positional else net.to(dtype=tt.float64)) is net
    assert net.first.weight is weight
    assert weight.shape == (3, 2)
    assert {parameter.dtype for parameter in net.parameters()} == {tt.float64}
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert net.blocks[0].count.dtype == tt.int64
    assert net.eval()(tt.ones(1, 2, dtype=tt.float64)).dtype == tt.float64


def test_to_a_narrower_dtype_and_back_rounds():
    net = tt.Linear(1, 1)
    net.weight.data[...] = 1 + 2.0**-12
    assert_close(net.to(dtype=np.dtype(np.float16)).to(dtype=tt.float32).weight, [[1.0]], 0, 0)


def test_to_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match=r"A device is 'cpu' or 'cuda', but got 'tpu'"):
        Net().to(device="tpu")


# ---- saving and loading


def snapshot(module):
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


def assert_same_state(module, expected):
    state = snapshot(module)
    assert state.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(state[name], values, err_msg=name)


def other_state():
    """A state dict that fits Net and differs from a fresh one everywhere."""
    return {name: values + 1 for name, values in snapshot(Net()).items()}


def test_state_dict_shares_memory_and_has_no_graph():
    net = Net()
    state = net.state_dict()
    net.first.weight.data[0, 0] = 42.0
    assert state["first.weight"][0, 0].item() == 42
    assert not any(tensor.requires_grad for tensor in state.values())


@pytest.mark.exercise("ex-03-9", points=4)
@pytest.mark.parametrize("convert", [np.asarray, tt.tensor, lambda a: a.astype(np.float64)])
def test_a_state_dict_is_copied_into_the_same_arrays(convert):
    net, state = Net(), other_state()
    array = net.first.weight.data
    report = net.load_state_dict({name: convert(values) for name, values in state.items()})
    assert_same_state(net, state)
    assert net.first.weight.data is array
    assert report == ([], [])
    state["first.weight"][...] = 0
    assert net.first.weight.data.any()


@pytest.mark.exercise("ex-03-9", points=4)
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", ["first.weight", "temperature", "blocks.0.count", "blocks.1.0.bias"])
def test_a_wrong_shape_is_named_and_nothing_is_loaded(name, strict):
    net, state = Net(), other_state()
    before = snapshot(net)
    state[name] = np.zeros((5, 5), np.float32)
    with pytest.raises(ValueError, match=rf"{name} needs shape \({before[name].shape[0]}.*has \(5, 5\)"):
        net.load_state_dict(state, strict=strict)
    assert_same_state(net, before)


@pytest.mark.exercise("ex-03-9", points=4)
@pytest.mark.parametrize(
    ("removed", "added", "message"),
    [
        ("first.weight", "first.weights", r"missing \['first.weight'\], unexpected \['first.weights'\]"),
        ("temperature", None, r"missing \['temperature'\], unexpected nothing"),
        (None, "blocks.2.scale", r"missing nothing, unexpected \['blocks.2.scale'\]"),
    ],
)
def test_missing_and_unexpected_names_are_named_and_nothing_is_loaded(removed, added, message):
    net, state = Net(), other_state()
    before = snapshot(net)
    state.pop(removed, None)
    if added:
        state[added] = np.zeros(2, np.float32)
    with pytest.raises(KeyError, match=f"Net: {message}"):
        net.load_state_dict(state)
    assert_same_state(net, before)


@pytest.mark.exercise("ex-03-9", points=4)
def test_without_strict_the_rest_is_loaded_and_both_lists_returned():
    net, state = Net(), other_state()
    before = snapshot(net)
    report = net.load_state_dict({**state, "other": np.zeros(3), "extra": np.zeros(1)}, strict=False)
    assert report.missing_keys == []
    assert report.unexpected_keys == ["other", "extra"]
    assert_same_state(net, state)
    report = Net().load_state_dict({"temperature": np.array([7.0])}, strict=False)
    assert report.missing_keys == [name for name in before if name != "temperature"]
    assert report.unexpected_keys == []


def test_loading_does_not_change_the_given_dict():
    state = other_state()
    names = list(state)
    Net().load_state_dict(state)
    assert list(state) == names


# ---- containers


class Times(tt.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Plus(Times):
    def forward(self, x):
        return self.factor + x


@pytest.mark.exercise("ex-03-3", points=1)
def test_first_times_3_and_then_plus_1():
    assert tt.Sequential(Times(3), Plus(1))(2) == 7


@pytest.mark.exercise("ex-03-3", points=1)
def test_sequential_applies_one_after_another():
    first, second = tt.Linear(2, 3), tt.Linear(3, 1)
    x = random(4, 2).astype(np.float32)
    hidden = np.maximum(x @ first.weight.data.T + first.bias.data, 0)
    expected = hidden @ second.weight.data.T + second.bias.data
    x = tt.tensor(x)
    assert_close(tt.Sequential(first, tt.ReLU(), second)(x), expected)
    assert tt.Sequential()(x) is x


@pytest.mark.parametrize("container", [tt.ModuleList, lambda modules: tt.Sequential(*modules)])
def test_containers_are_lists(container):
    modules = [tt.Linear(1, 2), tt.ReLU(), tt.Linear(2, 1)]
    held = container(modules)
    assert len(held) == 3
    assert list(held) == modules
    assert held[0] is modules[0]
    assert held[-1] is modules[2]
    assert list(held[1:]) == modules[1:]
    assert [name for name, _ in held.named_children()] == ["0", "1", "2"]
    with pytest.raises(IndexError):
        held[3]


def test_append_goes_to_the_end_and_returns_the_list():
    held, last = tt.ModuleList([tt.ReLU()]), tt.Tanh()
    assert held.append(last) is held
    assert held[1] is last
    assert len(tt.ModuleList()) == 0


@pytest.mark.parametrize("container", [tt.ModuleList, lambda modules: tt.Sequential(*modules)])
def test_containers_refuse_what_is_no_module(container):
    with pytest.raises(TypeError, match="holds modules, but got"):
        container([tt.Linear(2, 2), tt.relu])


def test_repr_shows_the_tree():
    class Small(tt.Module):
        def __init__(self):
            self.body = tt.Sequential(tt.Linear(2, 3, bias=False), tt.Dropout(0.1))
            self.act = tt.GELU("tanh")

    assert repr(Small()) == (
        "Small(\n"
        "  (body): Sequential(\n"
        "    (0): Linear(in_features=2, out_features=3, bias=False)\n"
        "    (1): Dropout(p=0.1)\n"
        "  )\n"
        "  (act): GELU(approximate='tanh')\n"
        ")"
    )
    assert repr(tt.ReLU()) == "ReLU()"


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (tt.ReLU(), tt.relu),
        (tt.Sigmoid(), tt.sigmoid),
        (tt.Tanh(), tt.tanh),
        (tt.SiLU(), tt.silu),
        (tt.GELU(), tt.gelu),
        (tt.GELU("tanh"), lambda x: tt.gelu(x, "tanh")),
        (tt.Softmax(dim=0), lambda x: tt.softmax(x, 0)),
        (tt.Softmax(), lambda x: tt.softmax(x, -1)),
    ],
    ids=lambda value: repr(value) if isinstance(value, tt.Module) else "",
)
def test_activation_layers_are_their_functions(module, function):
    x = tt.tensor(random(3, 4))
    assert_close(module(x), function(x), 0, 0)
    assert list(module.parameters()) == []


# ---- the linear layer


@pytest.mark.exercise("ex-03-1", points=1)
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 5, 3), (0, 3), (2, 1, 2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_x_times_weight_transposed_plus_bias(shape, bias):
    x, weight, b = random(*shape), random(2, 3, seed=1), random(2, seed=2) if bias else None
    tensors = [None if a is None else tt.tensor(a) for a in (x, weight, b)]
    expected = np.einsum("...i,oi->...o", x, weight) + (0 if b is None else b)
    assert_close(tt.linear(*tensors), expected, 1e-13, 1e-13)
    assert_close(linear_composed(*tensors), expected, 1e-13, 1e-13)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 5, 3), (0, 3)])
def test_linear_gradients_are_those_of_finite_differences(shape):
    check_grad(tt.linear, random(*shape), random(2, 3, seed=1), random(2, seed=2))
    check_grad(tt.linear, random(*shape), random(2, 3, seed=1))


def test_linear_leaves_its_inputs_and_the_incoming_gradient_alone():
    arrays = [random(4, 3), random(2, 3, seed=1), random(2, seed=2)]
    leaves, g = [tt.tensor(a, requires_grad=True) for a in arrays], tt.tensor(random(4, 2, seed=3))
    tt.linear(*leaves).backward(g)
    for leaf, array in zip(leaves, arrays):
        assert_close(leaf, array, 0, 0)
    assert_close(g, random(4, 2, seed=3), 0, 0)


@pytest.mark.exercise("ex-03-2", points=2)
def test_linear_layer_holds_weight_and_bias():
    layer = tt.Linear(3, 2)
    x = tt.tensor(random(4, 3).astype(np.float32))
    assert [(name, p.shape, p.dtype) for name, p in layer.named_parameters()] == [
        ("weight", (2, 3), tt.float32),
        ("bias", (2,), tt.float32),
    ]
    assert_close(layer(x), tt.linear(x, layer.weight, layer.bias), 0, 0)


@pytest.mark.exercise("ex-03-2", points=2)
def test_linear_layer_without_bias():
    layer = tt.Linear(3, 2, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    assert_close(layer(tt.zeros(1, 3)), [[0.0, 0.0]], 0, 0)


@pytest.mark.exercise("ex-03-2", points=2)
def test_linear_starts_uniform_within_one_over_the_root_of_its_inputs():
    layer = tt.Linear(25, 4000, generator=seeded())
    for values in (layer.weight.detach().numpy(), layer.bias.detach().numpy()):
        assert 0.198 < np.abs(values).max() <= 0.2
        assert_close(values.std(), 0.2 / math.sqrt(3), rtol=0.03)
        assert abs(values.mean()) < 5 * values.std() / math.sqrt(values.size)


def test_a_generator_decides_the_weights():
    first, again, other = (tt.Linear(3, 4, generator=seeded(seed)) for seed in (1, 1, 2))
    assert_close(first.weight, again.weight, 0, 0)
    assert_close(first.bias, again.bias, 0, 0)
    assert not np.array_equal(first.weight.data, other.weight.data)
    assert not np.array_equal(first.weight.data[0, :2], first.bias.data[:2])


def test_manual_seed_decides_the_weights_without_a_generator():
    weights = []
    for _ in range(2):
        tt.manual_seed(5)
        weights.append(tt.Linear(3, 4).weight)
    assert_close(*weights, 0, 0)


@pytest.mark.parametrize("size", [0, -1, 2.5, "3", None, True])
@pytest.mark.parametrize("name", ["in_features", "out_features"])
def test_linear_refuses_sizes_that_cannot_be(name, size):
    sizes = {"in_features": 2, "out_features": 2, name: size}
    with pytest.raises(ValueError, match=f"{name} needs an integer of at least 1, but got"):
        tt.Linear(**sizes)


@pytest.mark.parametrize("shape", [(2, 3), (5,), (4, 1), ()])
@pytest.mark.parametrize(
    "function",
    [lambda x: tt.Linear(4, 5)(x), lambda x: tt.linear(x, tt.zeros(5, 4))],
    ids=["layer", "function"],
)
def test_linear_says_which_inputs_it_needs(function, shape):
    with pytest.raises(ValueError, match=rf"(needs|got) inputs .*{re.escape(str(shape))}"):
        function(tt.zeros(shape))


def test_linear_refuses_a_weight_that_is_no_matrix():
    with pytest.raises(ValueError, match=r"weight.*\(3,\)"):
        tt.linear(tt.zeros(2, 3), tt.zeros(3))


# ---- dropout


@pytest.mark.exercise("ex-03-7", points=2)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_zeroes_with_probability_p_and_scales_what_is_left(p):
    n = 100_000
    y = tt.Dropout(p, generator=seeded())(tt.full(n, 3.0)).numpy()
    assert_close(np.unique(y), [0.0, 3 / (1 - p)])
    assert_close(np.mean(y == 0), p, rtol=0, atol=5 * math.sqrt(p * (1 - p) / n))


@pytest.mark.exercise("ex-03-8", points=2)
def test_dropout_treats_elements_as_independent():
    kept = tt.dropout(tt.ones(300, 300), 0.5, generator=seeded()).numpy() > 0
    for both in (kept[1:] & kept[:-1], kept[:, 1:] & kept[:, :-1]):
        assert abs(both.mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / both.size)


def test_dropout_sends_the_gradient_through_what_was_kept():
    x = tt.ones(1000, requires_grad=True)
    y = tt.dropout(x, 0.3, generator=seeded())
    y.sum().backward()
    assert_close(x.grad, y, 0, 0)
    assert 0 < np.sum(x.grad.data == 0) < 1000


@pytest.mark.exercise("ex-03-8", points=2)
def test_dropout_is_off_in_evaluation():
    x, layer = tt.ones(5), tt.Dropout(0.9)
    layer.eval()
    assert layer(x) is x
    assert tt.dropout(x, 0.9, training=False) is x


@pytest.mark.exercise("ex-03-7", points=2)
def test_a_mask_of_everything_is_zero_and_of_the_type_that_is_asked_for():
    mask = tt.layers.dropout_mask((3,), 1.0, np.float64, seeded(0))
    assert (mask.tolist(), mask.dtype) == ([0.0, 0.0, 0.0], np.float64)


@pytest.mark.exercise("ex-03-7", points=2)
def test_one_seed_gives_one_mask():
    first, again, other = (tt.layers.dropout_mask((9,), 0.5, np.float32, seeded(n)) for n in (3, 3, 4))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_dropout_with_nothing_or_everything_to_drop():
    x = tt.ones(50, requires_grad=True)
    assert_close(tt.dropout(x, 0.0), np.ones(50), 0, 0)
    y = tt.dropout(x, 1.0)
    y.sum().backward()
    assert_close(y, np.zeros(50), 0, 0)
    assert_close(x.grad, np.zeros(50), 0, 0)


def test_dropout_draws_a_new_mask_each_time_and_the_same_from_the_same_seed():
    x, layer = tt.ones(200), tt.Dropout(0.5, generator=seeded(3))
    first, second = layer(x), layer(x)
    assert not np.array_equal(first.data, second.data)
    assert_close(tt.Dropout(0.5, generator=seeded(3))(x), first, 0, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_keeps_the_dtype(dtype):
    assert tt.dropout(tt.ones(4, dtype=np.dtype(dtype)), 0.5).dtype == dtype


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_dropout_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="dropout needs a probability between 0 and 1, but got"):
        tt.Dropout(p)
    with pytest.raises(ValueError, match="dropout needs a probability between 0 and 1, but got"):
        tt.dropout(tt.ones(2), p)


# ---- buffers and parameters in odd places


def test_only_registered_tensors_are_saved():
    class Watching(tt.Module):
        def __init__(self):
            self.register_buffer("seen", tt.zeros(2))

        def forward(self, x):
            self.last = x
            return x

    module = Watching()
    module(tt.ones(3))
    assert list(module.state_dict()) == ["seen"]
    assert [name for name, _ in module.named_buffers()] == ["seen"]
    assert list(tt.Module().state_dict()) == []  # what one module registers is no other's


@pytest.mark.parametrize("inside", [[tt.Parameter(np.ones(2))], {"a": tt.ReLU()}, (tt.ReLU(),)])
def test_parameters_that_would_be_missed_are_refused(inside):
    module = tt.Module()
    module.parts = inside
    with pytest.raises(TypeError, match="the parameters in it would be missed"):
        list(module.parameters())


def test_a_slice_of_a_container_is_a_container():
    net = tt.Sequential(tt.Linear(2, 3), tt.ReLU(), tt.Linear(3, 1))
    assert isinstance(net[:2], tt.Sequential)
    assert net[:2](tt.ones(1, 2)).shape == (1, 3)
    assert isinstance(tt.ModuleList(net)[1:], tt.ModuleList)


def test_parameters_stay_floating_point():
    with pytest.raises(TypeError, match="were asked to be int64"):
        tt.Linear(2, 2).to(tt.int64)
    assert tt.Linear(2, 2).double().weight.dtype == tt.float64
    assert tt.Linear(2, 2).double().float().weight.dtype == tt.float32


def test_a_second_gpu_is_explained():
    with pytest.raises(ValueError, match="A device is 'cpu' or 'cuda', but got 'cuda:0'"):
        tt.Linear(2, 2).to("cuda:0")
