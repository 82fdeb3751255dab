"""Selective copying: what a model remembers when it can choose, and when it cannot (arXiv:2312.00752, section 4.1.1).

A few tokens stand at random places among blanks; after all of them the model is to say them again, in their order:

    . 5 . . 3 . . 8 9 .  ? ? ? ?  ->  5 3 8 9

Where step sizes, B and C are fixed, an input leaves the same trace whatever comes after it: the state tells how long
ago a token came, not how many came since. With selection a blank can be a step of size 0, in which no time passes; then
each answer is what came as many ticks ago as there are tokens to remember. One block is enough to learn that.
"""

import numpy as np

import tinytorch as tt

BLANK, ASK, SYMBOLS = 0, 1, 8  # the tokens, of which 2 to 9 are the symbols to remember
PLACES, KEPT = 24, 4
LENGTH = PLACES + KEPT + 1
HELD_OUT = 512  # samples


def examples(count, generator):
    """`count` samples: dicts of input_ids, with ASK wherever an answer is due, and labels, only there.

    The loss compares what follows position t with the label at t + 1, so the labels stand one place to the right.
    """
    ids = np.full((count, LENGTH), BLANK)
    labels = np.full_like(ids, -100)
    symbols = 2 + generator.integers(0, SYMBOLS, (count, KEPT))
    places = np.sort(np.argsort(generator.random((count, PLACES)), axis=1)[:, :KEPT], axis=1)
    np.put_along_axis(ids, places, symbols, axis=1)
    ids[:, PLACES:] = ASK
    labels[:, -KEPT:] = symbols
    return [{"input_ids": row, "labels": answers} for row, answers in zip(ids, labels)]


class FixedMixer(tt.MambaMixer):
    """A mixer without selection: step sizes, B and C are learned, but the same for every token."""

    def __init__(self, config, generator=None):
        super().__init__(config, generator)
        self.B = tt.Parameter(tt.randn(config.d_state, generator=generator))
        self.C = tt.Parameter(tt.randn(config.d_state, generator=generator))
        self.delta = tt.Parameter(self.dt_proj.bias.detach())  # before softplus
        del self.x_proj, self.dt_proj

    def _select(self, u):
        """What each token of u (B, T, E) does to the state: (B, T, E), and twice (B, T, N)."""
        batch, time, channels = u.shape
        delta = tt.softplus(self.delta).expand(batch, time, channels)
        return delta, *(x.expand(batch, time, self.config.d_state) for x in (self.B, self.C))


def build_models(seed):
    """The same Mamba twice, the second with a block that cannot select.

    With two blocks the fixed one comes further: the first counts, and its gate lets the second know.
    """
    near = {"dt_min": 0.01, "dt_max": 1.0}  # larger steps than for text: what is to be remembered is not far
    embedding = {"vocab_size": 2 + SYMBOLS, "initializer_range": 1.0, "tie_word_embeddings": False}
    config = tt.MambaConfig(64, n_layers=1, **near, **embedding)
    selective, fixed = (tt.Mamba(config, tt.Generator(seed)) for _ in range(2))
    fixed.backbone.layers[0].mixer = FixedMixer(config, tt.Generator(seed))
    fixed.load_state_dict(selective.state_dict(), strict=False)  # all that both have begins alike
    return {"selective": selective, "fixed": fixed}


class CopyingTrainer(tt.DistributedTrainer):
    """A trainer whose history has the held-out `accuracy`: before the first step, and with each held-out loss."""

    def evaluate(self, loader):
        self.history.setdefault("accuracy", []).append(accuracy(self.model, loader))
        return super().evaluate(loader)


def accuracy(model, loader):
    """The share of symbols that come back rightly, each at its place."""
    right = asked = 0
    with tt.no_grad():
        for batch in loader:
            ids, labels = batch["input_ids"][:, :-1], batch["labels"].numpy()[:, -KEPT:]
            logits = model(ids.to(next(model.parameters()).device))
            right += (logits.numpy()[:, -KEPT:].argmax(axis=-1) == labels).sum()
            asked += labels.size
    return float(right / asked)


def show(histories):
    """Print the accuracy of each model over the steps, about ten of them. histories: {name: history}."""
    print("\n    step" + "".join(f"{name:>12}" for name in histories))
    steps = steps_of(next(iter(histories.values())))
    for i in range(0, len(steps), max(1, len(steps) // 10)):
        print(f"{steps[i]:8,}" + "".join(f"{history['accuracy'][i]:12.1%}" for history in histories.values()))
    print()


def steps_of(history):
    """After which steps the accuracy was measured."""
    return [0, *history["eval_step"]]


def draw(histories, path):
    """The accuracy of each model over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained", dpi=120)
    axes = figure.subplots()
    for name, history in histories.items():
        axes.plot(steps_of(history), history["accuracy"], "o-", markersize=4, label=name)
    axes.axhline(1 / SYMBOLS, color="tab:grey", linestyle="--", label="a guess")
    axes.set(xlabel="step", ylabel="share of symbols repeated rightly", ylim=(0, 1.02), title="selective copying")
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")
    figure.savefig(path)
