"""The probes of lesson 13 on seeds that everybody knows, beside plain NumPy."""

import itertools

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def kept(seed, shape, p):
    """What dropout multiplies with: one draw for each number."""
    return (np.random.Generator(np.random.PCG64(seed)).random(shape, dtype=np.float32) >= p) / (1 - p)


# ---- normalisations


def normalised(x, g, weight, bias=None, eps=1e-5, shift=True):
    """One row after the other, with the whole matrix of its derivatives, (n, n)."""
    output, gradient, to_weight = np.empty_like(x), np.empty_like(x), np.zeros_like(weight)
    ones = np.full((weight.size, weight.size), 1 / weight.size) if shift else 0
    for i, row in enumerate(x.reshape(len(x), -1)):
        row = row - row.mean() if shift else row
        size = np.sqrt(np.mean(row**2) + eps)
        normal = row / size
        jacobian = (np.eye(row.size) - ones - np.outer(normal, normal) / row.size) / size
        output[i] = normal.reshape(weight.shape) * weight + (0 if bias is None else bias)
        gradient[i] = ((g[i] * weight).ravel() @ jacobian).reshape(weight.shape)
        to_weight += g[i] * normal.reshape(weight.shape)
    return {"output": output, "gradient_0": gradient, "gradient_1": to_weight}


def without_weight(found, settings):
    return {f"{name}_{settings}": found[name] for name in ("output", "gradient_0")}


def layer_norm(x, weight, bias, eps, g):
    unshifted = normalised(x, g, weight)
    return {
        **normalised(x, g, weight, bias, eps),
        "gradient_2": g.sum(0),
        **without_weight(normalised(x, g, np.ones_like(weight)), "of_rows_alone"),
        **{f"{name}_without_a_bias": array for name, array in unshifted.items()},
    }


def rms_norm(x, weight, bias, eps, g):
    x, plain = x - bias.flat[0], np.ones_like(weight)
    small = normalised((1e-4 * x).astype(np.float32), g, plain, eps=2.0**-23, shift=False)
    return {
        **normalised(x, g, weight, eps=eps, shift=False),
        **without_weight(normalised(x, g, plain, eps=2.0**-52, shift=False), "of_rows_alone"),
        "small_rows_in_single_precision": small["output"],
    }


# ---- the parts


def linear(x, state, name):
    return x @ state[f"{name}.weight"].astype(float).T + state[f"{name}.bias"]


def norm(x, state, name):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]


def bent(x, state, prefix=""):
    """The MLP without its dropout; gelu in the tanh form of Hendrycks and Gimpel 2016."""
    x = linear(x, state, f"{prefix}c_fc")
    return linear(x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), state, f"{prefix}c_proj")


def mlp(x, state, p, seed):
    y = bent(x, state)
    return {"in_training": y * kept(seed, y.shape, p), "in_evaluation": y}


def gated_product(gate, up, g):
    opening = 1 / (1 + np.exp(-gate))
    slope = opening + gate * opening * (1 - opening)
    return {"output": gate * opening * up, "gradient_0": g * up * slope, "gradient_1": g * gate * opening}


def turned(x):
    """(T, D): channel i and channel i + D / 2 as a complex number, turned by its position's angle."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] / 10_000 ** (np.arange(half) / half)
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate((z.real, z.imag), -1)


def attended(x, state, heads, padding, rotary, forbidden=None):
    """Each head of each sequence alone; a query that may see no key says 0."""
    q, k, v = (linear(x, state, f"attn.{name}_proj") for name in "qkv")
    y, width = np.zeros_like(x), x.shape[-1] // heads
    for b in range(len(x)):
        visible = np.tri(x.shape[1]) * ~padding[b] * (1 if forbidden is None else ~forbidden[b, 0])
        for channels in np.split(np.arange(x.shape[-1]), heads):
            a, c = (turned(z[b][:, channels]) if rotary else z[b][:, channels] for z in (q, k))
            weights = np.exp(a @ c.T / np.sqrt(width)) * visible
            weights /= np.where(visible.any(1), weights.sum(1), 1)[:, None]
            y[b][:, channels] = weights @ v[b][:, channels]
    return linear(y, state, "attn.out_proj")


def through_block(x, state, heads, padding, rotary=False, keep=1, forbidden=None):
    x = x + keep * attended(norm(x, state, "ln_1"), state, heads, padding, rotary, forbidden)
    return x + bent(norm(x, state, "ln_2"), state, "mlp.")


def block(x, padding, forbidden, heads, state, p, seed):
    nothing = np.zeros_like(padding)
    padded = through_block(x, state, heads, padding)
    return {
        "stream": through_block(x, state, heads, nothing),
        "stream_with_padding": padded,
        "stream_with_both_masks": through_block(x, state, heads, padding, forbidden=forbidden),
        "stream_before_a_cut": padded[:, :2],
        "stream_behind_a_cut": padded[:, 2:],
        "stream_with_dropout": through_block(x, state, heads, nothing, keep=kept(seed, x.shape, p)),
    }


# ---- the whole


def drawn(shapes, writers, sizes, std, seed):
    """First values in the order of the shapes: draws for matrices, 0 for biases, 7 for what is left alone."""
    generator, values = np.random.Generator(np.random.PCG64(seed)), {}
    for name, shape in shapes.items():
        if len(shape) == 2:
            smaller = (2 * sizes["n_layer"]) ** 0.5 if name.endswith(writers) else 1
            values[name] = generator.standard_normal(shape, dtype=np.float32) * std / smaller
        else:
            values[name] = np.full(shape, 0 if name.endswith("bias") else 7, np.float32)
    return values


def first_values_of_a_gpt2(sizes, n_kv_head, std, seed):
    width, inner, vocabulary = sizes["n_embd"], sizes["n_inner"], sizes["vocab_size"]
    shapes = {"wte.weight": (vocabulary, width), "wpe.weight": (sizes["n_positions"], width)}
    for i in range(sizes["n_layer"]):
        for name, shape in {
            "ln_1": (width,),
            **{f"attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")},
            "ln_2": (width,),
            "mlp.c_fc": (inner, width),
            "mlp.c_proj": (width, inner),
        }.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[:1]}
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,), "lm_head.weight": (vocabulary, width)}
    return drawn(shapes, ("out_proj.weight", "c_proj.weight"), sizes, std, seed)


def first_values_of_a_llama(sizes, n_kv_head, std, seed):
    width, inner, vocabulary = sizes["n_embd"], sizes["n_inner"], sizes["vocab_size"]
    shared = n_kv_head * width // sizes["n_head"]
    shapes = {"wte.weight": (vocabulary, width)}
    for i in range(sizes["n_layer"]):
        for name, shape in {
            "ln_1": (width,),
            **{f"attn.{name}_proj": (size, width) for name, size in zip("qkv", (width, shared, shared))},
            "attn.out_proj": (width, width),
            "ln_2": (width,),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }.items():
            shapes[f"h.{i}.{name}.weight"] = shape
    shapes |= {"ln_f.weight": (width,), "lm_head.weight": (vocabulary, width)}
    return drawn(shapes, ("out_proj.weight", "down_proj.weight"), sizes, std, seed)


def through_gpt(ids, state, heads, layers, padding, rotary=False, keep=1):
    x = state["wte.weight"][ids].astype(float)
    on_the_left = np.argmin(np.pad(padding, ((0, 0), (0, 1))), axis=1)  # how many positions say nothing before the text
    places = np.maximum(np.arange(ids.shape[1]) - on_the_left[:, None], 0)
    x = keep * (x if rotary else x + state["wpe.weight"][places])
    for i in range(layers):
        prefix = f"h.{i}."
        own = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
        x = through_block(x, own, heads, padding, rotary)
    return (norm(x, state, "ln_f") @ state["lm_head.weight"].T).astype(np.float32)


def one_by_one(ids, documents, *rest, **settings):
    """The logits of each document alone."""
    rows = []
    for row, numbers in zip(ids, documents):
        parts = [row[numbers == number][None] for number in np.unique(numbers)]
        rows.append(np.concatenate([through_gpt(part, *rest, part < 0, **settings)[0] for part in parts]))
    return np.stack(rows)


def logits(ids, padding, documents, heads, layers, state, p, seed):
    nothing = np.zeros_like(padding)
    padded = through_gpt(ids, state, heads, layers, padding)
    keep = kept(seed, (*ids.shape, state["wte.weight"].shape[1]), p)
    return {
        "logits": through_gpt(ids, state, heads, layers, nothing),
        "logits_with_padding": padded,
        "logits_of_documents": one_by_one(ids, documents, state, heads, layers),
        "logits_before_a_cut": padded[:, :2],
        "logits_behind_a_cut": padded[:, 2:],
        "logits_with_dropout": through_gpt(ids, state, heads, layers, nothing, keep=keep),
    }


def logits_with_rotary_positions(ids, padding, documents, heads, layers, state, p, seed):
    padded = through_gpt(ids, state, heads, layers, padding, rotary=True)
    return {
        "logits": through_gpt(ids, state, heads, layers, np.zeros_like(padding), rotary=True),
        "logits_of_documents": one_by_one(ids, documents, state, heads, layers, rotary=True),
        "logits_before_a_cut": padded[:, :2],
        "logits_behind_a_cut": padded[:, 2:],
    }


# ---- the loss, and the next token


def surprise_at_the_next_token(ids, lengths, table, disturbance):
    """One pair of neighbours after the other."""
    found = {}
    for name, pad_id in ("no_padding", None), ("padding_0", 0), ("another_padding", len(table) - 1):
        losses, gradient = [], np.zeros_like(table)
        for row, length in zip(ids, lengths):
            text = [pad_id if i >= length and pad_id is not None else token for i, token in enumerate(row)]
            for i, (token, following) in enumerate(itertools.pairwise(text)):
                if following == pad_id:
                    continue
                p = np.exp(table[token] + disturbance * text[: i + 1].count(pad_id))
                p /= p.sum()
                losses.append(-np.log(p[following]))
                gradient[token] += p - (np.arange(len(table)) == following)
        found[f"loss_with_{name}"] = np.mean(losses)
        found[f"count_with_{name}"] = len(losses)
        found[f"gradient_with_{name}"] = gradient / len(losses)
    return found


def token(row, dart, temperature=1.0, top_k=None, top_p=1.0):
    """Where a dart sticks in the probabilities of one row, laid end to end from the likeliest down."""
    order = sorted(range(len(row)), key=lambda i: -row[i])[:top_k]
    p = np.exp((row[order].astype(float) - row.max()) / temperature)
    p, nucleus, reached = p / p.sum(), [], 0.0
    while len(nucleus) < len(p) and reached < top_p:
        reached += p[len(nucleus)]
        nucleus.append(order[len(nucleus)])
    dart *= reached
    for i, piece in zip(nucleus, p):
        dart -= piece
        if dart < 0:
            return i
    return nucleus[-1]


def next_tokens(logits, temperature, top_k, top_p, seed):
    settings = {
        "as_they_are": {},
        "with_a_temperature": {"temperature": temperature},
        "with_top_k": {"top_k": top_k},
        "with_top_p": {"top_p": top_p},
        "with_all": {"temperature": temperature, "top_k": top_k + 1, "top_p": top_p},
    }
    darts = np.random.Generator(np.random.PCG64(seed)).random(len(logits))
    found = {name: [token(*at, **given) for at in zip(logits, darts)] for name, given in settings.items()}
    greedy = [row.tolist().index(row.max()) for row in logits]
    return {**found, "greedily": greedy, "of_what_is_no_number": "ValueError"}


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
