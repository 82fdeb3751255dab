"""The differentiable operations of tinytorch as small cases, each a function of tensors and a maker of its inputs.

`05_autograd/test_every_op.py` takes all of them through finite differences, dtypes and read-only arrays, and fails
where an operation has no case here; `device/test_strict_array.py` runs them on a stand-in for a GPU's arrays.
Whatever a case needs beside numbers (indices, masks, targets) is an input, so that it can be moved like the others.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import activations, attention, convolutions, embeddings, layers, losses, mamba, transformers


class Case(NamedTuple):
    """`function` takes one tensor per maker.

    `composed`, where there is one, is the same in primitive operations; the name then begins with the operation's.
    """

    name: str
    function: Callable
    makers: tuple
    composed: Callable | None = None

    def inputs(self):
        """NumPy arrays, the same at every call; floats in float64."""
        rng = np.random.default_rng(0)
        return [make(rng) for make in self.makers]


def case(name, function, *makers):
    return Case(name, function, makers)


def twins(name, fused, composed, *makers, **settings):
    return Case(name, partial(fused, **settings), makers, partial(composed, **settings))


# ---- makers of inputs


def normal(*shape):
    return lambda rng: rng.standard_normal(shape)


def positive(*shape):
    return lambda rng: rng.uniform(0.5, 2, shape)


def probabilities(*shape):
    return lambda rng: rng.uniform(0.1, 0.9, shape)


def apart(*shape):
    """Odd multiples of 1/8, all different: no ties, and neither 0 nor the limits ±0.5 of `clip` are near."""
    n = int(np.prod(shape))
    return lambda rng: (rng.permutation(n) - n // 2 + 0.5).reshape(shape) / 4


def given(values):
    return lambda rng: np.array(values)


# ---- arithmetic

ARITHMETIC = [
    case("add", lambda x, y: x + y, normal(3, 4), normal(3, 4)),
    case("add, broadcast", lambda x, y: x + y, normal(3, 1), normal(2, 1, 4)),
    case("add, scalar right", lambda x: x + 2.5, normal(3)),
    case("add, scalar left", lambda x: 2.5 + x, normal(3)),
    case("add, to itself", lambda x: x + x, normal(3)),
    case("sub", lambda x, y: x - y, normal(3, 4), normal(4)),
    case("sub, scalar right", lambda x: x - 2.5, normal(3)),
    case("sub, scalar left", lambda x: 2.5 - x, normal(3)),
    case("mul", lambda x, y: x * y, normal(3, 4), normal(3, 1)),
    case("mul, scalar right", lambda x: x * 2.5, normal(3)),
    case("mul, scalar left", lambda x: 2.5 * x, normal(3)),
    case("mul, no axes", lambda x, y: x * y, normal(), normal()),
    case("div", lambda x, y: x / y, normal(4), positive(3, 4)),
    case("div, scalar right", lambda x: x / 2.5, normal(3)),
    case("div, scalar left", lambda x: 2.5 / x, positive(3)),
    case("pow", lambda x, y: x**y, positive(3, 4), normal(4)),
    case("pow, exponent 3", lambda x: x**3, normal(3, 4)),
    case("pow, exponent -0.5", lambda x: x**-0.5, positive(3)),
    case("pow, exponent 0", lambda x: x**0, normal(3)),
    case("pow, base 2", lambda x: 2**x, normal(3)),
    case("mod", lambda x, y: x % y, normal(3, 4), positive(4)),
    case("floordiv", lambda x, y: x // y, normal(3, 4), positive(4)),
    case("pow, method", lambda x: x.pow(2), normal(3)),
    case("neg", lambda x: -x, normal(3)),
    case("exp", lambda x: x.exp(), normal(3)),
    case("log", lambda x: x.log(), positive(3)),
    case("sqrt", lambda x: x.sqrt(), positive(3)),
    case("sin", lambda x: x.sin(), normal(3)),
    case("cos", lambda x: x.cos(), normal(3)),
    case("tanh", lambda x: x.tanh(), normal(3)),
    case("abs", lambda x: x.abs(), apart(5)),
    case("clip, both limits", lambda x: x.clip(-0.5, 0.5), apart(3, 4)),
    case("clip, lower limit", lambda x: x.clip(min=-0.5), apart(3, 4)),
    case("clip, upper limit", lambda x: x.clip(max=0.5), apart(3, 4)),
    case("maximum", lambda x, y: x.maximum(y), normal(3, 4), normal(4)),
    case("maximum, scalar", lambda x: x.maximum(0.5), apart(3, 4)),
    case("minimum", lambda x, y: x.minimum(y), normal(3, 4), normal(3, 1)),
    case("where", lambda c, x, y: tt.where(c, x, y), given([[True], [False]]), normal(2, 3), normal(3)),
    case("where, scalar right", lambda c, x: tt.where(c, x, 2.5), given([True, False, True]), normal(3)),
    case("where, scalar left", lambda c, x: tt.where(c, 2.5, x), given([True, False, True]), normal(2, 3)),
    case("masked_fill", lambda x, m: x.masked_fill(m, 2.5), normal(2, 3), given([True, False, True])),
    case("tril", lambda x: x.tril(), normal(2, 3, 4)),
    case("tril, diagonal", lambda x: x.tril(-1), normal(4, 3)),
    case("triu", lambda x: x.triu(), normal(4, 3)),
    case("triu, diagonal", lambda x: x.triu(diagonal=1), normal(2, 3, 4)),
]

MATMUL_SHAPES = [
    ((3, 4), (4, 2)),
    ((4,), (4,)),
    ((4,), (4, 3)),
    ((3, 4), (4,)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((4,), (2, 4, 5)),
    ((2, 3, 4), (4,)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((5, 3, 4), (2, 1, 4, 2)),
    ((2, 1, 3, 4), (4, 2)),
]
MATMULS = [case(f"matmul, {x} @ {y}", lambda x, y: x @ y, normal(*x), normal(*y)) for x, y in MATMUL_SHAPES]

EINSUM_SHAPES = {
    "ij,jk->ik": [(2, 3), (3, 4)],
    "ij,jk": [(2, 3), (3, 4)],
    "ji": [(2, 3)],
    "i,j->ij": [(2,), (3,)],
    "ij,ij->": [(2, 3), (2, 3)],
    "ij->j": [(2, 3)],
    "ij,kl->jk": [(2, 3), (4, 5)],
    "ij,jk,kl->il": [(2, 3), (3, 4), (4, 2)],
    "bhqd, bhkd -> bhqk": [(2, 2, 3, 4), (2, 2, 5, 4)],
}
EINSUMS = [
    case(f"einsum, {equation}", partial(tt.einsum, equation), *(normal(*shape) for shape in shapes))
    for equation, shapes in EINSUM_SHAPES.items()
] + [
    case("einsum, an axis of length 1", partial(tt.einsum, "ij,ij->j"), normal(1, 3), normal(2, 3)),
]

# ---- reductions

DIMS = [None, 0, -1, (0, 2), [1, -1]]
REDUCTIONS = [
    case(f"{name}, dim={dim}, keepdim={keepdim}", partial(getattr(tt, name), dim=dim, keepdim=keepdim), apart(2, 3, 4))
    for name in ("sum", "mean", "var", "std", "amax", "amin")
    for dim in DIMS
    for keepdim in (False, True)
] + [
    case("sum, axis and keepdims", lambda x: x.sum(axis=1, keepdims=True), normal(2, 3)),
    case("var, correction=0", lambda x: x.var(dim=1, correction=0), normal(2, 3)),
    case("std, correction=0", lambda x: x.std(correction=0), normal(2, 3)),
    case("max", lambda x: x.max(), apart(2, 3)),
    case("max, dim=0", lambda x: x.max(dim=0).values, apart(3, 4)),
    case("max, dim=-1, keepdim", lambda x: x.max(-1, keepdim=True).values, apart(3, 4)),
    case("min", lambda x: x.min(), apart(2, 3)),
    case("min, dim=1", lambda x: x.min(dim=1).values, apart(3, 4)),
    case("prod", lambda x: x.prod(), normal(2, 3)),
    case("prod, dim=0", lambda x: x.prod(0), normal(3, 4)),
    case("prod, keepdim", lambda x: x.prod(dim=-1, keepdim=True), normal(3, 4)),
    case("prod, a factor is 0", lambda x: x.prod(dim=1), given([[1.5, 0.0, 2.0], [0.0, 0.5, 0.0]])),
    case("cumsum, dim=0", lambda x: x.cumsum(0), normal(3, 4)),
    case("cumsum, dim=-1", lambda x: x.cumsum(dim=-1), normal(2, 3, 4)),
]

# ---- shapes, indices, pieces

SHAPING = [
    case("reshape", lambda x: x.reshape(4, -1), normal(2, 3, 4)),
    case("reshape, of a transpose", lambda x: x.T.reshape(3, 4), normal(3, 4)),
    case("reshape, to no axes", lambda x: x.reshape(()), normal(1, 1)),
    case("view", lambda x: x.view((6, 4)), normal(2, 3, 4)),
    case("permute", lambda x: x.permute(2, 0, 1), normal(2, 3, 4)),
    case("permute, negative", lambda x: x.permute(-1, 0, -2), normal(2, 3, 4)),
    case("transpose", lambda x: x.transpose(0, -1), normal(2, 3, 4)),
    case("T", lambda x: x.T, normal(2, 3, 4)),
    case("squeeze", lambda x: x.squeeze(), normal(1, 3, 1)),
    case("squeeze, dim", lambda x: x.squeeze(-1), normal(1, 3, 1)),
    case("squeeze, dim of length 3", lambda x: x.squeeze(1), normal(1, 3, 1)),
    case("unsqueeze", lambda x: x.unsqueeze(-1), normal(2, 3)),
    case("expand", lambda x: x.expand(3, 4), normal(3, 1)),
    case("expand, new axis", lambda x: x.expand(2, -1, 4), normal(3, 1)),
    case("flatten", lambda x: x.flatten(), normal(2, 3, 4)),
    case("flatten, from axis 1", lambda x: x.flatten(1), normal(2, 3, 4)),
    case("flatten, to axis -2", lambda x: x.flatten(0, -2), normal(2, 3, 4)),
    case("flatten, no axes", lambda x: x.flatten(), normal()),
    case("getitem, integer", lambda x: x[1], normal(3, 4)),
    case("getitem, one element", lambda x: x[1, -1], normal(3, 4)),
    case("getitem, slices", lambda x: x[1:, :2], normal(3, 4)),
    case("getitem, negative step", lambda x: x[::-2, ::-1], normal(5, 3)),
    case("getitem, None and ...", lambda x: x[None, ..., 1], normal(2, 3, 4)),
    case("getitem, empty", lambda x: x[2:2], normal(3, 4)),
    case("getitem, booleans", lambda x, m: x[m], normal(2, 3), given([[True, False, True], [False, False, True]])),
    case("getitem, booleans and slice", lambda x, m: x[m, 1:], normal(3, 4), given([True, False, True])),
    case("getitem, rows", lambda x, i: x[i], normal(3, 4), given([2, 0, 2, 2])),
    case("getitem, a table of rows", lambda x, i: x[i], normal(3, 4), given([[2, 0], [2, 1]])),
    case("getitem, one row by two numbers", lambda x, i: x[i], normal(3, 4), given([2, 0, -1])),
    case("getitem, a number in a tensor", lambda x, i: x[i], normal(3, 4), given(1)),
    case("getitem, columns", lambda x, i: x[:, i], normal(3, 4), given([1, 1, 0])),
    case("getitem, pairs", lambda x, i, j: x[i, j], normal(3, 4), given([0, 2, 0]), given([1, 1, 1])),
    case("getitem, apart", lambda x, i: x[i, 1:, i], normal(3, 4, 3), given([0, 2, 2])),
    case("getitem, tuples", lambda x: x[(0, 2, 0), (1, 1, 1)], normal(3, 4)),
    case("gather, dim=0", lambda x, i: x.gather(0, i), normal(3, 2), given([[0, 2], [0, 2], [1, 2], [0, 0]])),
    case("gather, dim=-1", lambda x, i: x.gather(-1, i), normal(2, 3), given([[1, 1, 0, 1], [2, 2, 2, 0]])),
    case("gather, fewer rows", lambda x, i: x.gather(1, i), normal(3, 4), given([[3, 0]])),
    case("split", lambda x: tt.cat(x.split(2)[::-1]), normal(5, 3)),
    case("split, lengths", lambda x: tt.cat(x.split([1, 3], dim=-1)[::-1], -1), normal(2, 4)),
    case("split, one piece", lambda x: x.split(2, dim=1)[1], normal(2, 5)),
    case("chunk", lambda x: tt.cat(x.chunk(2, dim=1)[::-1], 1), normal(2, 5)),
    case("cat", lambda x, y: tt.cat([x, y]), normal(2, 3), normal(1, 3)),
    case("cat, dim=-1", lambda x, y, z: tt.cat((x, y, z), dim=-1), normal(2, 3), normal(2, 1), normal(2, 2)),
    case("cat, with itself", lambda x: tt.cat([x, x], dim=1), normal(2, 3)),
    case("stack", lambda x, y: tt.stack([x, y]), normal(2, 3), normal(2, 3)),
    case("stack, dim=-1", lambda x, y: tt.stack([x, y], dim=-1), normal(2, 3), normal(2, 3)),
    case("clone", lambda x: x.clone(), normal(2, 3)),
]

# ---- activations

WIDE = (-7.0, -5.0, -3.0, -1.0, -0.4, -0.1, 0.2, 0.45, 0.5, 1.5, 3.9, 4.1, 6.5)
ACTIVATIONS = [
    case("relu", tt.relu, apart(3, 4)),
    case("sigmoid", tt.sigmoid, given(WIDE)),
    case("erf", tt.erf, given(WIDE)),
    twins("silu", tt.silu, activations.silu_composed, given(WIDE)),
    twins("softplus", tt.softplus, activations.softplus_composed, given(WIDE)),
    twins("gelu", tt.gelu, activations.gelu_composed, given(WIDE)),
    twins("gelu, tanh", tt.gelu, activations.gelu_composed, given(WIDE), approximate="tanh"),
] + [
    twins(f"{fused.__name__}, {what}", fused, composed, maker, dim=dim)
    for fused, composed in [
        (tt.softmax, activations.softmax_composed),
        (tt.log_softmax, activations.log_softmax_composed),
    ]
    for what, maker, dim in [
        ("dim=-1", normal(2, 3, 4), -1),
        ("dim=0", normal(3, 4), 0),
        ("dim=1", normal(2, 3, 4), 1),
        ("too large for exp", lambda rng: 1000 + rng.standard_normal((3, 4)), -1),
        ("too small for exp", lambda rng: rng.standard_normal((3, 4)) - 1000, 0),
    ]
]

# ---- layers

LAYERS = [
    twins("linear", tt.linear, layers.linear_composed, normal(3, 4), normal(2, 4), normal(2)),
    twins("linear, no bias", tt.linear, layers.linear_composed, normal(3, 4), normal(2, 4)),
    twins("linear, 1-D", tt.linear, layers.linear_composed, normal(4), normal(2, 4), normal(2)),
    twins("linear, 3-D", tt.linear, layers.linear_composed, normal(2, 3, 4), normal(5, 4), normal(5)),
    case("linear, by name", lambda x, w, b: tt.linear(x, bias=b, weight=w), normal(2, 3, 4), normal(5, 4), normal(5)),
    case("dropout", lambda x: tt.dropout(x, 0.4, generator=tt.Generator(0)), normal(4, 5)),
    case("dropout, all", lambda x: tt.dropout(x, 1.0, generator=tt.Generator(0)), normal(3)),
    twins("embedding", tt.embedding, embeddings.embedding_composed, given([[3, 0, 3], [1, 3, 0]]), normal(4, 5)),
    twins("embedding, no axes", tt.embedding, embeddings.embedding_composed, given(2), normal(4, 5)),
    case(
        "embedding, padding_idx",
        # the row that stands for padding is held at 0, as its gradient is set to 0 by decree
        lambda ids, pad, weight: tt.embedding(ids, weight.masked_fill(pad, 0.0), padding_idx=3),
        given([[3, 0, 3], [1, 3, 0]]),
        given([[False], [False], [False], [True]]),
        normal(4, 5),
    ),
    twins("layer_norm", tt.layer_norm, transformers.layer_norm_composed, normal(2, 3, 4), normalized_shape=(4,)),
    twins(
        "layer_norm, 2 axes", tt.layer_norm, transformers.layer_norm_composed, normal(2, 3, 4), normalized_shape=(3, 4)
    ),
    Case(
        "layer_norm, weight and bias",
        lambda x, w, b: tt.layer_norm(x, (4,), w, b),
        (normal(2, 3, 4), normal(4), normal(4)),
        lambda x, w, b: transformers.layer_norm_composed(x, (4,), w, b),
    ),
    Case(
        "layer_norm, 2 axes, weight and bias, eps",
        lambda x, w, b: tt.layer_norm(x, (3, 4), w, b, eps=0.5),
        (normal(2, 3, 4), normal(3, 4), normal(3, 4)),
        lambda x, w, b: transformers.layer_norm_composed(x, (3, 4), w, b, eps=0.5),
    ),
    Case(
        "layer_norm, weight alone",
        lambda x, w: tt.layer_norm(x, (4,), w),
        (normal(3, 4), normal(4)),
        lambda x, w: transformers.layer_norm_composed(x, (4,), w),
    ),
    Case(
        "layer_norm, bias alone",
        lambda x, b: tt.layer_norm(x, (4,), bias=b),
        (normal(3, 4), normal(4)),
        lambda x, b: transformers.layer_norm_composed(x, (4,), bias=b),
    ),
]

# ---- losses

REDUCED = ("mean", "sum", "none")
TARGETS = given([2, 0, 4, 2, 1, 0])
LOSSES = [
    made
    for how in REDUCED
    for made in [
        case(f"mse_loss, {how}", partial(tt.mse_loss, reduction=how), normal(3, 4), normal(3, 4)),
        case(
            f"binary_cross_entropy, {how}",
            partial(tt.binary_cross_entropy, reduction=how),
            probabilities(3, 4),
            probabilities(3, 4),
        ),
        twins(
            f"binary_cross_entropy_with_logits, {how}",
            tt.binary_cross_entropy_with_logits,
            losses.binary_cross_entropy_with_logits_composed,
            normal(3, 4),
            probabilities(3, 4),
            reduction=how,
        ),
        twins(
            f"cross_entropy, {how}",
            tt.cross_entropy,
            losses.cross_entropy_composed,
            normal(6, 5),
            TARGETS,
            reduction=how,
        ),
        twins(
            f"cross_entropy, ignore_index, {how}",
            tt.cross_entropy,
            losses.cross_entropy_composed,
            normal(6, 5),
            TARGETS,
            reduction=how,
            ignore_index=2,
        ),
        case(f"cross_entropy, (C,), {how}", partial(tt.cross_entropy, reduction=how), normal(5), given(3)),
        case(
            f"cross_entropy, (N, C, d), {how}",
            partial(tt.cross_entropy, reduction=how),
            normal(2, 3, 4),
            given([[0, 2, 1, -100], [1, 1, 2, 0]]),
        ),
    ]
] + [
    twins(
        "cross_entropy, too large for exp",
        tt.cross_entropy,
        losses.cross_entropy_composed,
        lambda rng: 1000 + rng.standard_normal((6, 5)),
        TARGETS,
    ),
]

# ---- attention

SEES_NOTHING = given([[True, False, True, True, False], [False] * 5, [True] * 5])  # the second of three queries
HEADS = (normal(2, 2, 3, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 6))


def attend(name, *makers, **settings):
    return twins(
        f"scaled_dot_product_attention, {name}",
        tt.scaled_dot_product_attention,
        attention.scaled_dot_product_attention_composed,
        *makers,
        **settings,
    )


def with_dropout(function):
    return lambda q, k, v: function(q, k, v, dropout_p=0.4, is_causal=True, generator=tt.Generator(0))


ATTENTION = [
    attend("plain", *HEADS),
    attend("one head", normal(3, 4), normal(5, 4), normal(5, 6)),
    attend("causal", normal(2, 4, 3), normal(2, 4, 3), normal(2, 4, 3), is_causal=True),
    attend("causal, 3 queries and 5 keys", *HEADS, is_causal=True),
    attend("boolean mask", *HEADS, SEES_NOTHING),
    attend("boolean mask and causal", *HEADS, SEES_NOTHING, is_causal=True),
    attend("float mask", *HEADS, normal(3, 5)),
    attend("float mask, broadcast", *HEADS, normal(2, 1, 1, 5), is_causal=True),
    attend("float mask, too large for exp", *HEADS, lambda rng: 1000 + rng.standard_normal((3, 5)), is_causal=True),
    attend("one key and value for all heads", normal(2, 2, 3, 4), normal(2, 1, 5, 4), normal(5, 6)),
    attend("one query for the batch", normal(1, 2, 3, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 6)),
    attend("scale", *HEADS, scale=0.3),
    Case(
        "scaled_dot_product_attention, dropout",
        with_dropout(tt.scaled_dot_product_attention),
        HEADS,
        with_dropout(attention.scaled_dot_product_attention_composed),
    ),
    case("split_heads", lambda x: attention.split_heads(x, 2), normal(2, 3, 4)),
    case("join_heads", lambda x: attention.join_heads(x), normal(2, 2, 3, 4)),
]

# ---- convolutions, pooling, batch normalisation

IMAGES, FILTERS, BIAS = normal(2, 4, 5, 6), normal(6, 4, 3, 2), normal(6)


def convolve(name, *makers, **settings):
    return twins(f"conv2d, {name}", tt.conv2d, convolutions.conv2d_composed, *makers, **settings)


def pools(kind, name, *settings):
    fused, composed = getattr(tt, f"{kind}_pool2d"), getattr(convolutions, f"{kind}_pool2d_composed")

    def function(pool):
        return lambda x: pool(x, *settings)

    return Case(f"{kind}_pool2d, {name}", function(fused), (apart(2, 3, 5, 6),), function(composed))


def normalises(name, *makers, tracked=True, **settings):
    """`batch_norm` with running statistics that are made where x lives, and are not inputs: they get no gradient."""

    def function(norm):
        def of(x, *weights):
            running = [tt.Tensor(np.full_like(x.data, value, shape=x.shape[1:2])) for value in (0.5, 2.0)]
            return norm(x, *(running if tracked else (None, None)), *weights, **settings)

        return of

    composed = function(convolutions.batch_norm_composed)
    return Case(f"batch_norm, {name}", function(tt.batch_norm), makers, composed)


CONVOLUTIONS = [
    convolve("plain", IMAGES, FILTERS),
    convolve("bias", IMAGES, FILTERS, BIAS),
    convolve("padding", IMAGES, FILTERS, BIAS, padding=(2, 1)),
    convolve("same padding", IMAGES, FILTERS, BIAS, padding="same"),
    convolve("stride", IMAGES, FILTERS, BIAS, stride=2, padding=1),
    convolve("stride that leaves a rest", IMAGES, FILTERS, stride=(3, 3)),
    convolve("dilation", IMAGES, FILTERS, BIAS, dilation=2),
    convolve(
        "all settings",
        IMAGES,
        normal(6, 2, 3, 2),
        BIAS,
        stride=(1, 2),
        padding=(2, 1),
        dilation=(2, 3),
        groups=2,
    ),
    convolve("depthwise", IMAGES, normal(4, 1, 3, 3), normal(4), padding=1, groups=4),
    convolve("depthwise, two filters each", IMAGES, normal(8, 1, 3, 3), padding=1, groups=4),
    convolve("1 x 1", IMAGES, normal(6, 4, 1, 1), BIAS),
    convolve("one image, one channel", normal(1, 1, 3, 3), normal(1, 1, 3, 3), normal(1)),
    case("conv1d", tt.conv1d, normal(2, 4, 7), normal(6, 4, 3), BIAS),
    case(
        "conv1d, all settings",
        partial(tt.conv1d, stride=2, padding=3, dilation=2, groups=2),
        normal(2, 4, 7),
        normal(6, 2, 3),
        BIAS,
    ),
    case("conv1d, same padding", partial(tt.conv1d, padding="same", groups=4), normal(2, 4, 7), normal(4, 1, 4)),
]

POOLS = [
    made
    for kind in ("max", "avg")
    for made in [
        pools(kind, "plain", 2),
        pools(kind, "a window for each axis", (3, 2)),
        pools(kind, "overlap", 3, 1),
        pools(kind, "gaps", 2, 3),
        pools(kind, "padding", (2, 3), (1, 2), 1),
        pools(kind, "1 x 1", 1),
        case(f"{kind}_pool1d", partial(getattr(tt, f"{kind}_pool1d"), kernel_size=2), apart(2, 3, 5)),
        case(
            f"{kind}_pool1d, padding",
            partial(getattr(tt, f"{kind}_pool1d"), kernel_size=3, stride=2, padding=1),
            apart(2, 3, 5),
        ),
    ]
]

BATCH_NORMS = [
    normalises("no running statistics, eps", normal(2, 3, 4), normal(3), training=True, tracked=False, eps=0.5),
] + [
    normalises(f"{what}, {name}", *makers, training=training)
    for training, what in ((True, "training"), (False, "evaluation"))
    for name, makers in {
        "plain": [normal(5, 3)],
        "weight": [normal(5, 3), normal(3)],
        "weight and bias": [normal(5, 3), normal(3), normal(3)],
        "signals": [normal(3, 4, 5), normal(4), normal(4)],
        "images": [normal(2, 3, 4, 5), normal(3), normal(3)],
    }.items()
]

# ---- rotary positions, heads that share keys, windows, and the rest of a Llama

GROUPED = (normal(2, 4, 3, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 6))  # four query heads, two key heads
SQUARE = (normal(2, 5, 4), normal(2, 5, 4), normal(2, 5, 3))
TURNED = (normal(2, 3, 5, 6), normal(5, 3), normal(5, 3))


def grouped(function):
    """Dropout of weights in four heads, so that the kept ones must meet the right keys."""
    return lambda q, k, v: function(q, k, v, dropout_p=0.4, enable_gqa=True, generator=tt.Generator(0))


LLAMA = [
    twins("rotary, halves", tt.rotary, embeddings.rotary_composed, *TURNED),
    twins("rotary, neighbours", tt.rotary, embeddings.rotary_composed, *TURNED, interleaved=True),
    twins("rotary, no other axes", tt.rotary, embeddings.rotary_composed, normal(3, 4), normal(3, 2), normal(3, 2)),
    twins(
        "rotary, angles of each sequence",
        tt.rotary,
        embeddings.rotary_composed,
        normal(2, 3, 5, 4),
        normal(2, 1, 5, 2),
        normal(2, 1, 1, 2),
    ),
    attend("grouped", *GROUPED, enable_gqa=True),
    attend("grouped, causal", *GROUPED, enable_gqa=True, is_causal=True),
    attend("grouped, boolean mask", *GROUPED, SEES_NOTHING, enable_gqa=True),
    attend("grouped, float mask per head", *GROUPED, normal(2, 4, 3, 5), enable_gqa=True),
    attend("grouped, float mask per sequence", *GROUPED, normal(2, 1, 1, 5), enable_gqa=True, is_causal=True),
    attend("grouped, one key head", normal(2, 3, 2, 4), normal(2, 1, 5, 4), normal(2, 1, 5, 6), enable_gqa=True),
    attend("grouped, without a batch", normal(4, 3, 2), normal(2, 3, 2), normal(2, 3, 2), enable_gqa=True, scale=2.0),
    attend("grouped, as many key heads", *HEADS, enable_gqa=True),
    Case(
        "scaled_dot_product_attention, grouped, dropout",
        grouped(tt.scaled_dot_product_attention),
        GROUPED,
        grouped(attention.scaled_dot_product_attention_composed),
    ),
    attend("window of 1", *SQUARE, is_causal=True, window=1),
    attend("window of 3", *SQUARE, is_causal=True, window=3),
    attend("window beyond all keys", *SQUARE, is_causal=True, window=9),
    attend("window and boolean mask", *SQUARE, given(np.tri(5, dtype=bool)[::-1]), is_causal=True, window=2),
    attend("window, 5 queries and 2 keys", normal(5, 4), normal(2, 4), normal(2, 3), is_causal=True, window=2),
    attend("window, grouped", *GROUPED, enable_gqa=True, is_causal=True, window=2),
    twins("rms_norm", tt.rms_norm, transformers.rms_norm_composed, normal(2, 3, 4), normalized_shape=(4,)),
    twins("rms_norm, 2 axes", tt.rms_norm, transformers.rms_norm_composed, normal(2, 3, 4), normalized_shape=(3, 4)),
    Case(
        "rms_norm, 2 axes, weight, eps",
        lambda x, w: tt.rms_norm(x, (3, 4), w, eps=0.5),
        (normal(2, 3, 4), normal(3, 4)),
        lambda x, w: transformers.rms_norm_composed(x, (3, 4), w, eps=0.5),
    ),
    twins("swiglu", tt.swiglu, transformers.swiglu_composed, given(WIDE), normal(len(WIDE))),
]

# ---- Mamba

SCANNED = (
    normal(2, 5, 3),
    positive(2, 5, 3),
    lambda rng: -rng.uniform(0.5, 2, (3, 4)),
    normal(2, 5, 4),
    normal(2, 5, 4),
)
SCAN_OPTIONS = {"D": normal(3), "z": normal(2, 5, 3), "initial_state": normal(2, 3, 4)}
STARTS = given([[False, False, True, False, True], [False, True, False, False, False]])
DOCUMENTS = given([[0, 0, 1, 1, 1], [0, 1, 2, 2, 3]])


def scans(what, *options, makers=SCANNED):
    """`selective_scan` with some of its options, given by name."""

    def function(scan):
        return lambda *inputs: scan(*inputs[:5], **dict(zip(options, inputs[5:])))

    inputs = (*makers, *(STARTS if option == "starts" else SCAN_OPTIONS[option] for option in options))
    return Case(
        f"selective_scan, {what}", function(mamba.selective_scan), inputs, function(mamba.selective_scan_composed)
    )


def remembers(name, *makers):
    return twins(name, mamba.causal_conv1d, mamba.causal_conv1d_composed, *makers)


HEADS_OF_SSD = (normal(2, 7, 4, 3), positive(2, 7, 4), lambda rng: -rng.uniform(0.5, 2, 4))

MAMBA = [
    scans("plain"),
    scans("D", "D"),
    scans("gate", "z"),
    scans("initial state", "initial_state"),
    scans("starts", "starts"),
    scans("all", "D", "z", "initial_state", "starts"),
    scans("one step", makers=(normal(2, 1, 3), positive(2, 1, 3), SCANNED[2], normal(2, 1, 4), normal(2, 1, 4))),
    scans(
        "several blocks", makers=(normal(1, 70, 3), positive(1, 70, 3), SCANNED[2], normal(1, 70, 4), normal(1, 70, 4))
    ),
    remembers("causal_conv1d", normal(2, 5, 3), normal(3, 1, 4)),
    remembers("causal_conv1d, bias", normal(2, 5, 3), normal(3, 1, 4), normal(3)),
    remembers("causal_conv1d, more taps than steps", normal(2, 2, 3), normal(3, 1, 4)),
    remembers("causal_conv1d, documents", normal(2, 5, 3), normal(3, 1, 4), normal(3), DOCUMENTS),
    twins("ssd", mamba.ssd, mamba.ssd_composed, *HEADS_OF_SSD, normal(2, 7, 2, 5), normal(2, 7, 2, 5)),
    Case(
        "ssd, chunks that leave a rest",
        partial(mamba.ssd, chunk_size=3),
        (*HEADS_OF_SSD, normal(2, 7, 4, 5), normal(2, 7, 4, 5)),
        mamba.ssd_composed,
    ),
] + [
    case(f"recurrence, {scan.__name__}", partial(mamba.recurrence, scan=scan), positive(7, 2, 3), normal(7, 2, 3))
    for scan in (mamba.sequential_scan, mamba.blelloch_scan, mamba.two_level_scan)
]

CASES = [
    *ARITHMETIC, *MATMULS, *EINSUMS, *REDUCTIONS, *SHAPING, *ACTIVATIONS, *LAYERS, *LOSSES, *ATTENTION, *CONVOLUTIONS,
    *POOLS, *BATCH_NORMS, *LLAMA, *MAMBA,
]  # fmt: skip

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_twin = pytest.mark.parametrize("case", [case for case in CASES if case.composed], ids=lambda case: case.name)
