"""2023, Mamba: a language model that reads with a memory of fixed size, and so writes at a price that does not grow.

A. Gu and T. Dao, "Mamba: Linear-time sequence modeling with selective state spaces" (arXiv:2312.00752). A Mamba, and a
transformer with as many parameters, read the same tokens of Python's own library in the same order. Both are measured
on text that they have never seen, beside a 5-gram, and then write: each token costs the transformer more than the one
before, and Mamba the same.

With `--corpus topics` they read Python's language reference instead. `--task copying` shows what selection is for: a
state-space model that treats all tokens alike cannot tell what to remember (`selective_copying.py`).
"""

import tracemalloc

import numpy as np
import selective_copying
import writing_costs

import tinytorch as tt
from tinytorch_course import corpora, milestone

CHOICES = {
    "task": {
        "language": "text, beside a transformer of equal size",
        "copying": "some tokens among blanks, beside a Mamba that cannot select",
    },
    "corpus": {"stdlib": "the text is Python's own library", "topics": "Python's language reference"},
}
READ = {"stdlib": corpora.read_stdlib, "topics": corpora.read_topics}
PROMPTS = {
    "stdlib": ["    def __len__(self):", "class Error(Exception):"],
    "topics": ["The expression", "A class"],
}
WINDOW = 128  # tokens that a row of the text predicts
LENGTH = {"language": WINDOW + 1, "copying": selective_copying.LENGTH}
STEPS = {"stdlib": 1500, "topics": 700, "copying": 1000}
TRAINING = {
    "stdlib": {"batch_size": 8, "learning_rate": 3e-3, "weight_decay": 0.1, "eval_steps": 250},
    "topics": {"batch_size": 8, "learning_rate": 4e-3, "weight_decay": 0.1, "eval_steps": 100},
    "copying": {"batch_size": 32, "learning_rate": 2e-2, "weight_decay": 0.0, "eval_steps": 100},
}
OWN = {("topics", "Mamba"): {"weight_decay": 1.0}}  # of some the best: Mamba is sooner to know a short text by heart
GATES = {
    "language": [
        milestone.Gate("bits_saved", 0, "Mamba needs no more bits per byte than the 5-gram"),
        milestone.Gate("transformer_ratio", 0.95, "Mamba needs at most 5 % more bits per byte than the transformer"),
        milestone.Gate("memory_kept", 1, "what Mamba remembers takes no more memory after its last token"),
        milestone.Gate("pace_kept", 0.8, "Mamba writes its last tokens at 80 % of its first pace, or faster"),
    ],
    "copying": [
        milestone.Gate("accuracy", 0.95, "95 % of the symbols come back with selection"),
        milestone.Gate("fixed_lost", 0.4, "40 % of the symbols are lost without selection"),
    ],
}


def what_is_learned(options):
    return "copying" if options.task == "copying" else options.corpus


def default_steps(options):
    return STEPS[what_is_learned(options)]


def main(options):
    trainers, metrics = {"language": learn_language, "copying": learn_copying}[options.task](options)
    metrics |= {"peak_memory_mb": milestone.peak_memory_mb(), "seed": options.seed}
    return milestone.report(options, trainers, metrics, GATES[options.task])


# ---- language


def build_models(vocab_size, seed):
    """A Mamba, and a transformer in the manner of Llama with half as many layers, each of which is as large as two.

    Rotary positions are no parameters, so that the transformer, too, can write longer texts than it has learned from.
    """
    mamba = tt.MambaConfig(96, n_layers=4, vocab_size=vocab_size)
    llama = {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False, "tie_word_embeddings": True}
    gpt = tt.GPTConfig(vocab_size, writing_costs.TOKENS, n_embd=96, n_layer=2, n_head=4, n_inner=344, **llama)
    return {"Mamba": tt.Mamba(mamba, tt.Generator(seed)), "GPT": tt.GPT(gpt, tt.Generator(seed))}


def learn_language(options):
    """Both models on a corpus: bits per byte, speed and memory, what they write and what that costs them."""
    corpus = READ[options.corpus]()
    print(corpus.describe())
    tokenizer = corpora.learn_tokenizer(corpus, options.out)
    rows, held_out = (corpora.windows(tokenizer, texts, WINDOW) for texts in (corpus.training, corpus.held_out))
    count = options.steps * TRAINING[options.corpus]["batch_size"]
    order = tt.RandomSampler(rows, num_samples=count, generator=tt.Generator(options.seed))
    lesson = tt.Subset(rows, list(order))  # pass after pass, as much as there are steps
    models = build_models(tokenizer.vocab_size, options.seed)
    print("; ".join(f"{name}: {model.num_parameters():,} parameters" for name, model in models.items()))

    trainers, found, costs = {}, {}, {}
    tokens = corpora.count_predicted(held_out)
    for name, model in models.items():
        trainers[name], found[name] = train(name, model, lesson, held_out, options)
        found[name]["bits_per_byte"] = corpora.bits_per_byte(
            found[name]["loss_final"], tokens, corpora.size(corpus.held_out)
        )
        costs[name] = writing_costs.measure(model)
        found[name] |= writing_costs.describe(costs[name])
    writing_costs.draw(costs, options.out / "writing_costs.png")
    draw_states(models["Mamba"], tokenizer, corpus.held_out[0], options.out / "states.png")
    writing_costs.show(costs)
    if not options.train_only:
        show_texts(models, tokenizer, PROMPTS[options.corpus], options.seed)

    metrics = corpora.measure(corpus, found["Mamba"]["loss_final"], tokens)
    metrics |= {f"gpt_{key}": value for key, value in found["GPT"].items()} | found["Mamba"]
    metrics["bits_saved"] = metrics["bits_per_byte_5gram"] - metrics["bits_per_byte"]
    metrics["transformer_ratio"] = metrics["gpt_bits_per_byte"] / metrics["bits_per_byte"]
    return trainers, metrics


def show_texts(models, tokenizer, prompts, seed):
    """Print how each model goes on from each prompt."""
    for prompt in prompts:
        for name, model in models.items():
            print(f"\n# {name}\n{prompt}|", end="")
            sampling = {"temperature": 0.7, "top_p": 0.95, "generator": tt.Generator(seed)}
            print(tt.complete(model, tokenizer, prompt, max_new_tokens=80, **sampling)[len(prompt) :])


def draw_states(model, tokenizer, text, path, before=256, tokens=64, channels=32):
    """Draw what the last block remembers while it reads `tokens` tokens of a text, having read those `before`.

    Of its channels some are shown, from those that change slowly to the quick. Returns the figure.
    """
    ids = tokenizer.encode(text)[: before + tokens]
    cache, states = model.new_cache(), []
    with tt.no_grad():
        for token in tt.tensor(ids, device=next(model.parameters()).device):
            model(token.reshape(1, 1), cache=cache)
            states.append(tt.device.to_numpy(cache[-1].state)[0, :, 0])  # (E,): of N numbers the one that fades last
    states, words = np.array(states[-tokens:]), [tokenizer.decode([token]) for token in ids[-tokens:]]  # (T, E)
    change = np.abs(np.diff(states, axis=0)).sum(axis=0) / np.abs(states).sum(axis=0)
    shown = np.argsort(change)[np.linspace(0, len(change) - 1, channels).astype(int)]
    title = f"what the last block remembers: {channels} of {len(change)} channels, the quick ones below"
    return tt.plot_states(states[:, shown], words, path, title)


# ---- copying


def learn_copying(options):
    """A Mamba with and one without selection: how many of the symbols that were to be remembered come back."""
    generator = np.random.default_rng(options.seed)
    lesson = selective_copying.examples(options.steps * TRAINING["copying"]["batch_size"], generator)
    held_out = selective_copying.examples(selective_copying.HELD_OUT, generator)
    trainers, found = {}, {}
    for name, model in selective_copying.build_models(options.seed).items():
        trainers[name], found[name] = train(
            name, model, lesson, held_out, options, trainer_class=selective_copying.CopyingTrainer
        )
        found[name]["accuracy"] = trainers[name].history["accuracy"][-1]
    histories = {name: trainer.history for name, trainer in trainers.items()}
    selective_copying.show(histories)
    selective_copying.draw(histories, options.out / "accuracy.png")
    metrics = {f"fixed_{key}": value for key, value in found["fixed"].items()} | found["selective"]
    return trainers, metrics | {"fixed_lost": 1 - metrics["fixed_accuracy"]}


# ---- training


def describe_run(name, model, options):
    """All that a run is made of: its configuration, which is also written to `NAME.toml`."""
    learned = what_is_learned(options)
    training = tt.TrainingConfig(
        gradient_accumulation_steps=1,
        num_epochs=1,
        warmup_steps=options.steps // 20,
        save_steps=250,
        use_mixed_precision=False,
        max_checkpoints=2,
        **TRAINING[learned] | OWN.get((learned, name), {}),
    )
    data = tt.DataConfig(max_seq_length=LENGTH[options.task], num_workers=0, shuffle_data=False)
    config = tt.Config(model.config, training, data, name, options.out / "checkpoints", seed=options.seed)
    config.save(options.out / f"{name}.toml")
    return config


def train(name, model, rows, held_out, options, trainer_class=tt.DistributedTrainer):
    """Train a model on rows of ids, each of them once. Returns the trainer, and losses, speed and memory."""
    config = describe_run(name, model, options)
    train_loader, eval_loader = tt.create_data_loaders(rows, held_out, config)
    trainer = trainer_class(model.to(options.device), config, train_loader, eval_loader)
    loss_initial = trainer.evaluate(eval_loader)
    if options.resume and trainer.checkpoints.list():
        trainer.resume()
    trainer.train()
    loss_final, epoch = trainer.history["eval_loss"][-1], trainer.history["epochs"][-1]["train"]
    return trainer, {
        "loss_initial": loss_initial,
        "loss_final": loss_final,
        "loss_decrease": 1 - loss_final / loss_initial,
        "steps": trainer.step,
        "seconds": epoch["epoch_time"],
        "steps_per_second": trainer.step / epoch["epoch_time"],
        "tokens_per_second": epoch["tokens_per_second"],
        "step_memory_mb": memory_of_a_step(model, next(iter(train_loader))),
        "parameters": model.num_parameters(),
    }


def memory_of_a_step(model, batch):
    """What a forward and a backward pass hold at most beside the weights, in MB (1e6 bytes) of main memory."""
    tracemalloc.start()
    loss, _ = tt.language_model_loss(model, batch)
    loss.backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    model.zero_grad()
    return peak / 1e6


if __name__ == "__main__":
    milestone.run(main, __doc__, steps=default_steps, out="runs/gu_mamba", choices=CHOICES)
