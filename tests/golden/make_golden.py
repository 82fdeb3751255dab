"""Write PyTorch's results beside this file, for test_golden.py to compare with where no PyTorch is installed.

Run by hand where PyTorch 2.13 is installed: python tests/golden/make_golden.py, or only for some of the files, by name:
python tests/golden/make_golden.py layers losses

A key is `case/name`: the inputs of a case under their own names, its output `y`, the gradient `g` that was sent back
into y, and the gradients `grad_NAME` that reached the inputs. Floats are float64, so that the comparison can be sharp.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "benchmarks"))

import torch_gpt  # noqa: E402

STEPS = 10


def backward(function, **inputs):
    """The inputs, y = function(*inputs), a random g, and the gradients of all floating point inputs."""
    leaves = {name: x.clone().requires_grad_() if x.is_floating_point() else x for name, x in inputs.items()}
    y = function(*leaves.values())
    g = torch.randn_like(y)
    y.backward(g)
    grads = {f"grad_{name}": x.grad for name, x in leaves.items() if x.requires_grad}
    return {**inputs, "y": y, "g": g, **grads}


def with_parameters(module, x):
    """`backward` of a module of one input, its parameters being inputs too."""
    state = {name: parameter.detach() for name, parameter in module.named_parameters()}

    def function(x, *parameters):
        return torch.func.functional_call(module, dict(zip(state, parameters)), (x,))

    return backward(function, x=x, **state)


def randomise(module):
    """Biases of zero and weights of one would hide mistakes."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def activations():
    x = 3 * torch.randn(4, 7)
    x[0, :4] = torch.tensor([0.0, -0.46875, 30.0, -30.0])  # the kink, a seam of erf's tables, both tails
    functions = {
        "relu": torch.relu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "silu": F.silu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "erf": torch.erf,
        "softmax": lambda x: torch.softmax(x, -1),
        "softmax_dim0": lambda x: torch.softmax(x, 0),
        "log_softmax": lambda x: torch.log_softmax(x, -1),
        "log_softmax_dim0": lambda x: torch.log_softmax(x, 0),
    }
    return {name: backward(function, x=x) for name, function in functions.items()}


def layers():
    ids = torch.tensor([[1, 4, 4], [0, 1, 2]])  # 4 twice, and 1 is the padding
    return {
        "linear": with_parameters(randomise(nn.Linear(5, 4)), torch.randn(2, 3, 5)),
        "linear_no_bias": with_parameters(randomise(nn.Linear(5, 4, bias=False)), torch.randn(3, 5)),
        "embedding": with_parameters(randomise(nn.Embedding(6, 3, padding_idx=1)), ids),
        "layer_norm": with_parameters(randomise(nn.LayerNorm(6)), 5 + 2 * torch.randn(2, 3, 6)),
        "layer_norm_2d": with_parameters(randomise(nn.LayerNorm((3, 6), eps=1e-3)), torch.randn(2, 3, 6)),
    }


def multi_head_attention():
    module = randomise(nn.MultiheadAttention(8, 2, batch_first=True))
    x, memory, values = torch.randn(2, 5, 8), torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    future = torch.ones(5, 5).triu(1).bool()
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    cases = {
        "self": (x, x, x, {}),
        "causal": (x, x, x, {"attn_mask": future}),
        "added": (x, x, x, {"attn_mask": torch.randn(5, 5)}),
        "padding": (x, x, x, {"key_padding_mask": padding}),
        "causal_padding": (x, x, x, {"attn_mask": future, "key_padding_mask": padding}),
        "cross": (x, memory, values, {}),
    }
    results = {"state": dict(module.state_dict())}
    for name, (query, key, value, masks) in cases.items():
        module.zero_grad()
        leaf = query.clone().requires_grad_()
        same = key is query
        y, weights = module(leaf, leaf if same else key, leaf if same else value, average_attn_weights=False, **masks)
        g = torch.randn_like(y)
        y.backward(g)
        grads = {f"grad_{name}": parameter.grad.clone() for name, parameter in module.named_parameters()}
        inputs = {"query": query} if same else {"query": query, "key": key, "value": value}
        results[name] = {**inputs, **masks, "y": y, "weights": weights, "g": g, "grad_query": leaf.grad, **grads}
    return results


def attention():
    q, k, v = torch.randn(2, 2, 4, 3), torch.randn(2, 2, 5, 3), torch.randn(2, 2, 5, 6)
    seen = torch.rand(2, 1, 4, 5) > 0.4
    seen[1, 0, 2] = False  # a query that may see no key
    sdpa = F.scaled_dot_product_attention
    return {
        "plain": backward(lambda q, k, v: sdpa(q, k, v), q=q, k=k, v=v),
        "scale": backward(lambda q, k, v: sdpa(q, k, v, scale=2.0), q=q, k=k, v=v),
        "causal": backward(lambda q, k, v: sdpa(q, k, v, is_causal=True), q=q, k=k, v=v),
        "boolean": backward(lambda q, k, v, mask: sdpa(q, k, v, mask), q=q, k=k, v=v, mask=seen),
        "float": backward(lambda q, k, v, mask: sdpa(q, k, v, mask), q=q, k=k, v=v, mask=torch.randn(4, 5)),
    }


def losses():
    results = {}
    p, logits = torch.rand(3, 4), 4 * torch.randn(3, 4)
    logits[0, :2] = torch.tensor([200.0, -200.0])
    binary, real = torch.rand(3, 4), torch.randn(3, 4)
    classes, more = torch.tensor([2, -100, 0, 4, 4]), torch.tensor([[0, 2, 1], [-100, 1, 1]])
    for reduction in ("mean", "sum", "none"):
        for name, function, x, target in (
            ("mse", F.mse_loss, logits, real),
            ("bce", F.binary_cross_entropy, p, binary),
            ("bce_with_logits", F.binary_cross_entropy_with_logits, logits, binary),
            ("cross_entropy", F.cross_entropy, 3 * torch.randn(5, 5), classes),
            ("cross_entropy_d1", F.cross_entropy, 3 * torch.randn(2, 4, 3), more),
        ):
            case = backward(lambda x: function(x, target, reduction=reduction), x=x)
            results[f"{name}_{reduction}"] = {**case, "target": target}
    return results


def optimizers():
    start = {"0": torch.randn(3, 4), "1": torch.randn(4)}
    grads = {name: torch.randn(STEPS, *p.shape) for name, p in start.items()}
    results = {"start": start, "grads": grads}
    cases = {
        "sgd": ("SGD", {"lr": 0.1}),
        "sgd_weight_decay": ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
        "sgd_momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
        "sgd_dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
        "sgd_nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        "adam": ("Adam", {"lr": 0.1}),
        "adam_weight_decay": ("Adam", {"lr": 0.1, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.1}),
        "adamw": ("AdamW", {"lr": 0.1, "weight_decay": 0.1}),
        "adamw_default_decay": ("AdamW", {"lr": 0.1}),
    }
    for name, (kind, settings) in cases.items():
        params = {key: p.clone().requires_grad_() for key, p in start.items()}
        optimizer = getattr(torch.optim, kind)(params.values(), **settings)
        for i in range(STEPS):
            for key, p in params.items():
                p.grad = grads[key][i].clone()
            optimizer.step()
        results[name] = {**params, "optimizer": np.array(kind), "settings": np.array(json.dumps(settings))}
    for name, max_norm in (("clip", 1.0), ("clip_not_needed", 1e6)):
        params = {key: p.clone().requires_grad_() for key, p in start.items()}
        for key, p in params.items():
            p.grad = grads[key][0].clone()
        norm = nn.utils.clip_grad_norm_(params.values(), max_norm)
        clipped = {key: p.grad for key, p in params.items()}
        results[name] = {**clipped, "norm": norm, "max_norm": torch.tensor(max_norm)}
    return results


def schedules():
    def warmup_then_cosine(optimizer):
        warmup = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, 8, eta_min=0.01)
        return lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [4])

    def with_a_jump(optimizer):
        parts = [lr_scheduler.LinearLR(optimizer, 0.2, total_iters=6), lr_scheduler.StepLR(optimizer, 2, gamma=0.5)]
        return lr_scheduler.SequentialLR(optimizer, parts, [4])

    cases = {
        "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 3, gamma=0.5),
        "linear": lambda optimizer: lr_scheduler.LinearLR(optimizer),
        "linear_down": lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.25, 8),
        "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=0.02),
        "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
        "warmup_then_cosine": warmup_then_cosine,
        "with_a_jump": with_a_jump,
    }
    results = {}
    for name, make in cases.items():
        groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.5}]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        schedule = make(optimizer)
        lrs = []
        for _ in range(12):
            lrs.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        results[name] = {"lr": torch.tensor(lrs)}
    return results


def gpt():
    config = {"vocab_size": 13, "n_positions": 12, "n_embd": 12, "n_layer": 2, "n_head": 2}
    model = torch_gpt.GPT(SimpleNamespace(**config))
    ids = torch.randint(config["vocab_size"], (3, 10))
    inputs, targets = ids[:, :-1], ids[:, 1:]

    def loss_of(logits):
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    state = {name: value.clone() for name, value in model.state_dict().items()}
    logits = model(inputs)
    loss = loss_of(logits)
    loss.backward()
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    optimizer, training = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(5):
        optimizer.zero_grad()
        step_loss = loss_of(model(inputs))
        step_loss.backward()
        optimizer.step()
        training.append(step_loss.item())
    values = {"inputs": inputs, "targets": targets, "logits": logits, "loss": loss, "training": torch.tensor(training)}
    return {"state": state, "grad": grads, "values": {**values, "config": np.array(json.dumps(config))}}


def convolutions():
    images, signals = torch.randn(2, 4, 4, 5), torch.randn(2, 4, 6)
    alike = torch.randn(1, 2, 4, 5).clamp(min=0)  # ties at 0, as after a ReLU
    return {
        "conv2d": with_parameters(randomise(nn.Conv2d(4, 2, (3, 2))), images),
        "conv2d_all": with_parameters(
            randomise(nn.Conv2d(4, 6, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(3, 2), groups=2)), images
        ),
        "conv1d_same": with_parameters(randomise(nn.Conv1d(4, 4, 4, padding="same", groups=4, bias=False)), signals),
        "conv1d": with_parameters(randomise(nn.Conv1d(4, 2, 3, stride=2, padding=2, dilation=2)), signals),
        "max_pool2d": backward(lambda x: F.max_pool2d(x, (3, 2), stride=(2, 1), padding=1), x=alike),
        "avg_pool2d": backward(lambda x: F.avg_pool2d(x, (3, 2), stride=(2, 1), padding=1), x=alike),
        "max_pool1d": backward(lambda x: F.max_pool1d(x, 2), x=signals),
        "avg_pool1d": backward(lambda x: F.avg_pool1d(x, 2), x=signals),
        "batch_norm_rows": batch_norm(2 + 3 * torch.randn(5, 4), training=True),
        "batch_norm_images": batch_norm(torch.randn(2, 4, 2, 3), training=True),
        "batch_norm_evaluation": batch_norm(torch.randn(2, 4, 3), training=False),
        **network(),
    }


def batch_norm(x, training):
    """A case with running statistics, before and after."""
    running = {"mean": torch.randn(4), "var": 0.5 + torch.rand(4)}
    after = {name: value.clone() for name, value in running.items()}

    def function(x, weight, bias):
        return F.batch_norm(x, after["mean"], after["var"], weight, bias, training, momentum=0.3, eps=1e-3)

    case = backward(function, x=x, weight=torch.randn(4), bias=torch.randn(4))
    return {**case, **running, **{f"{name}_after": value for name, value in after.items()}}


def network():
    """A small classifier of images: its weights, the losses of five steps, and what it then says in evaluation."""
    model = nn.Sequential(
        # without a bias where batch normalisation takes it out again: Adam would step along the noise of its gradient
        nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3),
    )  # fmt: skip
    x, target = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 2, 1, 0])
    state = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    values = {"x": x, "target": target, "losses": torch.tensor(losses), "logits": model.eval()(x)}
    return {"state": state, "network": values}


def main():
    makers = (activations, layers, multi_head_attention, attention, losses, optimizers, schedules, gpt, convolutions)
    unknown = set(sys.argv[1:]) - {make.__name__ for make in makers}
    if unknown:
        sys.exit(f"There is no {', '.join(sorted(unknown))}. Choose among {', '.join(m.__name__ for m in makers)}.")
    torch.set_default_dtype(torch.float64)
    for make in makers:
        if sys.argv[1:] and make.__name__ not in sys.argv[1:]:
            continue
        torch.manual_seed(0)
        arrays = {
            f"{case}/{name}": np.asarray(value.detach()) if isinstance(value, torch.Tensor) else value
            for case, values in make().items()
            for name, value in values.items()
        }
        path = HERE / f"{make.__name__}.npz"
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
