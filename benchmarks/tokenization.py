"""How fast byte-pair encoding is learned and applied, beside the library `tokenizers`, in one run.

    python benchmarks/tokenization.py

Both learn the same number of merges from 1 MB of Python's own source and encode it. They take turns, and the median
times are compared as a ratio: below 1, tinytorch is faster. A new tokenizer works out each word when it first meets it;
"again" is the same text once more. `tokenizers` is written in Rust, is told to use one core as tinytorch does, and also
notes where in the text each token stands.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sysconfig
import time
from pathlib import Path

import tinytorch as tt

SIZE = 1_000_000
SPECIAL = ("<pad>", "<end>")


def corpus():
    """The first megabyte of the standard library."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return "".join(path.read_text(encoding="utf-8") for path in files)[:SIZE]


def train_ours(text, merges):
    """What encodes a text, after training."""
    return tt.BPETokenizer.train(text, len(SPECIAL) + 256 + merges, SPECIAL).encode


def train_theirs(text, merges):
    import tokenizers

    level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=len(SPECIAL) + 256 + merges,
        special_tokens=list(SPECIAL),
        initial_alphabet=level.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return lambda text: tokenizer.encode(text).ids


def timed(function, *arguments):
    began = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - began


def measure(trainers, text, merges, rounds):
    """For each trainer, median seconds of training, of encoding with the new tokenizer, and of encoding again."""
    times = [[] for _ in trainers]
    for _ in range(rounds):
        lengths = []
        for train, taken in zip(trainers, times):
            encode, training = timed(train, text, merges)
            ids, new = timed(encode, text)
            _, again = timed(encode, text)
            taken.append((training, new, again))
            lengths.append(len(ids))
        if max(lengths) > 1.01 * min(lengths):  # of equally frequent pairs they choose different ones
            raise RuntimeError(f"The tokenizers do not do the same work: {lengths} tokens.")
    return [[statistics.median(column) for column in zip(*taken)] for taken in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--merges", type=int, nargs="+", default=[1000, 2000, 8000])
    parser.add_argument("--rounds", type=int, default=5, help="how often each has its turn (default 5)")
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"] = "1", "false"
    trainers, peer = [train_ours], "not installed"
    if importlib.util.find_spec("tokenizers") is None:
        print("Without a peer: tokenizers is not installed here. To compare with it, pip install tokenizers.")
    else:
        trainers, peer = [train_ours, train_theirs], importlib.metadata.version("tokenizers")
    text = corpus()
    megabytes = len(text.encode()) / 1e6
    train_ours(text[:1000], 1)  # the first call of all also builds the pattern that cuts words
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, tokenizers {peer}")
    print(f"\n| {megabytes:.2f} MB of text | tinytorch | tokenizers | ratio |\n|---|--:|--:|--:|")
    for merges in options.merges:
        columns = zip(*measure(trainers, text, merges, options.rounds))
        for what, (taken, *peers) in zip(("train", "encode", "encode again"), columns):
            beside = f"{peers[0]:.3f} s | **{taken / peers[0]:.2f}**" if peers else "|"
            speed = "" if what == "train" else f" ({megabytes / taken:.1f} MB/s)"
            print(f"| {merges} merges, {what} | {taken:.3f} s{speed} | {beside} |", flush=True)


if __name__ == "__main__":
    main()
