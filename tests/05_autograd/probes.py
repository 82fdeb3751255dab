"""What the grader asks the answers to lesson 05, beside the reference, on inputs that nobody knows before."""

import numpy as np

from tinytorch_course.grading.probes import gradients, probe, refusal


def numbered(results):
    """Several {name: array} as one."""
    return {f"{name}_of_{i}": value for i, result in enumerate(results) for name, value in result.items()}


def broadcast(rng):
    """Two inputs of which each is stretched along an axis, and the gradient of what they give together."""
    n, m = rng.integers(2, 6, 2)
    return {
        "x": rng.standard_normal((n, 1)),
        "y": rng.standard_normal((1, m)),
        "g": rng.standard_normal((n, m)),
    }


@probe("ex-05-1", broadcast)
def addition(tt, x, y, g):
    return gradients(tt, lambda x, y: x + y, x, y, g=g)


@probe("ex-05-2", broadcast)
def multiplication(tt, x, y, g):
    return gradients(tt, lambda x, y: x * y, x, y, g=g)


@probe("ex-05-3", lambda rng: {"x": np.append(rng.standard_normal(9), 0.0), "g": rng.standard_normal(10)})
def rectifier(tt, x, g):
    return gradients(tt, tt.relu, x, g=g)


# ---- sums


def one_axis(rng):
    """An input, and for each of its axes the gradient of a sum over it."""
    shape = rng.integers(2, 6, 3)
    return {"x": rng.standard_normal(shape), "g": [rng.standard_normal(np.delete(shape, axis)) for axis in range(3)]}


@probe("ex-05-4", one_axis)
def sum_over_each_axis(tt, x, g):
    return numbered(gradients(tt, lambda x: x.sum(axis - 3), x, g=g[axis]) for axis in range(3))


def several_axes(rng):
    n, m, k = rng.integers(2, 6, 3)
    return {
        "x": rng.standard_normal((n, 1, m, k)),
        "g": rng.standard_normal((1, m)),
        "kept": rng.standard_normal((n, 1, 1, 1)),
        "total": rng.standard_normal(()),
    }


@probe("ex-05-4", several_axes)
def sum_over_several_axes_and_all(tt, x, g, kept, total):
    return numbered(
        [
            gradients(tt, lambda x: x.sum((0, -1)), x, g=g),
            gradients(tt, lambda x: x.sum([1, 2, 3], keepdim=True), x, g=kept),
            gradients(tt, lambda x: x.sum(), x, g=total),
        ]
    )


# ---- leaves


@probe("ex-05-5", lambda rng: {"x": rng.standard_normal(4), "g": rng.standard_normal((2, 4))})
def two_gradients_of_a_leaf(tt, x, g):
    leaf, (earlier, later) = tt.Tensor(x, requires_grad=True), g.copy()
    leaf.accumulate_grad(earlier)
    noted = leaf.grad
    earlier += 1  # its owner goes on with it
    leaf.accumulate_grad(later)
    return {"first": noted, "sum": leaf.grad, "later": later}


@probe("ex-05-5", lambda rng: {"x": rng.standard_normal((2, 3)), "g": rng.standard_normal(3)})
def leaves_that_are_handed_one_array(tt, x, g):
    one, other = (tt.Tensor(row, requires_grad=True) for row in x)
    for leaf in (one, other):
        leaf.accumulate_grad(g)
    one.grad.data *= 2
    return {"one": one.grad, "other": other.grad, "g": g}


# ---- broadcasting


def stretched(rng):
    """A gradient, and all shapes of three axes or fewer that broadcast to its shape."""
    n, m, k = map(int, rng.integers(2, 6, 3))
    shapes = [(n, m, k), (1, m, k), (n, 1, k), (n, m, 1), (1, 1, k), (n, 1, 1), (1, m, 1), (1, 1, 1)]
    return {"g": rng.standard_normal((n, m, k)), "shapes": shapes + [(m, k), (1, k), (m, 1), (1, 1), (k,), (1,), ()]}


@probe("ex-05-6", stretched)
def gradient_before_broadcasting(tt, g, shapes):
    from tinytorch.autograd import unbroadcast

    return {f"shape_{i}": unbroadcast(g, shape) for i, shape in enumerate(shapes)}


@probe("ex-05-6", lambda rng: {"g": rng.standard_normal((rng.integers(2, 6), 1, rng.integers(2, 6), 1))})
def gradient_with_axes_of_length_1(tt, g):
    from tinytorch.autograd import unbroadcast

    shapes = [(1, g.shape[2], 1), (1, 1, 1), (g.shape[0], 1, 1, 1), (1,)]
    return {f"shape_{i}": unbroadcast(g, shape) for i, shape in enumerate(shapes)}


# ---- products of matrices


def products(*axes):
    """Inputs with the axes that letters name, such as ("nk", "km", "nm"): of x, of y and of g."""

    def inputs(rng):
        sizes = dict(zip("bcknm", rng.integers(2, 6, 5)))
        sizes |= dict.fromkeys("ijl", sizes["n"])  # of square matrices
        arrays = [[rng.standard_normal([sizes[axis] for axis in names]) for names in case] for case in axes]
        return {"axes": axes, "arrays": arrays}

    return inputs


def matmul(tt, arrays):
    return numbered(gradients(tt, lambda x, y: x @ y, x, y, g=g) for x, y, g in arrays)


@probe("ex-05-7", products(("nk", "km", "nm"), ("ij", "jl", "il"), ("bcnk", "bckm", "bcnm")))
def product_of_matrices(tt, axes, arrays):
    return matmul(tt, arrays)


@probe("ex-05-7", products(("bnk", "km", "bnm"), ("bcnk", "ckm", "bcnm"), ("nk", "bkm", "bnm")))
def product_with_fewer_axes_on_one_side(tt, axes, arrays):
    return matmul(tt, arrays)


@probe("ex-05-7", products(("k", "k", ""), ("nk", "k", "n"), ("k", "km", "m"), ("bnk", "k", "bn"), ("k", "bkm", "bm")))
def product_with_a_vector(tt, axes, arrays):
    return matmul(tt, arrays)


def stretched_batches(rng):
    b, c, n, k, m = rng.integers(2, 5, 5)
    return {
        "x": rng.standard_normal((b, 1, n, k)),
        "y": rng.standard_normal((c, k, m)),
        "g": rng.standard_normal((b, c, n, m)),
    }


@probe("ex-05-7", stretched_batches)
def product_of_stretched_batches(tt, x, y, g):
    return gradients(tt, lambda x, y: x @ y, x, y, g=g)


# ---- softmax


def far_from_0(rng):
    shape = rng.integers(2, 6, 3)
    return {"x": rng.standard_normal(shape) + rng.choice([-1000, 1000]), "g": rng.standard_normal(shape)}


@probe("ex-05-8", far_from_0)
def softmax_along_each_axis(tt, x, g):
    return numbered(gradients(tt, lambda x: tt.softmax(x, dim=dim), x, g=g) for dim in (0, 1, -1))


# ---- the way back through one node


def three_inputs(rng):
    n, m = rng.integers(2, 6, 2)
    return {
        "x": rng.standard_normal((n, 1)),
        "y": rng.standard_normal((n, m)),
        "z": rng.standard_normal(m).astype(np.float32),
        "g": rng.standard_normal((n, m)),
    }


@probe("ex-05-9", three_inputs)
def a_node_with_one_rule_per_input(tt, x, y, z, g):
    """The input in the middle is frozen."""
    calls = []

    @tt.op
    def weighted(x, y, z):
        def rule(name, factor):
            return lambda g: calls.append(name) or g * factor

        return x + 2 * y + 3 * z, (rule("x", 1), rule("y", 2), rule("z", 3))

    wanted = [tt.Tensor(x, requires_grad=True), tt.Tensor(z, requires_grad=True)]
    node = weighted(wanted[0], tt.Tensor(y), wanted[1]).grad_fn
    pairs = list(node.pull_back(g))
    return {
        "sources": [source is leaf for (source, _), leaf in zip(pairs, wanted)],
        **{f"gradient_{i}": gradient for i, (_, gradient) in enumerate(pairs)},
        "dtypes": [str(gradient.dtype) for _, gradient in pairs],
        "calls": calls,
    }


@probe("ex-05-9", three_inputs)
def a_node_with_one_function_for_all_inputs(tt, x, y, z, g):
    calls = []

    @tt.op
    def weighted(x, y, z):
        return x + 2 * y + 3 * z, lambda g: calls.append("all") or (g, None, 3 * g)

    wanted = [tt.Tensor(x, requires_grad=True), tt.Tensor(z, requires_grad=True)]
    node = weighted(wanted[0].exp(), tt.Tensor(y), wanted[1]).grad_fn
    (first, *gradient_0), (second, *gradient_1) = node.pull_back(g)
    return {
        "sources": [first is node.inputs[0][0], second is wanted[1]],
        "gradient_0": gradient_0[0],
        "gradient_1": gradient_1[0],
        "calls": calls,
    }


# ---- the way back through a graph


def steps(rng):
    return {"x": rng.uniform(0.5, 1.5, 4), "g": rng.standard_normal(4), "n": int(rng.integers(3, 9))}


@probe("ex-05-10", steps)
def a_node_used_early_and_late(tt, x, g, n):
    def function(x):
        early = x.sin()
        late = early.exp()
        for _ in range(n):
            late = late - early / 2
        return late / early - early

    return gradients(tt, function, x, g=g)


@probe("ex-05-10", steps)
def an_input_of_several_nodes(tt, x, g, n):
    return gradients(tt, lambda x, y: (x.sin() - y.exp()) - (y.tanh() - x.cos()) / x, x, x / n, g=g)


@probe("ex-05-10", steps)
def nodes_that_are_handed_one_array(tt, x, g, n):
    """Node a is handed the same array as b, and another gradient by `early`."""
    both = tt.op(lambda x, y: (x + y, (lambda g: g, lambda g: g)))

    def function(x, y):
        a, b = x.exp(), y.exp()
        early = a / n
        return both(early, both(a, b))

    return gradients(tt, function, x, -x, g=g) | {"g": g}


@probe("ex-05-10", steps)
def backward_again(tt, x, g, n):
    """Twice where the graph is retained; then once more, which frees it; then in vain."""
    leaf, outcomes = tt.Tensor(x, requires_grad=True), []
    output = leaf.exp().sin()
    for retain_graph in (True, True, False, False):
        outcomes.append(refusal(lambda: output.backward(g, retain_graph=retain_graph)))
    return {"refused": outcomes, "gradient": leaf.grad}
