"""What the grader asks the answers to lesson 10, beside the reference, on inputs that nobody knows before."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np

from tinytorch_course.grading.probes import probe, refusal

BYTES = [bytes([value]) for value in range(256)]
LETTERS = list("abcdefghijklmnopqrstuvwxyz ABC\n.!éß日")


def text_of(rng, letters, length):
    """A str of that many letters, or other pieces."""
    return "".join(letters[i] for i in rng.integers(0, len(letters), length))


def shown(tokens):
    """Bytes as text, each byte as one character."""
    return [token.decode("latin-1") for token in tokens]


# ---- characters


@probe("ex-10-1", lambda rng: {"text": text_of(rng, LETTERS, rng.integers(50, 90))})
def alphabet_of_a_text(tt, text):
    tokenizer = tt.CharTokenizer.from_text(text)
    return {"alphabet": tokenizer.alphabet, "vocab_size": tokenizer.vocab_size}


def text_and_alphabet(rng):
    """An alphabet in any order, a text in it, and letters that it has not."""
    order = rng.permutation(LETTERS).tolist()
    known, unknown = order[:20], order[20:]
    return {"alphabet": known, "text": text_of(rng, known, rng.integers(10, 30)), "unknown": text_of(rng, unknown, 2)}


@probe("ex-10-2", text_and_alphabet)
def ids_of_a_text(tt, alphabet, text, unknown):
    tokenizer = tt.CharTokenizer(alphabet)
    return {
        "ids": tokenizer.encode(text),
        "ids_with_the_end": tokenizer.encode(text, add_end=True),
        "ids_of_no_text": len(tokenizer.encode("")),
        "ids_of_no_text_with_the_end": tokenizer.encode("", add_end=True),
        "what_is_raised_for_unknown_characters": refusal(tokenizer.encode, text + unknown),
    }


def ids_with_padding(rng):
    """Ids of an alphabet, with padding among them, an end, and more behind it."""
    alphabet = rng.permutation(LETTERS)[: rng.integers(4, 20)].tolist()
    ids = rng.integers(2, 2 + len(alphabet), rng.integers(10, 20))
    ids[rng.permutation(len(ids))[:3]] = 0
    return {"alphabet": alphabet, "ids": ids, "after": rng.integers(0, 2 + len(alphabet), 5)}


@probe("ex-10-3", ids_with_padding)
def text_of_ids(tt, alphabet, ids, after):
    tokenizer = tt.CharTokenizer(alphabet)
    outside = 2 + len(alphabet), 1000, -1
    return {
        "text": tokenizer.decode(ids),
        "text_up_to_the_end": tokenizer.decode([*ids.tolist(), 1, *after.tolist()]),
        "text_of_an_end": tokenizer.decode([1, *after.tolist()]),
        "what_is_raised_for_ids_out_of_range": [refusal(tokenizer.decode, [*ids.tolist(), i]) for i in outside],
        "what_is_raised_for_a_fraction": refusal(tokenizer.decode, [2.9]),
    }


def rows(rng):
    """The ids of a few texts of different lengths, one of them empty."""
    lengths = rng.permutation([0, *rng.integers(1, 4, rng.integers(1, 4)), rng.integers(4, 8)])
    return {"rows": [rng.integers(0, 50, n).tolist() for n in lengths], "pad_id": int(rng.integers(60, 99))}


@probe("ex-10-4", rows)
def batch_of_texts(tt, rows, pad_id):
    from tinytorch.tokenization.base import Tokenizer

    class Numbers(Tokenizer):
        """A text is the number of its row."""

        def encode(self, text, add_end=False):
            return rows[int(text)] + [self.end_id] * add_end

    tokenizer = Numbers()
    tokenizer.pad_id, tokenizer.end_id = pad_id, 50
    batch = tokenizer.encode_batch(str(i) for i in range(len(rows)))
    return {
        "batch": batch,
        "type": str(batch.dtype),
        "batch_without_ends": tokenizer.encode_batch(list(map(str, range(len(rows)))), add_end=False),
        "what_is_raised_for_no_texts": refusal(tokenizer.encode_batch, []),
        "what_is_raised_for_one_text": refusal(tokenizer.encode_batch, "0"),
    }


# ---- learning


def chain_and_joins(rng):
    """Words, and which of the pairs there are at that time is to be joined next, as a part of their number."""
    words = [text_of(rng, "abc", n) for n in rng.integers(2, 8, 3)]
    return {"words": words, "joins": rng.random(rng.integers(2, 7))}


@probe("ex-10-5", chain_and_joins)
def joined_tokens(tt, words, joins):
    from tinytorch.tokenization.bpe import _Chain

    chain, found = _Chain([word.encode() for word in words]), {}
    for join in joins:
        possible = [i for i in range(len(chain.tokens)) if all(chain.pair(i))]
        if possible:
            chain.join(possible[int(join * len(possible))])
    for name, neighbour in ("forward", chain.after), ("backward", chain.before):
        walk = [0]
        for _ in chain.tokens:  # all round, and on, as there are fewer by now
            walk.append(neighbour[walk[-1]])
        found[f"tokens_walking_{name}"] = shown(chain.tokens[i] for i in walk)
    return {"tokens": shown(chain.tokens), **found}


def counted_words(rng, letters, lengths):
    """Different words of the letters, with how often each occurs."""
    return {text_of(rng, letters, length): int(rng.integers(1, 10)) for length in lengths}


@probe("ex-10-6", lambda rng: {"words": {**counted_words(rng, "aabc", rng.integers(2, 12, 5)), "aabcaaab": 3}})
def pairs_joined_everywhere(tt, words):
    from tinytorch.tokenization.bpe import _Chain, _join_everywhere

    words = {word.encode(): count for word, count in words.items()}
    chain = _Chain(words)
    weights = np.repeat([0, *words.values()], [1, *(len(word) + 1 for word in words)]).tolist()
    counts, places, created = Counter(), defaultdict(list), set()
    for i, pair in enumerate(pairwise(chain.tokens)):
        counts[pair] += weights[i]
        places[pair].append(i)
    joined = (b"b", b"c"), (b"a", b"b"), (b"a", b"a")  # places of the later ones are out of date by then
    for pair in joined:
        created |= _join_everywhere(pair, chain, weights, counts, places)
    pairs = sorted(pair for pair, count in counts.items() if count and all(pair) and pair not in joined)
    standing = {pair: sorted({i for i in places[pair] if chain.pair(i) == pair}) for pair in pairs}
    return {
        "tokens": shown(chain.tokens),
        "pairs": [shown(pair) for pair in pairs],
        "counts": [counts[pair] for pair in pairs],
        "places": [i for pair in pairs for i in standing[pair]],
        "pairs_that_came_about": [pair in created for pair in pairs],
    }


def text_to_learn_from(rng):
    words = counted_words(rng, "aabé ", rng.integers(2, 9, 12))
    return {"words": words, "size": int(rng.integers(3, 8))}


@probe("ex-10-7", text_to_learn_from)
def learned_merges(tt, words, size):
    from tinytorch.tokenization.bpe import learn_merges

    return {
        "first_merges": [shown(pair) for pair in learn_merges(words, size)],
        "all_merges": [shown(pair) for pair in learn_merges(words, 1000)],
    }


# ---- encoding


def words_and_merges(rng):
    """Words, and merges of their letters: first three pairs that overlap, in any order, then others, some in stages."""
    letters = [b"a", b"b", b"c"]
    cycles = [(letters[i], letters[(i + 1) % 3], letters[(i + 2) % 3]) for i in rng.permutation(3)]
    one, two, three = cycles[0]
    merges = [*(cycle[:2] for cycle in cycles), (one + two, three), (b"\xc3", b"\xa9")]
    tokens = [*letters, *(left + right for left, right in merges)]
    while len(merges) < 15:
        left, right = (tokens[i] for i in rng.integers(0, len(tokens), 2))
        if left + right not in tokens and len(left + right) < 6:
            tokens.append(left + right)
            merges.append((left, right))
    words = [text_of(rng, "abcabcé", n) for n in [1, *rng.integers(5, 40, 10)]]
    return {"words": [*words, "abcabca"], "merges": merges}


@probe("ex-10-8", words_and_merges)
def ids_of_words(tt, words, merges):
    tokenizer = tt.BPETokenizer(["<end>", *BYTES, *(left + right for left, right in merges)], merges)
    ids = [tokenizer._encode_word(word) for word in words]
    return {"counts": [len(row) for row in ids], "ids": np.concatenate(ids)}


def text_with_names(rng):
    """A text in which names of special tokens stand among words, one of them at the end."""
    pieces = ["ab", "b", "é", " ", "  ", "\n", "!", " a", "<end>", "<pad>", "<name>"]
    return {"text": text_of(rng, pieces, 30) + " b<end>"}


@probe("ex-10-9", text_with_names)
def ids_of_a_text_of_words(tt, text):
    def ids_of_word(word):
        return (1000 + len(word), *word.encode())

    tokenizer = tt.BPETokenizer(["<pad>", "<end>", "<name>", *BYTES], [])
    tokenizer._word_ids = tokenizer._encode_word = ids_of_word  # so that each word is seen, however it is encoded
    return {
        "ids": tokenizer.encode(text),
        "ids_with_the_end": tokenizer.encode(text, add_end=True),
        "ids_where_special_tokens_are_allowed": tokenizer.encode(text, allow_special=True),
        "ids_with_both": tokenizer.encode(text, add_end=True, allow_special=True),
    }


def cut_bytes(rng):
    """A text in UTF-8 with bytes behind it that are none, cut into tokens at any places."""
    data = text_of(rng, "aé日🙂", 20).encode() + bytes(rng.integers(128, 256, 4).tolist()) + "日".encode()[:1]
    cuts = np.unique(rng.integers(1, len(data), 25)).tolist()
    return {"tokens": [data[i:j] for i, j in pairwise([0, *cuts, len(data)])]}


@probe("ex-10-10", cut_bytes)
def text_of_tokens(tt, tokens):
    longer = sorted({token for token in tokens if len(token) > 1})
    tokenizer = tt.BPETokenizer(["<pad>", "<end>", "<name>", *BYTES, *longer], [])
    return {"text": tokenizer._text([2, *map(tokenizer.vocab.index, tokens)])}
