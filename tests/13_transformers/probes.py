"""What the grader asks the answers to lesson 13, beside the reference, on inputs that nobody knows before."""

import numpy as np

from tinytorch_course.grading.probes import gradients, probe, refusal


def named(settings, arrays):
    """The arrays of one of several calls."""
    return {f"{name}_{settings}": array for name, array in arrays.items()}


def filled(module, state):
    """The module with these numbers as its parameters."""
    for name, parameter in module.named_parameters():
        parameter.data[...] = state[name]
    return module


# ---- normalisations


def rows(rng):
    """Rows of one or two axes, far from 0 and some of them small; the first consists of equal numbers."""
    shape = tuple(int(n) for n in rng.integers(1, 4, rng.integers(2))) + (int(rng.integers(3, 7)),)
    lead = (int(rng.integers(4, 7)),)
    size = 10 ** rng.uniform(-3, 1, lead + (1,) * len(shape))
    size[0] = 0
    return {
        "x": size * rng.standard_normal(lead + shape) + rng.standard_normal(),
        "weight": rng.standard_normal(shape),
        "bias": rng.standard_normal(shape),
        "eps": 10 ** rng.uniform(-4, -1),
        "g": rng.standard_normal(lead + shape),
    }


@probe("ex-13-1", rows)
def layer_norm(tt, x, weight, bias, eps, g):
    from tinytorch.transformers import layer_norm_composed as norm

    whole = gradients(tt, lambda x, weight, bias: norm(x, weight.shape, weight, bias, eps), x, weight, bias, g=g)
    plain = gradients(tt, lambda x: norm(x, weight.shape), x, g=g)
    unshifted = gradients(tt, lambda x, weight: norm(x, weight.shape, weight), x, weight, g=g)
    return whole | named("of_rows_alone", plain) | named("without_a_bias", unshifted)


@probe("ex-13-2", rows)
def rms_norm(tt, x, weight, bias, eps, g):
    from tinytorch.transformers import rms_norm_composed as norm

    x = x - bias.flat[0]
    small = tt.Tensor((1e-4 * x).astype(np.float32))
    whole = gradients(tt, lambda x, weight: norm(x, weight.shape, weight, eps), x, weight, g=g)
    plain = gradients(tt, lambda x: norm(x, weight.shape), x, g=g)
    return whole | named("of_rows_alone", plain) | {"small_rows_in_single_precision": norm(small, weight.shape)}


# ---- the parts


def linear_state(rng, name, inputs, outputs):
    return {
        f"{name}.weight": (0.5 * rng.standard_normal((outputs, inputs))).astype(np.float32),
        f"{name}.bias": (0.5 * rng.standard_normal(outputs)).astype(np.float32),
    }


def norm_state(rng, name, width):
    return {f"{name}.{kind}": rng.uniform(0.5, 1.5, width).astype(np.float32) for kind in ("weight", "bias")}


def block_state(rng, width, inner):
    """Numbers for a Block of a GPT-2."""
    state = norm_state(rng, "ln_1", width) | norm_state(rng, "ln_2", width)
    for name in "q_proj", "k_proj", "v_proj", "out_proj":
        state |= linear_state(rng, f"attn.{name}", width, width)
    return state | linear_state(rng, "mlp.c_fc", width, inner) | linear_state(rng, "mlp.c_proj", inner, width)


def wide(rng):
    width, inner = (int(n) for n in rng.integers(2, 7, 2))
    return {
        "x": 2 * rng.standard_normal((*rng.integers(1, 4, 2), width)),
        "state": linear_state(rng, "c_fc", width, inner) | linear_state(rng, "c_proj", inner, width),
        "p": rng.uniform(0.3, 0.7),
        "seed": int(rng.integers(2**31)),
    }


@probe("ex-13-3", wide)
def mlp(tt, x, state, p, seed):
    inner, width = state["c_fc.weight"].shape
    layer, x = filled(tt.MLP(width, inner, p), state), tt.Tensor(x)
    tt.manual_seed(seed)
    return {"in_training": layer(x), "in_evaluation": layer.eval()(x)}


def doors(rng):
    shape = (*rng.integers(1, 4, 2), rng.integers(4, 8))
    gate = 3 * rng.standard_normal(shape)
    gate.flat[:3] = -40, 0, 40
    return {"gate": gate, "up": rng.standard_normal(shape), "g": rng.standard_normal(shape)}


@probe("ex-13-4", doors)
def gated_product(tt, gate, up, g):
    from tinytorch.transformers import swiglu_composed

    return gradients(tt, swiglu_composed, gate, up, g=g)


def streams(rng):
    """A stream, with padding anywhere, and the numbers of a Block."""
    batch, heads = (int(n) for n in rng.integers(1, 4, 2))
    time, width = int(rng.integers(3, 7)), heads * int(rng.integers(3, 6))
    return {
        "x": rng.standard_normal((batch, time, width)) + rng.standard_normal(),
        "padding": rng.random((batch, time)) < 0.3,
        "forbidden": rng.random((batch, 1, time, time)) < 0.4,
        "heads": heads,
        "state": block_state(rng, width, 4 * width),
        "p": rng.uniform(0.3, 0.7),
        "seed": int(rng.integers(2**31)),
    }


@probe("ex-13-5", streams)
def block(tt, x, padding, forbidden, heads, state, p, seed):
    config = tt.GPTConfig(1, x.shape[1], x.shape[2], 1, heads)
    layer, cache = filled(tt.Block(config), state), tt.KVCache(x.shape[1])
    x, padding = tt.Tensor(x), tt.Tensor(padding)
    found = {"stream": layer(x), "stream_with_padding": layer(x, padding)}
    found["stream_with_both_masks"] = layer(x, padding, attn_mask=tt.Tensor(forbidden))
    with tt.no_grad():
        found["stream_before_a_cut"] = layer(x[:, :2], padding[:, :2], cache)
        found["stream_behind_a_cut"] = layer(x[:, 2:], padding, cache)
    layer.dropout = tt.Dropout(p)
    tt.manual_seed(seed)
    return {**found, "stream_with_dropout": layer(x)}


# ---- the whole


def beginnings(rng):
    """A small configuration, and a seed."""
    heads, shared = (int(n) for n in rng.integers(1, 3, 2))
    return {
        "sizes": {
            "vocab_size": int(rng.integers(3, 7)),
            "n_positions": int(rng.integers(2, 6)),
            "n_embd": 4 * heads * shared,
            "n_layer": int(rng.integers(1, 4)),
            "n_head": heads * shared,
            "n_inner": int(rng.integers(3, 7)),
        },
        "n_kv_head": shared,
        "std": rng.uniform(0.1, 2),
        "seed": int(rng.integers(2**31)),
    }


def first_values(tt, config, seed):
    """What `_initialise` makes of parameters that are 7 before."""
    model = tt.GPT(config)
    for parameter in model.parameters():
        parameter.data[...] = 7
    model._initialise(tt.Generator(seed))
    return dict(model.named_parameters())


@probe("ex-13-6", beginnings)
def first_values_of_a_gpt2(tt, sizes, n_kv_head, std, seed):
    return first_values(tt, tt.GPTConfig(**sizes, initializer_range=std), seed)


@probe("ex-13-6", beginnings)
def first_values_of_a_llama(tt, sizes, n_kv_head, std, seed):
    return first_values(tt, tt.GPTConfig.llama(**sizes, n_kv_head=n_kv_head, initializer_range=std), seed)


def texts(rng):
    """Ids, padding anywhere, and the numbers of a GPT with a few more positions."""
    batch, heads, layers = (int(n) for n in rng.integers(1, 4, 3))
    time, vocabulary = (int(n) for n in rng.integers(3, 7, 2))
    width = heads * 2 * int(rng.integers(2, 4))
    sizes = {"wte": vocabulary, "wpe": time + int(rng.integers(3)), "lm_head": vocabulary}
    state = {f"{name}.weight": rng.standard_normal((n, width)).astype(np.float32) for name, n in sizes.items()}
    for i in range(layers):
        state |= {f"h.{i}.{name}": array for name, array in block_state(rng, width, 4 * width).items()}
    return {
        "ids": rng.integers(0, vocabulary, (batch, time)),
        "padding": rng.random((batch, time)) < 0.3,
        "documents": np.cumsum(rng.random((batch, time)) < 0.4, axis=1),
        "heads": heads,
        "layers": layers,
        "state": state | norm_state(rng, "ln_f", width),
        "p": rng.uniform(0.3, 0.7),
        "seed": int(rng.integers(2**31)),
    }


def gpt(tt, heads, layers, state, positions):
    vocabulary, width = state["wte.weight"].shape
    config = tt.GPTConfig(vocabulary, len(state["wpe.weight"]), width, layers, heads, positions=positions)
    return filled(tt.GPT(config), state)


def in_two_parts(tt, model, ids, padding):
    """Logits of the first two ids, and of those that come after them."""
    cache = model.new_cache()
    with tt.no_grad():
        before = model(ids[:, :2], padding[:, :2], cache)
        return {"logits_before_a_cut": before, "logits_behind_a_cut": model(ids[:, 2:], padding, cache)}


@probe("ex-13-7", texts)
def logits(tt, ids, padding, documents, heads, layers, state, p, seed):
    model, ids, padding = gpt(tt, heads, layers, state, "learned"), tt.Tensor(ids), tt.Tensor(padding)
    found = {"logits": model(ids), "logits_with_padding": model(ids, key_padding_mask=padding)}
    found["logits_of_documents"] = model(ids, documents=tt.Tensor(documents))
    found |= in_two_parts(tt, model, ids, padding)
    model.dropout = tt.Dropout(p)
    tt.manual_seed(seed)
    return {**found, "logits_with_dropout": model(ids)}


@probe("ex-13-7", texts)
def logits_with_rotary_positions(tt, ids, padding, documents, heads, layers, state, p, seed):
    model, ids, padding = gpt(tt, heads, layers, state, "rotary"), tt.Tensor(ids), tt.Tensor(padding)
    packed = model(ids, documents=tt.Tensor(documents))
    return {"logits": model(ids), "logits_of_documents": packed, **in_two_parts(tt, model, ids, padding)}


# ---- the loss, and the next token


def sentences(rng):
    """Ids, how many of each row are no padding, and what a model of them knows."""
    batch, time, vocabulary = rng.integers(1, 4), rng.integers(3, 7), int(rng.integers(3, 8))
    ids = rng.integers(0, vocabulary, (batch, time))
    ids[0, 0], ids[:, 1] = 0, 1  # padding that disturbs, and a target that is no padding
    return {
        "ids": ids,
        "lengths": rng.integers(2, time, batch),
        "table": rng.standard_normal((vocabulary, vocabulary)),
        "disturbance": rng.standard_normal(vocabulary),
    }


@probe("ex-13-8", sentences)
def surprise_at_the_next_token(tt, ids, lengths, table, disturbance):
    found, beyond = {}, np.arange(ids.shape[1]) >= lengths[:, None]
    for name, pad_id in ("no_padding", None), ("padding_0", 0), ("another_padding", len(table) - 1):
        weight = tt.Tensor(table, requires_grad=True)

        def model(inputs, key_padding_mask=None):  # knows one token, and is disturbed by padding up to there
            if key_padding_mask is None:
                return weight[inputs]
            before = np.cumsum(key_padding_mask.numpy(), axis=1)[..., None]
            return weight[inputs] + tt.Tensor(before * disturbance)

        text = ids if pad_id is None else np.where(beyond, pad_id, ids)
        loss, count = tt.next_token_loss(model, tt.Tensor(text), pad_id)
        loss.backward()
        found |= named(f"with_{name}", {"loss": loss, "count": count, "gradient": weight.grad})
    return found


def choices(rng):
    """Logits in single precision, many of them equal and some -inf, and settings."""
    vocabulary = int(rng.integers(5, 9))
    logits = rng.standard_normal((60, vocabulary)).astype(np.float32)
    logits[::2] = rng.integers(-3, 4, (30, vocabulary)) / 2
    logits[::3, rng.integers(1, vocabulary)] = -np.inf
    return {
        "logits": logits,
        "temperature": float(rng.choice([0.4, 2.5]) * rng.uniform(0.8, 1.2)),
        "top_k": int(rng.integers(1, vocabulary - 1)),
        "top_p": rng.uniform(0.5, 0.9),
        "seed": int(rng.integers(2**31)),
    }


@probe("ex-13-9", choices)
def next_tokens(tt, logits, temperature, top_k, top_p, seed):
    from tinytorch.transformers import sample

    settings = {
        "as_they_are": {},
        "with_a_temperature": {"temperature": temperature},
        "with_top_k": {"top_k": top_k},
        "with_top_p": {"top_p": top_p},
        "with_all": {"temperature": temperature, "top_k": top_k + 1, "top_p": top_p},
        "greedily": {"temperature": 0},
    }
    found = {name: sample(logits, generator=tt.Generator(seed), **given) for name, given in settings.items()}
    return {**found, "of_what_is_no_number": refusal(sample, np.append(logits[0], np.nan)[None])}
