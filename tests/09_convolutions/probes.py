"""What the grader asks the answers to lesson 09, beside the reference, on inputs that nobody knows before."""

import numpy as np

from tinytorch_course.grading.probes import probe


def gradients(tt, function, **arrays):
    """The output of a function, and what a gradient that is different everywhere sends to each input."""
    tensors = {name: tt.Tensor(array, requires_grad=True) for name, array in arrays.items()}
    output = function(**tensors)
    output.backward(np.cos(np.arange(output.numel())).reshape(output.shape))
    return {"output": output, **{f"gradient_of_{name}": tensor.grad for name, tensor in tensors.items()}}


def pair(rng, low, high):
    """A setting for each of two axes."""
    return tuple(rng.integers(low, high, 2).tolist())


# ---- where a kernel stands, and what it sees


def axes(rng):
    """Kernels, the axes that have room for them, strides and dilations; one just fits in, one stride leads outside."""
    drawn = [rng.integers(low, high, 8) for low, high in ((1, 5), (13, 22), (1, 5), (1, 5))]
    return {"settings": [*np.transpose(drawn).tolist(), (4, 13, 1, 4), (3, 13, 20, 2)]}


@probe("ex-09-1", axes)
def places_of_a_kernel(tt, settings):
    from tinytorch.convolutions.windows import places

    positions = [
        np.arange(size)[place]
        for kernel, size, stride, dilation in settings
        for place in places(kernel, size, stride, dilation)
    ]
    return {"counts": [len(row) for row in positions], "positions": np.concatenate(positions)}


def cuts(rng):
    """A few slices of equal length, of which two are the same, and the size of an array that they fit."""
    places, stride = rng.integers(1, 5), rng.integers(1, 4)
    starts = rng.permutation(5)[: rng.integers(2, 5)].tolist()
    shifts = [slice(start, int(start + places * stride), int(stride)) for start in [*starts, starts[0]]]
    channels, tall, batch = rng.integers(1, 4, 3).tolist()
    return shifts, (channels, tall, int(5 + places * stride), batch), int(places)


def image_and_cuts(rng):
    shifts, size, _ = cuts(rng)
    return {"x": rng.standard_normal(size), "shifts": shifts}


@probe("ex-09-2", image_and_cuts)
def columns_of_an_image(tt, x, shifts):
    from tinytorch.convolutions.convolution import _columns

    return {"columns": _columns(x, shifts), "of_float32": _columns(x.astype(np.float32), shifts)}


def columns_and_cuts(rng):
    shifts, (channels, tall, wide, batch), places = cuts(rng)
    d = rng.standard_normal((channels, len(shifts), tall, places, batch))
    return {"d": d, "shifts": shifts, "size": (channels, tall, wide, batch)}


@probe("ex-09-3", columns_and_cuts)
def gradient_of_columns(tt, d, shifts, size):
    from tinytorch.convolutions.convolution import _columns_back

    return {"gradient": _columns_back(d, shifts, size)}


def windows(rng):
    return {
        "x": rng.standard_normal((*rng.integers(1, 4, 2), *rng.integers(9, 12, 2))),
        "factors": rng.standard_normal(pair(rng, 2, 4)),
        "stride": (1, int(rng.integers(2, 4))),
        "dilation": pair(rng, 2, 4),
    }


@probe("ex-09-4", windows)
def function_at_each_place(tt, x, factors, stride, dilation):
    from tinytorch.convolutions.windows import at_each_place

    def function(window):
        return (window * tt.Tensor(factors)).sum((2, 3))

    return gradients(tt, lambda x: at_each_place(function, x, factors.shape, stride, dilation), x=x)


def solid_windows(rng):
    drawn = windows(rng)
    return {"x": drawn["x"], "factors": drawn["factors"], "stride": drawn["stride"][::-1]}


@probe("ex-09-4", solid_windows)
def function_of_all_channels_at_each_place(tt, x, factors, stride):
    from tinytorch.convolutions.windows import at_each_place

    def function(window):
        return (window * tt.Tensor(factors)).sum((1, 2, 3)).unsqueeze(1)

    return {"output": at_each_place(function, tt.Tensor(x), factors.shape, stride)}


# ---- convolution


def images(rng):
    """Images, kernels and settings, all of them different for each axis."""
    groups, depth = rng.integers(1, 3, 2)
    filters = groups * rng.integers(1, 3)
    shape = rng.integers(1, 3), groups * depth, *rng.integers(5, 8, 2)
    return {
        "x": rng.standard_normal(shape),
        "weight": rng.standard_normal((filters, depth, 2, 3)),
        "bias": rng.standard_normal(filters),
        "stride": pair(rng, 1, 3),
        "padding": pair(rng, 1, 3),
        "dilation": pair(rng, 1, 3),
        "groups": int(groups),
    }


@probe("ex-09-5", images)
def convolution(tt, x, weight, bias, **settings):
    from tinytorch.convolutions import conv2d_composed

    return gradients(tt, lambda **inputs: conv2d_composed(**inputs, **settings), input=x, weight=weight, bias=bias)


def images_and_a_filter_each(rng):
    channels = rng.integers(2, 4)
    return {
        "x": rng.standard_normal((2, channels, *rng.integers(4, 7, 2))).astype(np.float32),
        "weight": rng.standard_normal((channels, 1, 2, 4)).astype(np.float32),
    }


@probe("ex-09-5", images_and_a_filter_each)
def depthwise_convolution_of_the_same_size(tt, x, weight):
    from tinytorch.convolutions import conv2d_composed

    return {"output": conv2d_composed(tt.Tensor(x), tt.Tensor(weight), padding="same", groups=len(weight))}


# ---- pooling


def pools(x):
    """Images `x(rng, shape)`, and a window with padding; strides leave gaps, or windows overlap."""
    return lambda rng: {
        "x": x(rng, (*rng.integers(1, 4, 2), *rng.integers(5, 9, 2))),
        "kernel": pair(rng, 2, 4),
        "stride": pair(rng, 1, 5),
        "padding": (1, int(rng.integers(2))),
    }


def pooled(tt, function, x, kernel, stride, padding):
    with_stride = gradients(tt, lambda x: function(x, kernel, stride, padding), x=x)
    return {**with_stride, "output_of_windows_side_by_side": function(tt.Tensor(x), kernel)}


@probe("ex-09-6", pools(lambda rng, shape: rng.standard_normal(shape)))
def mean_pooling(tt, x, kernel, stride, padding):
    from tinytorch.convolutions import avg_pool2d_composed

    return pooled(tt, avg_pool2d_composed, x, kernel, stride, padding)


@probe("ex-09-7", pools(lambda rng, shape: -rng.integers(1, 5, shape).astype(np.float64)))  # negative, with ties
def max_pooling(tt, x, kernel, stride, padding):
    from tinytorch.convolutions import max_pool2d_composed

    return pooled(tt, max_pool2d_composed, x, kernel, stride, padding)


# ---- batch normalisation


def moves(rng):
    n = rng.integers(1, 6)
    momenta = [0.0, *rng.uniform(0.1, 0.4, 2).tolist()]
    return {"running": rng.standard_normal(n), "new": rng.standard_normal((3, n)), "momenta": momenta}


@probe("ex-09-8", moves)
def running_average(tt, running, new, momenta):
    from tinytorch.convolutions.normalization import _move

    found = {}
    for i, momentum in enumerate(momenta):
        _move(running, new[i], momentum)
        found[f"after_{i + 1}"] = running.copy()
    return found


def batches(rng):
    """A batch with 0, 1 or 2 axes of places, weight and bias, and running statistics, of a few channels."""
    channels = rng.integers(1, 4)
    shape = (rng.integers(2, 6), channels, *rng.integers(1, 5, rng.integers(3)))
    return {
        "x": 2 + 3 * rng.standard_normal(shape),
        "weight": rng.standard_normal(channels),
        "bias": rng.standard_normal(channels),
        "mean": rng.standard_normal(channels),
        "var": rng.uniform(0.5, 2, channels),
        "training": False,
        "momentum": rng.uniform(0.1, 0.4),
    }


def normalised(tt, x, weight, bias, mean, var, training, momentum):
    from tinytorch.convolutions import batch_norm_composed

    mean, var = tt.Tensor(mean), tt.Tensor(var)
    found = gradients(
        tt,
        lambda **inputs: batch_norm_composed(
            **inputs, running_mean=mean, running_var=var, training=training, momentum=momentum
        ),
        input=x,
        weight=weight,
        bias=bias,
    )
    return {**found, "running_mean": mean, "running_var": var}


@probe("ex-09-9", lambda rng: {**batches(rng), "training": True})
def batch_norm_in_training(tt, **inputs):
    return normalised(tt, **inputs)


@probe("ex-09-9", batches)
def batch_norm_in_evaluation(tt, **inputs):
    return normalised(tt, **inputs)


@probe("ex-09-9", lambda rng: {"x": 2 + 3 * rng.standard_normal((4, 3, 2)), "eps": rng.uniform(0.1, 0.5)})
def batch_norm_of_the_batch_alone(tt, x, eps):
    from tinytorch.convolutions import batch_norm_composed

    return {"output": batch_norm_composed(tt.Tensor(x), None, None, training=True, eps=eps)}
