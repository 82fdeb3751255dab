"""Values, gradients and trajectories are PyTorch's, as make_golden.py wrote them down. No PyTorch is needed here."""

import functools
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close

TOLERANCES = {"float64": 1e-10, "float32": 1e-5}
in_both_precisions = pytest.mark.parametrize("dtype", TOLERANCES)


def assert_golden(actual, expected, dtype, what="The result"):
    """Equal to the precision of the dtype, where a sum of large numbers may come out small."""
    tolerance = TOLERANCES[dtype]
    assert_close(actual, expected, tolerance, atol=0.2 * tolerance * max(1, np.abs(expected).max()), what=what)


@functools.cache
def archive(name):
    with np.load(Path(__file__).with_name(f"{name}.npz")) as file:
        return dict(file)


def golden(name, case):
    """The arrays of one case by their short names."""
    prefix = f"{case}/"
    found = {key.removeprefix(prefix): a for key, a in archive(name).items() if key.startswith(prefix)}
    assert found, f"{name}.npz has no case {case}"
    return found


def leaf(array, dtype):
    return tt.tensor(array.astype(dtype) if array.dtype.kind == "f" else array, requires_grad=array.dtype.kind == "f")


def check(values, dtype, function, *names):
    """function(*inputs) is y, and g sent back into it reaches every input as the gradient that PyTorch found."""
    inputs = {name: leaf(values[name], dtype) for name in names}
    y = function(*inputs.values())
    assert y.dtype == dtype
    assert_golden(y, values["y"], dtype)
    y.backward(values["g"])
    gradients = [name for name in names if inputs[name].requires_grad]
    assert gradients
    for name in gradients:
        assert_golden(inputs[name].grad, values[f"grad_{name}"], dtype, what=f"The gradient of {name}")


# ---- modules 02 and 03


ACTIVATIONS = {
    "relu": tt.relu,
    "sigmoid": tt.sigmoid,
    "tanh": tt.tanh,
    "silu": tt.silu,
    "gelu": tt.gelu,
    "gelu_tanh": lambda x: tt.gelu(x, approximate="tanh"),
    "erf": tt.erf,
    "softmax": tt.softmax,
    "softmax_dim0": lambda x: tt.softmax(x, 0),
    "log_softmax": tt.log_softmax,
    "log_softmax_dim0": lambda x: tt.log_softmax(x, 0),
}


@in_both_precisions
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_agrees(name, dtype):
    check(golden("activations", name), dtype, ACTIVATIONS[name], "x")


@in_both_precisions
@pytest.mark.parametrize("name", ["linear", "linear_no_bias"])
def test_linear_agrees(name, dtype):
    values = golden("layers", name)
    check(values, dtype, tt.linear, *(key for key in ("x", "weight", "bias") if key in values))


@in_both_precisions
def test_embedding_with_padding_agrees(dtype):
    check(golden("layers", "embedding"), dtype, lambda x, w: tt.embedding(x, w, padding_idx=1), "x", "weight")


@in_both_precisions
@pytest.mark.parametrize(("name", "shape", "eps"), [("layer_norm", (6,), 1e-5), ("layer_norm_2d", (3, 6), 1e-3)])
def test_layer_norm_agrees(name, shape, eps, dtype):
    check(golden("layers", name), dtype, lambda x, w, b: tt.layer_norm(x, shape, w, b, eps), "x", "weight", "bias")


# ---- module 09


CONVOLUTIONS = {
    "conv2d": tt.conv2d,
    "conv2d_all": partial(tt.conv2d, stride=(2, 1), padding=(1, 2), dilation=(3, 2), groups=2),
    "conv1d": partial(tt.conv1d, stride=2, padding=2, dilation=2),
    "conv1d_same": partial(tt.conv1d, padding="same", groups=4),
    "max_pool2d": lambda x: tt.max_pool2d(x, (3, 2), stride=(2, 1), padding=1),
    "avg_pool2d": lambda x: tt.avg_pool2d(x, (3, 2), stride=(2, 1), padding=1),
    "max_pool1d": lambda x: tt.max_pool1d(x, 2),
    "avg_pool1d": lambda x: tt.avg_pool1d(x, 2),
}


@in_both_precisions
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_or_pooling_agrees(name, dtype):
    values = golden("convolutions", name)
    check(values, dtype, CONVOLUTIONS[name], *(key for key in ("x", "weight", "bias") if key in values))


@in_both_precisions
@pytest.mark.parametrize(("name", "training"), [("rows", True), ("images", True), ("evaluation", False)])
def test_batch_norm_agrees(name, training, dtype):
    values = golden("convolutions", f"batch_norm_{name}")
    running = [tt.tensor(values[key].astype(dtype)) for key in ("mean", "var")]

    def function(x, weight, bias):
        return tt.batch_norm(x, *running, weight, bias, training, momentum=0.3, eps=1e-3)

    check(values, dtype, function, "x", "weight", "bias")
    for key, tensor in zip(("mean", "var"), running):
        assert_golden(tensor, values[f"{key}_after"], dtype, what=f"The running {key}")


@in_both_precisions
def test_a_network_of_images_learns_and_judges_as_its_twin(dtype):
    values = golden("convolutions", "network")
    model = tt.Sequential(
        tt.Conv2d(1, 3, 3, padding=1, bias=False), tt.BatchNorm2d(3), tt.ReLU(), tt.MaxPool2d(2),
        tt.Conv2d(3, 4, 3, padding=1), tt.ReLU(), tt.AvgPool2d(2), tt.Flatten(), tt.BatchNorm1d(16), tt.Linear(16, 3),
    ).to(dtype=np.dtype(dtype))  # fmt: skip
    model.load_state_dict(golden("convolutions", "state"))
    optimizer = tt.Adam(model.parameters(), lr=1e-2)
    x, target, losses = tt.tensor(values["x"].astype(dtype)), tt.tensor(values["target"]), []
    for _ in values["losses"]:
        optimizer.zero_grad()
        loss = tt.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    assert_close(losses, values["losses"], tolerance, tolerance)
    assert_close(model.eval()(x), values["logits"], tolerance, tolerance)


# ---- module 12


@in_both_precisions
@pytest.mark.parametrize(
    ("name", "settings"),
    [("plain", {}), ("scale", {"scale": 2.0}), ("causal", {"is_causal": True}), ("boolean", {}), ("float", {})],
)
def test_scaled_dot_product_attention_agrees(name, settings, dtype):
    values = golden("attention", name)
    names = [key for key in ("q", "k", "v", "mask") if key in values]
    check(values, dtype, lambda *inputs: tt.scaled_dot_product_attention(*inputs, **settings), *names)


def multi_head_attention(dtype):
    """PyTorch's own state dict, with queries, keys and values stacked, in a module of ours."""
    module = tt.MultiHeadAttention(8, 2).to(dtype=np.dtype(dtype))
    module.load_state_dict(golden("multi_head_attention", "state"))
    return module


@in_both_precisions
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("name", ["self", "causal", "added", "padding", "causal_padding", "cross"])
def test_multi_head_attention_agrees(name, need_weights, dtype):
    values, module = golden("multi_head_attention", name), multi_head_attention(dtype)
    query = leaf(values["query"], dtype)
    others = [tt.tensor(values[key].astype(dtype)) for key in ("key", "value") if key in values]
    masks = {key: tt.tensor(values[key]) for key in ("attn_mask", "key_padding_mask") if key in values}
    if name == "added":
        masks = {"attn_mask": masks["attn_mask"].to(dtype=query.dtype)}
    y = module(query, *others, **masks, need_weights=need_weights)
    if need_weights:
        y, weights = y
        assert_golden(weights, values["weights"], dtype)
    assert_golden(y, values["y"], dtype)
    y.backward(values["g"])
    assert_golden(query.grad, values["grad_query"], dtype)
    for kind in ("weight", "bias"):
        stacked = [getattr(proj, kind).grad for proj in (module.q_proj, module.k_proj, module.v_proj)]
        assert_golden(tt.cat(stacked), values[f"grad_in_proj_{kind}"], dtype)
        assert_golden(getattr(module.out_proj, kind).grad, values[f"grad_out_proj.{kind}"], dtype)


def test_causal_flag_is_the_causal_mask():
    values, module = golden("multi_head_attention", "causal"), multi_head_attention("float64")
    assert_golden(module(tt.tensor(values["query"]), is_causal=True), values["y"], "float64")


# ---- module 04


LOSSES = {
    "mse": tt.mse_loss,
    "bce": tt.binary_cross_entropy,
    "bce_with_logits": tt.binary_cross_entropy_with_logits,
    "cross_entropy": tt.cross_entropy,
    "cross_entropy_d1": tt.cross_entropy,
}


@in_both_precisions
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_agrees(name, reduction, dtype):
    values = golden("losses", f"{name}_{reduction}")
    target = leaf(values["target"], dtype).detach()
    check(values, dtype, lambda x: LOSSES[name](x, target, reduction=reduction), "x")


# ---- module 06


def parameters(dtype):
    return {key: tt.Parameter(array.astype(dtype)) for key, array in golden("optimizers", "start").items()}


@in_both_precisions
@pytest.mark.parametrize(
    "name",
    [
        "sgd",
        "sgd_weight_decay",
        "sgd_momentum",
        "sgd_dampening",
        "sgd_nesterov",
        "adam",
        "adam_weight_decay",
        "adamw",
        "adamw_default_decay",
    ],
)
def test_optimizer_after_ten_steps_agrees(name, dtype):
    values, params, grads = golden("optimizers", name), parameters(dtype), golden("optimizers", "grads")
    kind, settings = str(values["optimizer"]), json.loads(str(values["settings"]))
    optimizer = getattr(tt, kind)(params.values(), **settings)
    for i in range(len(grads["0"])):
        for key, p in params.items():
            p.grad = tt.tensor(grads[key][i].astype(dtype))
        optimizer.step()
    for key, p in params.items():
        assert p.dtype == dtype
        assert_golden(p, values[key], dtype)


@in_both_precisions
@pytest.mark.parametrize("name", ["clip", "clip_not_needed"])
def test_clip_grad_norm_agrees(name, dtype):
    values, params, grads = golden("optimizers", name), parameters(dtype), golden("optimizers", "grads")
    for key, p in params.items():
        p.grad = tt.tensor(grads[key][0].astype(dtype))
    norm = tt.clip_grad_norm_(params.values(), float(values["max_norm"]))
    assert_golden(norm, values["norm"], "float32")
    for key, p in params.items():
        assert_golden(p.grad, values[key], dtype)


def warmup_then_cosine(optimizer):
    parts = [tt.LinearLR(optimizer, 0.1, total_iters=4), tt.CosineAnnealingLR(optimizer, 8, eta_min=0.01)]
    return tt.SequentialLR(optimizer, parts, [4])


def with_a_jump(optimizer):
    return tt.SequentialLR(optimizer, [tt.LinearLR(optimizer, 0.2, total_iters=6), tt.StepLR(optimizer, 2, 0.5)], [4])


SCHEDULES = {
    "step": lambda optimizer: tt.StepLR(optimizer, 3, gamma=0.5),
    "linear": tt.LinearLR,
    "linear_down": lambda optimizer: tt.LinearLR(optimizer, 1.0, 0.25, 8),
    "cosine": lambda optimizer: tt.CosineAnnealingLR(optimizer, 10, eta_min=0.02),
    "lambda": lambda optimizer: tt.LambdaLR(optimizer, lambda step: 0.9**step),
    "warmup_then_cosine": warmup_then_cosine,
    "with_a_jump": with_a_jump,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_agrees(name):
    groups = [{"params": [tt.Parameter([0.0])]}, {"params": [tt.Parameter([0.0])], "lr": 0.5}]
    optimizer = tt.SGD(groups, lr=0.1)
    schedule = SCHEDULES[name](optimizer)
    expected = golden("schedules", name)["lr"]
    for step, lrs in enumerate(expected):
        assert_close(
            [group["lr"] for group in optimizer.param_groups], lrs, 1e-12, 1e-12, what=f"The rate of step {step}"
        )
        assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        schedule.step()


# ---- module 13


def gpt(dtype):
    config = tt.GPTConfig(**json.loads(str(golden("gpt", "values")["config"])))
    model = tt.GPT(config).to(dtype=np.dtype(dtype))
    model.load_state_dict(golden("gpt", "state"))
    return model


def gpt_loss(model):
    inputs, targets = (tt.tensor(golden("gpt", "values")[name]) for name in ("inputs", "targets"))
    logits = model(inputs)
    return logits, tt.cross_entropy(logits.flatten(0, 1), targets.flatten())


@in_both_precisions
def test_gpt_logits_loss_and_gradients_agree(dtype):
    values, gradients = golden("gpt", "values"), golden("gpt", "grad")
    model = gpt(dtype)
    logits, loss = gpt_loss(model)
    assert_golden(logits, values["logits"], dtype)
    assert_golden(loss, values["loss"], dtype)
    loss.backward()
    own = dict(model.named_parameters())
    assert own.keys() == gradients.keys()
    for name, parameter in own.items():
        assert_golden(parameter.grad, gradients[name], dtype, what=f"The gradient of {name}")


@in_both_precisions
def test_gpt_learns_as_its_twin(dtype):
    model = gpt(dtype)
    optimizer = tt.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in golden("gpt", "values")["training"]:
        _, loss = gpt_loss(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    assert_close(losses, golden("gpt", "values")["training"], tolerance, tolerance)
