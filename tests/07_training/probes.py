"""What the grader asks the answers to lesson 07, beside the reference, on inputs that nobody knows before."""

import contextlib
import io
import math
import tempfile
from pathlib import Path

import numpy as np

from tinytorch_course.grading.probes import probe, refusal


def trainer_of(tt, w, loader, loss_fn, *, lr=0.1, **settings):
    """A trainer of one vector w."""
    model = tt.Module()
    model.w = tt.Parameter(np.array(w))
    return tt.Trainer(model, tt.SGD(model.parameters(), lr=lr), loader, loss_fn, **settings)


def distance(tt, model, target):
    """The mean of (w - target) ** 2."""
    return ((model.w - tt.Tensor(target)) ** 2).mean()


def weighted(rng):
    """Targets, each with a weight, for a vector."""
    n, count = rng.integers(2, 6, 2)
    return {
        "w": rng.standard_normal(n),
        "targets": rng.standard_normal((count, n)),
        "weights": rng.uniform(0.5, 9, count),
    }


# ---- evaluation


@probe("ex-07-1", weighted)
def evaluation(tt, w, targets, weights):
    """In training mode and in evaluation mode, with a module inside that is in evaluation mode before."""
    seen, found = [], {}

    def loss_fn(model, batch):
        loss = distance(tt, model, batch[0])
        seen.append([model.training, model.inner.training, loss.requires_grad])
        return loss, batch[1]

    trainer = trainer_of(tt, w, [], loss_fn)
    model = trainer.model
    model.inner = tt.Module()
    for training in (True, False):
        model.train(training)
        model.inner.eval()
        found[f"loss_{training}"] = trainer.evaluate(list(zip(targets, weights)))
        found[f"modes_after_{training}"] = [model.training, model.inner.training]
    return {**found, "modes_and_graphs": seen, "no_gradient": model.w.grad is None}


@probe("ex-07-1", weighted)
def evaluation_that_fails(tt, w, targets, weights):
    def loss_fn(model, batch):
        raise KeyError(batch[1])

    trainer = trainer_of(tt, w, [], loss_fn)
    return {
        "without_batches": refusal(lambda: trainer.evaluate([])),
        "a_broken_loss": refusal(lambda: trainer.evaluate(list(zip(targets, weights)))),
        "training_after": trainer.model.training,
    }


# ---- a loss and its weight


def one_loss(rng):
    return {"value": rng.standard_normal(), "weight": rng.uniform(0.1, 9), "batch": rng.standard_normal()}


@probe("ex-07-2", one_loss)
def losses_with_and_without_a_weight(tt, value, weight, batch):
    """The weight comes in all kinds of numbers."""
    pairs = []
    for kind in (None, float, math.ceil, np.float64, np.float32, lambda weight: tt.Tensor(np.array(weight))):

        def loss_fn(model, batch):
            loss = tt.Tensor(np.array(value)) * batch
            return loss if kind is None else (loss, kind(weight))

        pairs.append(trainer_of(tt, [1.0], [], loss_fn)._loss(batch))
    return {
        "losses": [loss.item() for loss, _ in pairs],
        "weights": [float(weight) for _, weight in pairs],
        "kinds": [type(weight).__name__ for _, weight in pairs],
    }


@probe("ex-07-2", one_loss)
def losses_that_are_refused(tt, value, weight, batch):
    loss = tt.Tensor(np.array(value))
    results = [None, value, (value, weight), [loss, weight]]
    results += [(loss, 0), (loss, -weight), (loss, math.nan), (loss, math.inf)]
    outcomes = []
    for result in results:
        trainer = trainer_of(tt, [1.0], [], lambda model, batch: result)
        outcomes.append(refusal(lambda: trainer._loss(batch)))
    return {"outcomes": outcomes}


# ---- batches without end


class Shuffled:
    """A loader that draws a new order where a pass begins."""

    def __init__(self, batches, generator):
        self.batches, self.generator = batches, generator

    def __iter__(self):
        return iter([self.batches[i] for i in self.generator.permutation(len(self.batches))])


def batches(rng):
    return {"batches": rng.integers(100, 1000, rng.integers(3, 6)), "seed": int(rng.integers(1 << 30))}


@probe("ex-07-3", batches)
def passes_without_end(tt, batches, seed):
    from tinytorch.training.trainer import _Feed

    feed, given, taken, orders = _Feed(Shuffled(batches, tt.Generator(seed))), [], [], []
    for _ in range(2 * len(batches) + 2):
        given.append(next(feed))
        taken.append(feed.taken)
        twin = tt.Generator(0)
        twin.set_state(feed.began)
        orders.append(twin.permutation(len(batches)))
    return {"batches": given, "taken": taken, "orders_from_what_is_kept": orders}


@probe("ex-07-3", batches)
def passes_over_a_list(tt, batches, seed):
    from tinytorch.training.trainer import _Feed

    feed = _Feed(batches.tolist())
    rows = [[next(feed), feed.taken] for _ in range(len(batches) + 2)]
    return {"batches_and_taken": rows, "nothing_began": feed.began is None}


class OnePass:
    """A loader with batches in its first pass only, which does not let itself be asked for more for ever."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        if self.passes > 5:
            raise RuntimeError("asked for pass after pass")
        return iter(self.batches if self.passes == 1 else [])


@probe("ex-07-3", batches)
def a_loader_that_is_used_up(tt, batches, seed):
    from tinytorch.training.trainer import _Feed

    feed = _Feed(OnePass(batches))
    given = [next(feed) for _ in batches]
    return {
        "batches": given,
        "used_up": refusal(lambda: next(feed)),
        "empty": refusal(lambda: next(_Feed(OnePass([])))),
    }


# ---- one step


def noted(history):
    """What the history says of each step; the length is a number out of a tensor in float32."""
    return {**{name: history[name] for name in ("step", "loss", "lr")}, "grad_norm": np.float32(history["grad_norm"])}


def steps_of(rng, **settings):
    """Batches and settings; `stale` are gradients that somebody left behind."""
    inputs = weighted(rng)
    stale = rng.standard_normal(inputs["w"].shape)
    return {**inputs, "stale": stale, "lr": rng.uniform(0.05, 0.3), "settings": settings}


def trained(tt, w, targets, weights, stale, lr, settings):
    """Four steps with a falling rate, for a model with a parameter that the optimizer does not have."""
    trainer = trainer_of(
        tt,
        w,
        list(zip(targets, weights)),
        lambda model, batch: (distance(tt, model, batch[0]) + model.other * 3, batch[1]),
        lr=lr,
        **settings,
    )
    model = trainer.model
    model.other = tt.Parameter(np.array(0.5))
    trainer.schedule = tt.LambdaLR(trainer.optimizer, lambda step: 1 / (1 + step))
    model.w.grad, model.other.grad = tt.Tensor(stale), tt.Tensor(np.array(1e6))
    losses, ws = [], []
    for _ in range(4):
        losses.append(trainer._train_step())
        ws.append(model.w.data.copy())
    return {
        "losses": losses,
        "weights_after_each_step": ws,
        "other": model.other,
        "count": trainer.step,
        **noted(trainer.history),
    }


@probe("ex-07-4", lambda rng: steps_of(rng, accumulate=int(rng.integers(2, 4))))
def steps_of_several_batches(tt, **inputs):
    return trained(tt, **inputs)


@probe("ex-07-4", lambda rng: steps_of(rng, clip_norm=rng.uniform(0.05, 0.3), accumulate=int(rng.integers(1, 3))))
def steps_that_are_clipped(tt, **inputs):
    return trained(tt, **inputs)


@probe("ex-07-4", weighted)
def steps_that_are_refused(tt, w, targets, weights):
    """Something is not finite in the second batch: first the loss, then only its gradient."""
    overflowing, found = tt.op(lambda x: (x.copy(), lambda g: g * math.inf)), {}
    spoil = {"loss": lambda loss: loss * math.nan, "gradient": overflowing}
    for name, spoiled in spoil.items():

        def loss_fn(model, batch):
            loss = distance(tt, model, batch[0])
            return loss if batch[1] == weights[0] else spoiled(loss)

        trainer = trainer_of(tt, w, list(zip(targets, weights)), loss_fn, accumulate=2)
        trainer.schedule = tt.LambdaLR(trainer.optimizer, lambda step: 1 / (1 + step))
        found[f"outcome_{name}"] = refusal(trainer._train_step)
        found[f"weights_{name}"] = trainer.model.w
        found[f"counts_{name}"] = [trainer.step, trainer.schedule.last_epoch, len(trainer.history["step"])]
    return found


# ---- checkpoints


def tear(folder, file):
    """Leave half of a checkpoint's file, as a power cut would."""
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])


def scores(rng):
    """The first is NaN; among the others one is missing, the lowest is torn, and the next lowest is there twice."""
    order = 1 + rng.permutation(7)
    values = np.append(math.nan, rng.integers(-3, 4, 7)).tolist()
    values[order[0]], values[order[1]], values[order[2]] = None, -9.0, math.inf
    values[order[3]] = values[order[4]] = -4.0
    return {"scores": values, "torn": int(order[1]), "steps": np.cumsum(rng.integers(1, 60, 8)).tolist()}


@probe("ex-07-5", scores)
def the_best_up_to_each_checkpoint(tt, scores, torn, steps):
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = tt.Checkpoints(Path(folder), keep=len(steps))
        found = [checkpoints.best()]
        for step, score in zip(steps, scores):
            checkpoints.save(step, {}, {}, score)
        folders = checkpoints.list()
        tear(folders[torn], "state.json")
        found += [checkpoints.best(until) for until in (None, *folders)]
    return {"names": [best.name if best is not None else "none" for best in found]}


def saved(rng):
    return {
        "steps": np.cumsum(rng.integers(1, 60, 3)).tolist(),
        "w": rng.standard_normal((3, 4)),
        "file": str(rng.choice(["state.json", "state.safetensors"])),
    }


@probe("ex-07-6", saved)
def the_newest_whole_checkpoint(tt, steps, w, file):
    """Loads, tears the newest whole one, loads again, and so on until there is none."""
    ws, notes, said_so = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = tt.Checkpoints(Path(folder) / "run")
        for step, array in zip(steps, w):
            checkpoints.save(step, {"w": array}, {"note": step})
        folders = checkpoints.list()
        for whole in (2, 1, 0):
            with contextlib.redirect_stdout(io.StringIO()) as said:
                arrays, state = checkpoints.load()
            said = said.getvalue()
            ws.append(arrays["w"])
            notes.append(state["note"])
            said_so.append(f"Going on from {folders[whole].name} instead." in said)
            said_so += [torn.name in said for torn in folders[whole + 1 :]]
            tear(folders[whole], file)
        error = refusal(checkpoints.load)
        empty = refusal(tt.Checkpoints(Path(folder) / "empty").load)
    return {"w": ws, "notes": notes, "said_so": said_so, "all_torn": error, "empty": empty}


@probe("ex-07-6", saved)
def a_checkpoint_that_is_named(tt, steps, w, file):
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = tt.Checkpoints(folder)
        for step, array in zip(steps, w):
            checkpoints.save(step, {"w": array}, {"note": step})
        oldest, named, _ = checkpoints.list()
        arrays, state = checkpoints.load(str(named))
        tear(oldest, file)
        error = refusal(lambda: checkpoints.load(oldest))
    return {"w": arrays["w"], "note": state["note"], "torn": error}


# ---- going on


def stopped(*shares):
    """A run that stops after some share of a pass."""

    def inputs(rng):
        n, count = rng.integers(3, 6, 2)
        return {
            "w": rng.standard_normal((2, n)),
            "batches": rng.standard_normal((count, n)),
            "seeds": rng.integers(1 << 30, size=(2, 2)).tolist(),
            "stop": int(rng.choice(shares) * count),
        }

    return inputs


def resumable(tt, folder, w, batches, seeds):
    """A trainer with momentum and a falling rate, whose loss draws noise, and whose loader draws an order."""
    noise, order = map(tt.Generator, seeds)

    def loss_fn(model, batch):
        return distance(tt, model, batch + model.generator.standard_normal(batch.shape))

    trainer = trainer_of(tt, w, Shuffled(batches, order), loss_fn, checkpoints=tt.Checkpoints(folder))
    trainer.model.generator = noise
    trainer.optimizer = tt.SGD(trainer.model.parameters(), lr=0.1, momentum=0.9)
    trainer.schedule = tt.LambdaLR(trainer.optimizer, lambda step: 1 / (1 + step))
    return trainer


def resumed(tt, w, batches, seeds, stop):
    """A run that stops, and goes on in a trainer that began from elsewhere, for a pass and one step more."""
    with tempfile.TemporaryDirectory() as folder:
        resumable(tt, Path(folder) / "run", w[0], batches, seeds[0]).fit(stop)
        trainer = resumable(tt, Path(folder) / "run", w[1], batches, seeds[1])
        step, place = trainer.resume(), trainer.step
        history = trainer.fit(stop + len(batches) + 1)
    return {
        "resumed_at": [step, place],
        **noted(history),
        "weights": trainer.model.w,
        "random_numbers": [trainer.model.generator.random(), trainer.train_loader.generator.random()],
    }


@probe("ex-07-7", stopped(1 / 3, 2 / 3, 4 / 3, 5 / 3))
def a_run_that_stops_within_a_pass(tt, **inputs):
    return resumed(tt, **inputs)


@probe("ex-07-7", stopped(1, 2))
def a_run_that_stops_between_passes(tt, **inputs):
    return resumed(tt, **inputs)
