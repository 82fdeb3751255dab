"""Does a small GPT learn? Memorisation, pattern learning and generalisation, each trained for real, in seconds.

As a script it prints what the tests check: python tests/13_transformers/test_training_simple.py
"""

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest

import tinytorch as tt

FIVE_PATTERNS = [
    "def add(a, b):\n    return a + b",
    "def sub(a, b):\n    return a - b",
    "for i in range(10):\n    print(i)",
    "if x > 0:\n    print('positive')",
    "numbers = [1, 2, 3, 4, 5]",
]

# Functions whose operator follows from the first half of their name, and whose body repeats their arguments.
OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
THINGS = [
    "apes", "apples", "boats", "cards", "coins", "days", "dogs", "eggs", "files", "friends", "games", "goals",
    "hats", "hours", "islands", "items", "keys", "letters", "lines", "masks", "miles", "nodes", "notes", "orders",
]  # fmt: skip
NEW_THINGS = ["pears", "roads", "photos"]
ARGUMENTS = [("a", "b"), ("x", "y"), ("p", "q"), ("m", "n"), ("c", "d")]

# Fifty programs, five shapes with ten variables each. Five pairs are held out; each shape and each variable is learned
# in other pairs, so that what is held out can be known from what is learned.
SHAPES = [
    "def double({v}):\n    return {v} + {v}",
    "def square({v}):\n    return {v} * {v}",
    "for {v} in items:\n    print({v})",
    "while {v} > 0:\n    {v} = {v} - 1",
    "if {v} > 0:\n    print({v})",
]
VARIABLES = "abcdkmnxyz"


class Run(NamedTuple):
    """A trained model, and its loss (nats per token, without dropout) before and after."""

    model: tt.GPT
    tokenizer: tt.CharTokenizer
    initial_loss: float
    final_loss: float
    held_out_loss: float

    def completes(self, program, given):
        """Whether greedy decoding writes the program, given its beginning."""
        return tt.complete(self.model, self.tokenizer, given) == program


def train(programs, held_out, steps, dropout=0.1):
    """A GPT of 2 layers and width 64, trained on `programs`."""
    tt.manual_seed(0)
    tokenizer = tt.CharTokenizer.from_text("".join(programs + held_out))
    longest = max(map(len, programs + held_out)) + 1
    model = tt.GPT(tt.GPTConfig(tokenizer.vocab_size, longest, n_embd=64, n_layer=2, n_head=4, dropout=dropout))
    loader, held_out_loader = (
        tt.DataLoader(tt.TensorDataset(tt.tensor(tokenizer.encode_batch(texts))), batch_size=16, shuffle=True)
        for texts in (programs, held_out)
    )
    optimizer = tt.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    trainer = tt.Trainer(
        model,
        optimizer,
        loader,
        lambda model, batch: tt.next_token_loss(model, batch[0], tokenizer.pad_id),
        schedule=tt.warmup_cosine(optimizer, 20, steps + 1),
        clip_norm=1.0,
    )
    initial_loss = trainer.evaluate(loader)
    trainer.fit(steps)
    return Run(model, tokenizer, initial_loss, trainer.evaluate(loader), trainer.evaluate(held_out_loader))


def memorise():
    return train(FIVE_PATTERNS, FIVE_PATTERNS, steps=500, dropout=0.0)


def arithmetic(things):
    """One function for each operator and each thing, with arguments that change from one to the next."""
    functions = []
    for i, (name, sign) in enumerate(OPERATORS.items()):
        for j, thing in enumerate(things):
            a, b = ARGUMENTS[(i + j) % len(ARGUMENTS)]
            functions.append(f"def {name}_{thing}({a}, {b}):\n    return {a} {sign} {b}")
    return functions


def learn_pattern():
    return train(arithmetic(THINGS), arithmetic(NEW_THINGS), steps=500)


def split_45_5():
    pairs = [(shape, variable) for shape in range(len(SHAPES)) for variable in range(len(VARIABLES))]
    held_out = [(shape, 2 * shape) for shape in range(len(SHAPES))]
    return [
        [SHAPES[shape].format(v=VARIABLES[variable]) for shape, variable in chosen]
        for chosen in ([pair for pair in pairs if pair not in held_out], held_out)
    ]


def generalise():
    return train(*split_45_5(), steps=400)


def lowest_loss(programs):
    """The best loss that any model can reach on `programs`, drawn with equal chances: the choice among those that begin
    with the same character (which is given) costs the logarithm of their number, and all the rest can be certain."""
    first = Counter(program[0] for program in programs)
    return sum(math.log(first[program[0]]) for program in programs) / sum(map(len, programs))


def header(program):
    return program.partition("\n")[0] + "\n"


@pytest.fixture(scope="module")
def memorised():
    return memorise()


@pytest.fixture(scope="module")
def generalised():
    return generalise()


def test_an_untrained_model_is_as_surprised_as_a_uniform_guess(memorised):
    assert memorised.initial_loss == pytest.approx(math.log(memorised.tokenizer.vocab_size), rel=0.05)


def test_five_patterns_are_memorised_in_500_steps(memorised):
    assert 1 - memorised.final_loss / memorised.initial_loss >= 0.99


@pytest.mark.parametrize("program", FIVE_PATTERNS)
def test_greedy_decoding_reproduces_a_memorised_pattern(memorised, program):
    assert memorised.completes(program, given=program[: len(program) // 3])


def test_the_pattern_is_learned_for_names_never_seen():
    run = learn_pattern()
    unseen = arithmetic(NEW_THINGS)
    assert not set(unseen) & set(arithmetic(THINGS))
    assert np.mean([run.completes(program, header(program)) for program in unseen]) >= 0.9


def test_the_split_is_45_to_5_without_overlap():
    programs, held_out = split_45_5()
    assert (len(programs), len(held_out)) == (45, 5)
    assert len({*programs, *held_out}) == 50


def test_generalising_is_not_under_training(generalised):
    assert generalised.final_loss < 1.3 * lowest_loss(split_45_5()[0])


def test_held_out_loss_is_within_twice_the_training_loss(generalised):
    assert generalised.held_out_loss < 2 * generalised.final_loss


def test_held_out_programs_are_completed_from_their_first_line(generalised):
    assert np.mean([generalised.completes(program, header(program)) for program in split_45_5()[1]]) >= 0.8


def main():
    run = memorise()
    exact = sum(run.completes(program, program[: len(program) // 3]) for program in FIVE_PATTERNS)
    decrease = 1 - run.final_loss / run.initial_loss
    print(
        f"memorisation    loss {run.initial_loss:.3f} -> {run.final_loss:.3f}, down {decrease:.1%}; {exact} of 5 exact"
    )
    run, unseen = learn_pattern(), arithmetic(NEW_THINGS)
    exact = sum(run.completes(program, header(program)) for program in unseen)
    print(f"pattern         {exact} of {len(unseen)} functions under names never seen completed exactly")
    run, (programs, _) = generalise(), split_45_5()
    print(
        f"generalisation  loss {run.final_loss:.3f} on 45 programs (the least possible: {lowest_loss(programs):.3f}), "
        f"{run.held_out_loss:.3f} on 5 held out"
    )


if __name__ == "__main__":
    main()
