"""The probes of lesson 11 on seeds that everybody knows, beside plain NumPy."""

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def rows_and_gradient(ids, weight, g, padding=None):
    """One place after the other: its row, and what it adds to the gradient of that row."""
    rows, gradient = np.zeros_like(g), np.zeros_like(weight)
    for place in np.ndindex(ids.shape):
        rows[place] = weight[ids[place]]
        if ids[place] != padding:
            gradient[ids[place]] += g[place]
    return rows, gradient


def lookup_by_a_product(ids, weight, g):
    rows, gradient = rows_and_gradient(ids, weight, g)
    return {"rows": rows, "gradient": gradient}


def lookup(ids, weight, g):
    rows, gradient = rows_and_gradient(ids, weight, g)
    _, padded = rows_and_gradient(ids, weight, g, padding=ids.flat[0])
    return {
        "rows": rows,
        "gradient": gradient,
        "gradient_with_padding": padded,
        "gradient_with_padding_counted_from_the_end": padded,
    }


def ids_outside_the_table(weight):
    return {"below_0": "IndexError", "too_large": "IndexError", "no_integers": "TypeError"}


def table(rows, columns, padding, seed):
    weight = np.random.Generator(np.random.PCG64(seed)).standard_normal((rows, columns), dtype=np.float32)
    first, other = weight.copy(), weight.copy()
    first[0] = other[padding] = 0
    return {
        "weight": weight,
        "weight_with_padding_0": first,
        "weight_with_padding": other,
        "settings": [rows, columns, padding],
        "names_of_parameters": ["weight"],
        "no_rows": "ValueError",
        "padding_outside": "IndexError",
    }


def hands(positions, dim, theta):
    """e^(i angle) of each position and pair, (..., dim / 2): each hand turns slower than the one before it."""
    angles = [positions / theta ** (2 * pair / dim) for pair in range(dim // 2)]
    return np.exp(1j * np.stack(angles, -1))


def angles(positions, length, dim, theta):
    given = hands(positions, dim, theta)
    single = hands(positions, dim, 10_000).astype(np.complex64)
    counted = hands(np.arange(length), dim, theta).astype(np.complex64)
    return {
        "cos": given.real,
        "sin": given.imag,
        "cos_in_single_precision": single.real,
        "sin_in_single_precision": single.imag,
        "cos_of_a_length": counted.real,
        "sin_of_a_length": counted.imag,
        "odd_dim": "ValueError",
        "theta_of_0": "ValueError",
        "positions_that_are_no_integers": "TypeError",
    }


def sines_and_cosines(length, dim):
    tips = hands(np.arange(length), dim, 10_000)
    expected = np.empty((length, dim), np.float32)
    expected[:, 0::2], expected[:, 1::2] = tips.imag, tips.real
    return {"table": expected, "odd_dim": "ValueError", "no_length": "ValueError"}


def channels(dim, interleaved):
    """The first and the second channel of each pair."""
    pairs = np.arange(dim // 2)
    return (2 * pairs, 2 * pairs + 1) if interleaved else (pairs, pairs + dim // 2)


def turned(x, by, interleaved):
    """A pair is a complex number, which is turned by a product."""
    first, second = channels(x.shape[-1], interleaved)
    z, y = (x[..., first] + 1j * x[..., second]) * by, np.empty_like(x)
    y[..., first], y[..., second] = z.real, z.imag
    return y


def turned_with_gradients(x, cos, sin, g, interleaved):
    by = cos + 1j * sin
    first, second = channels(x.shape[-1], interleaved)
    of_angles = (x[..., first] - 1j * x[..., second]) * (g[..., first] + 1j * g[..., second])
    of_angles = of_angles.reshape(-1, *cos.shape).sum(0)
    return {
        "output": turned(x, by, interleaved),
        "gradient": turned(g, by.conj(), interleaved),
        "gradient_of_cos": of_angles.real,
        "gradient_of_sin": of_angles.imag,
    }


def halves_turned(x, cos, sin, g):
    return turned_with_gradients(x, cos, sin, g, interleaved=False)


def neighbours_turned(x, cos, sin, g):
    return turned_with_gradients(x, cos, sin, g, interleaved=True)


def rotary_layer(x, near, far, theta, interleaved):
    def from_position(start):
        positions = np.arange(start, start + x.shape[1])
        return turned(x, hands(positions, x.shape[-1], theta), interleaved)

    return {
        "from_0": from_position(0).astype(np.float32),
        "past_the_end_of_the_table": from_position(near).astype(np.float32),
        "far_past_the_end": from_position(far).astype(np.float32),
        "in_double_precision": from_position(near),
        "from_0_again": from_position(0).astype(np.float32),
    }


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
