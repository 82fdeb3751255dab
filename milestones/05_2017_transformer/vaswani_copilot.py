"""2017, attention is all you need: a transformer written in NumPy learns to complete Python.

The model of Vaswani et al. (arXiv:1706.03762), in GPT-2's decoder-only shape, reads 45 short programs character by
character and learns to predict the next one. Given the first third of a program, it then writes the rest.

With `--corpus stdlib` a larger one reads Python's own standard library, in tokens of byte-pair encoding, and is
measured on files that it has never seen.
"""

import ast
import sys
import time

import numpy as np

import tinytorch as tt
from tinytorch_course import corpora, milestone

# Ten programs in each family; the last one is held out. A program's first third belongs to no other program.
PATTERNS = {
    "functions": [
        "def add(a, b):\n    return a + b",
        "def sub(a, b):\n    return a - b",
        "def mul(a, b):\n    return a * b",
        "def div(a, b):\n    return a / b",
        "def square(x):\n    return x * x",
        "def double(x):\n    return x + x",
        "def is_even(n):\n    return n % 2 == 0",
        "def is_empty(items):\n    return len(items) == 0",
        "def greet(name):\n    return 'hello ' + name",
        "def mod(a, b):\n    return a % b",
    ],
    "loops": [
        "for i in range(10):\n    print(i)",
        "for x in items:\n    print(x)",
        "for name in names:\n    print(name)",
        "for key in data:\n    print(key, data[key])",
        "for line in lines:\n    print(line.strip())",
        "for c in text:\n    print(c)",
        "for a, b in zip(first, second):\n    print(a, b)",
        "while n > 0:\n    print(n)\n    n = n - 1",
        "while True:\n    if not items:\n        break",
        "for word in words:\n    print(word)",
    ],
    "conditions": [
        "if x > 0:\n    print('positive')",
        "if x < 0:\n    print('negative')",
        "if x == 0:\n    print('zero')",
        "if n % 2 == 0:\n    print('even')",
        "if not items:\n    print('empty')",
        "if name in names:\n    print('found')",
        "if a == b:\n    print('equal')\nelse:\n    print('different')",
        "if a > b:\n    print('larger')",
        "if a < b:\n    print('smaller')",
        "if n > 0:\n    print('positive')",
    ],
    "lists": [
        "numbers = [1, 2, 3, 4, 5]",
        "squares = [x * x for x in numbers]",
        "evens = [n for n in numbers if n % 2 == 0]",
        "lengths = [len(word) for word in words]",
        "total = sum(x for x in numbers if x > 0)",
        "largest = max(numbers)\nprint(largest)",
        "smallest = min(numbers)\nprint(smallest)",
        "items = []\nitems.append(1)",
        "pairs = list(zip(first, second))",
        "doubles = [x + x for x in numbers]",
    ],
    "strings": [
        "text = 'hello world'\nprint(text)",
        "words = text.split(' ')\nprint(len(words))",
        "upper = text.upper()\nprint(upper)",
        "line = ' '.join(words)\nprint(line)",
        "message = f'hello {name}'\nprint(message)",
        "parts = line.strip().split(',')",
        "count = text.count('a')\nprint(count)",
        "print('hello', name)",
        "letters = [c for c in text if c.isalpha()]",
        "lower = text.lower()\nprint(lower)",
    ],
}
TRAINING = [program for family in PATTERNS.values() for program in family[:-1]]
HELD_OUT = [family[-1] for family in PATTERNS.values()]
HEADERS = ["    def __len__(self):", "    def __eq__(self, other):", "class Error(Exception):", "def main():"]

CORPORA = {"patterns": "50 short programs, to learn by heart", "stdlib": "Python's own library, to predict new files"}
STEPS = {"patterns": 700, "stdlib": 2000}
GATES = {
    "patterns": [
        milestone.Gate("loss_decrease", 0.8, "the loss falls by at least 80 %"),
        milestone.Gate("exact_completions", 0.9, "90 % of the training programs are completed exactly"),
        milestone.Gate("valid_python", 0.9, "90 % of the completions are valid Python"),
    ],
    "stdlib": [milestone.Gate("loss_decrease", 0.4, "the loss on files never seen falls by at least 40 %")],
}


def is_python(program):
    """Whether Python's own parser accepts it."""
    try:
        ast.parse(program)
    except (SyntaxError, ValueError):
        return False
    return True


def first_third(program):
    return program[: len(program) // 3]


def main(options):
    learn = {"patterns": learn_patterns, "stdlib": learn_stdlib}[options.corpus]
    model, tokenizer, trainer, metrics, prompts = learn(options)
    status = milestone.report(options, trainer, metrics, GATES[options.corpus])
    if not options.train_only:
        verdict = options.corpus == "patterns"  # a file of the library does not end before the context does
        for prompt in prompts:
            show_completion(model, tokenizer, prompt, verdict)
        if sys.stdin.isatty() and sys.stdout.isatty():
            prompt_loop(model, tokenizer, verdict)
    return status


def learn_patterns(options):
    """The programs, character by character."""
    tokenizer = tt.CharTokenizer.from_text("".join(TRAINING + HELD_OUT))
    tokenizer.save(options.out / "tokenizer.json")
    longest = max(map(len, TRAINING + HELD_OUT)) + 1  # and the end token
    config = tt.GPTConfig(tokenizer.vocab_size, n_positions=longest, n_embd=64, n_layer=2, n_head=4, dropout=0.1)
    model = tt.GPT(config).to(options.device)
    train_loader = tt.DataLoader(tt.TensorDataset(tt.tensor(tokenizer.encode_batch(TRAINING))), 15, shuffle=True)
    eval_loader = tt.DataLoader(tt.TensorDataset(tt.tensor(tokenizer.encode_batch(HELD_OUT))), len(HELD_OUT))
    print(f"{len(TRAINING)} programs to learn, {len(HELD_OUT)} held out; {model.num_parameters():,} parameters")

    def loss_fn(model, batch):  # the mean per character, and of how many: padding does not count
        return tt.next_token_loss(model, batch[0].to(options.device), tokenizer.pad_id)

    trainer, metrics = train(
        options, model, loss_fn, train_loader, eval_loader, measured_on=train_loader, eval_every=50
    )
    per_step = np.mean([len(program) for program in TRAINING]) * train_loader.batch_size
    completions = [tt.complete(model, tokenizer, first_third(program)) for program in TRAINING + HELD_OUT]
    metrics |= {
        "tokens_per_second": metrics["steps_per_second"] * per_step,
        "exact_completions": float(np.mean([c == program for c, program in zip(completions, TRAINING)])),
        "valid_python": float(np.mean([is_python(completion) for completion in completions])),
    }
    return model, tokenizer, trainer, metrics, [first_third(program) for program in TRAINING[:1] + HELD_OUT]


def learn_stdlib(options):
    """The standard library, in tokens of byte-pair encoding; the last files are held out."""
    corpus = corpora.read_stdlib()
    print(corpus.describe())
    tokenizer = corpora.learn_tokenizer(corpus, options.out)
    config = tt.GPTConfig(tokenizer.vocab_size, n_positions=64, n_embd=96, n_layer=3, n_head=4, initializer_range=0.05)
    model = tt.GPT(config).to(options.device)
    train_loader, _ = corpora.load_windows(tokenizer, corpus.training, config.n_positions, 16, shuffle=True)
    eval_loader, held_out_tokens = corpora.load_windows(tokenizer, corpus.held_out, config.n_positions, 32)
    print(f"{held_out_tokens:,} tokens held out; {model.num_parameters():,} parameters")

    def loss_fn(model, batch):
        return tt.next_token_loss(model, batch[0].to(options.device))

    trainer, metrics = train(
        options, model, loss_fn, train_loader, eval_loader, measured_on=eval_loader, eval_every=200
    )
    metrics["tokens_per_second"] = metrics["steps_per_second"] * train_loader.batch_size * config.n_positions
    metrics |= corpora.measure(corpus, metrics["loss_final"], held_out_tokens)
    return model, tokenizer, trainer, metrics, HEADERS


def train(options, model, loss_fn, train_loader, eval_loader, measured_on, eval_every):
    """Train the model. Returns the trainer and metrics: the loss on a loader before and after, speed, memory."""
    optimizer = tt.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    trainer = tt.Trainer(
        model,
        optimizer,
        train_loader,
        loss_fn,
        schedule=tt.warmup_cosine(optimizer, max(1, options.steps // 20), options.steps + 1),
        clip_norm=1.0,
        eval_loader=eval_loader,
        eval_every=eval_every,
        checkpoints=tt.Checkpoints(options.out / "checkpoints"),
        checkpoint_every=100,
    )
    loss_initial = trainer.evaluate(measured_on)
    before = trainer.resume() if options.resume else 0
    began = time.perf_counter()
    trainer.fit(options.steps)
    seconds = time.perf_counter() - began
    loss_final = trainer.evaluate(measured_on)
    return trainer, {
        "loss_initial": loss_initial,
        "loss_final": loss_final,
        "loss_decrease": 1 - loss_final / loss_initial,
        "held_out_loss": trainer.history["eval_loss"][-1],
        "steps": trainer.step,
        "seconds": seconds,
        "steps_per_second": (trainer.step - before) / seconds,
        "peak_memory_mb": milestone.peak_memory_mb(),
        "parameters": model.num_parameters(),
        "seed": options.seed,
    }


# ---- what the model writes


def show_completion(model, tokenizer, prompt, verdict=True):
    """Print the prompt, then what the model writes as it writes it, then Python's verdict."""
    print(f"\n{prompt}|", end="")
    program = tt.complete(model, tokenizer, prompt, show=lambda text: print(text, end="", flush=True))
    if verdict:
        print(f"\n# {'valid Python' if is_python(program) else 'not valid Python'}")
    else:
        print()


def prompt_loop(model, tokenizer, verdict=True):
    """Complete what is typed, until an empty line."""
    print("\nBegin a program (\\n for a new line; an empty line ends this).")
    while True:
        try:
            prompt = input("> ").replace("\\n", "\n")
        except EOFError:
            return
        if not prompt:
            return
        try:
            show_completion(model, tokenizer, prompt, verdict)
        except ValueError as error:
            print(f"\n{error}")


if __name__ == "__main__":
    milestone.run(
        main,
        __doc__,
        steps=lambda options: STEPS[options.corpus],
        out="runs/vaswani_copilot",
        choices={"corpus": CORPORA},
    )
