"""What the grader asks the answers to lesson 03, beside the reference, on inputs that nobody knows before."""

import numpy as np

from tinytorch_course.grading.probes import probe, refusal


def rows(rng):
    n, m = rng.integers(2, 6, 2)
    return {
        "x": rng.standard_normal((2, 1, 3, n)),
        "weight": rng.standard_normal((m, n)),
        "square": rng.standard_normal((n, n)),
        "bias": rng.standard_normal(m),
    }


@probe("ex-03-1", rows)
def linear_map(tt, x, weight, square, bias):
    from tinytorch.layers import linear_composed

    x, weight, square, bias = map(tt.Tensor, (x, weight, square, bias))
    return {
        "output": linear_composed(x, weight, bias),
        "without_bias": linear_composed(x, weight),
        "of_a_square_weight": linear_composed(x, square),
        "of_a_single_row": linear_composed(x[0, 0, 0], weight, 0 * bias),
    }


def sizes(rng):
    n = int(rng.integers(2, 9))
    return {"n": n, "m": n + int(rng.integers(1, 9)), "seed": int(rng.integers(2**31))}


@probe("ex-03-2", sizes)
def linear_layer(tt, n, m, seed):
    layer = tt.Linear(n, m, generator=tt.Generator(seed))
    bare = tt.Linear(m, n, bias=False, generator=tt.Generator(seed))
    return {
        "weight": layer.weight,
        "bias": layer.bias,
        "weight_without_bias": bare.weight,
        "no_bias": bare.bias is None,
        "parameters": [isinstance(x, tt.Parameter) for x in (layer.weight, layer.bias, bare.weight)],
        "sizes": [layer.in_features, layer.out_features, bare.in_features, bare.out_features],
        "refused": [refusal(lambda: tt.Linear(n, 0)), refusal(lambda: tt.Linear(-n, m))],
    }


def steps(rng):
    """Functions scale * x + shift. Their order matters."""
    n = rng.integers(2, 5)
    return {"x": rng.standard_normal(3), "scales": rng.uniform(2, 3, n), "shifts": rng.uniform(1, 2, n)}


@probe("ex-03-3", steps)
def one_after_another(tt, x, scales, shifts):
    class Step(tt.Module):
        def __init__(self, scale, shift):
            self.scale, self.shift = scale, shift

        def forward(self, x):
            return self.scale * x + self.shift

    x = tt.Tensor(x)
    several = [Step(float(scale), float(shift)) for scale, shift in zip(scales, shifts)]
    nested = tt.Sequential(tt.Sequential(*several[:2]), *several[2:])
    return {"output": tt.Sequential(*several)(x), "nested": nested(x), "of_no_modules": tt.Sequential()(x)}


def places(rng):
    """Which of three things stands at each place of a few blocks: there are more places than things."""
    return {"blocks": rng.integers(0, 3, (rng.integers(2, 5), 3))}


def tree(tt, blocks, things):
    return tt.Sequential(*[tt.Sequential(*[things[i] for i in block]) for block in blocks])


@probe("ex-03-4", places)
def modules_inside(tt, blocks):
    leaves = [tt.ReLU(), tt.Tanh(), tt.Sigmoid()]
    found = list(tree(tt, blocks, leaves).named_modules())
    return {"names": [name for name, _ in found], "kinds": [type(module).__name__ for _, module in found]}


def shared(rng):
    return places(rng) | {"values": rng.standard_normal(3)}


@probe("ex-03-5", shared)
def parameters_inside(tt, blocks, values):
    class Part(tt.Module):
        def __init__(self, weight, number):
            self.bias = tt.Parameter(tt.full(1, float(number)))
            self.register_buffer("count", tt.full(1, -1.0))
            self.weight = weight

    weights = [tt.Parameter(tt.full(1, float(value))) for value in values]
    parts = [[Part(weights[i], number) for number, i in enumerate(block)] for block in blocks]
    net = tt.Sequential(*[tt.Sequential(*row) for row in parts])
    net.scale = tt.Parameter(tt.full(1, 10.0))
    found = list(net.named_parameters())
    return {"names": [name for name, _ in found], "values": [float(parameter.data[0]) for _, parameter in found]}


@probe("ex-03-6", lambda rng: places(rng) | {"part": int(rng.integers(2))})
def training_and_evaluation(tt, blocks, part):
    leaves = [tt.ReLU(), tt.Tanh(), tt.Sigmoid()]
    net, found = tree(tt, blocks, leaves), {}
    for i, (module, mode) in enumerate([(net, False), (net[part], True), (net, True), (net[part], False)]):
        found[f"returned_{i}"] = module.train(mode) is module
        found[f"modes_{i}"] = [inside.training for inside in (net, *net, *leaves)]
    return found


def chance(rng):
    """A probability, a seed, and numbers none of which is 0."""
    x = rng.uniform(1, 2, (rng.integers(2, 5), 1, 30))
    return {"x": x, "p": float(rng.uniform(0.2, 0.8)), "seed": int(rng.integers(2**31))}


@probe("ex-03-7", chance)
def masks(tt, x, p, seed):
    from tinytorch.layers import dropout_mask

    generator = tt.Generator(seed)
    first, next_one = (dropout_mask(x.shape, p, np.dtype(np.float64), generator) for _ in range(2))
    single = dropout_mask((5,), p, np.dtype(np.float32), tt.Generator(seed))
    return {
        "first": first,
        "next": next_one,
        "in_single_precision": single,
        "of_nothing": dropout_mask((5,), 0.0, np.dtype(np.float32), generator),
        "of_everything": dropout_mask((5,), 1.0, np.dtype(np.float32), generator),
        "types": [str(first.dtype), str(single.dtype)],
    }


@probe("ex-03-8", chance)
def dropout(tt, x, p, seed):
    x = tt.Tensor(x)
    in_evaluation, of_nothing = tt.dropout(x, p, training=False), tt.dropout(x, 0.0)
    return {
        "in_training": tt.dropout(x, p, generator=tt.Generator(seed)),
        "of_everything": tt.dropout(x, 1.0, generator=tt.Generator(seed)),
        "in_evaluation": in_evaluation,
        "the_same_object": [in_evaluation is x, of_nothing is x],
        "refused": [refusal(lambda: tt.dropout(x, p + 1)), refusal(lambda: tt.dropout(x, -p))],
    }


def saved(rng):
    """A state dict as it comes from elsewhere, in double precision."""
    n, m = rng.integers(2, 5, 2)
    return {
        "state": {
            "scale": rng.standard_normal(m),
            "inner.weight": rng.standard_normal((n, m)),
            "inner.count": rng.integers(1, 9, n),
        }
    }


def module_for(tt, state):
    """A module of zeros that the state dict fits."""
    net, inner = tt.Module(), tt.Module()
    net.scale = tt.Parameter(tt.zeros(state["scale"].shape))
    net.inner = inner
    inner.weight = tt.Parameter(tt.zeros(state["inner.weight"].shape))
    inner.register_buffer("count", tt.zeros(state["inner.count"].shape, dtype=tt.int64))
    return net


def contents(net):
    return {"scale": net.scale, "weight": net.inner.weight, "count": net.inner.count}


@probe("ex-03-9", saved)
def loading(tt, state):
    net = module_for(tt, state)
    before = [tensor.data for tensor in contents(net).values()]
    report = net.load_state_dict({**state, "inner.weight": tt.Tensor(state["inner.weight"])})
    for array in state.values():
        array[...] = 0  # of no concern to the module any more
    tensors = contents(net)
    return {
        **tensors,
        "types": [str(tensor.dtype) for tensor in tensors.values()],
        "the_same_arrays": [tensor.data is array for tensor, array in zip(tensors.values(), before)],
        "report": [len(report.missing_keys), len(report.unexpected_keys)],
    }


@probe("ex-03-9", saved)
def loading_what_is_in_common(tt, state):
    net, names = module_for(tt, state), ["inner.weight", "other", "count"]
    report = net.load_state_dict({name: state.get(name, np.ones(2)) for name in names}, strict=False)
    return {**contents(net), "missing": report.missing_keys, "unexpected": report.unexpected_keys}


@probe("ex-03-9", saved)
def loading_what_does_not_fit(tt, state):
    """A wrong shape of each tensor in turn that NumPy would broadcast; a name too few, and one too many."""
    wrong = {f"shape_of_{name}": state | {name: array[-1:]} for name, array in state.items()}
    wrong["missing"] = {name: array for name, array in state.items() if name != "scale"}
    wrong["unexpected"] = state | {"other": np.ones(2)}
    found = {}
    for what, given in wrong.items():
        net = module_for(tt, state)
        found[what] = refusal(net.load_state_dict, given)
        found |= {f"{name}_after_{what.replace('.', '_')}": tensor for name, tensor in contents(net).items()}
    return found
