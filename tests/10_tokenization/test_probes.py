"""The probes of lesson 10 on seeds that everybody knows, beside plain Python: everything counted anew at every step."""

import codecs
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def cut(word):
    """The single bytes of a word, each as one character."""
    return list(word.encode().decode("latin-1"))


def joined(tokens, pair):
    """The tokens of a word with a pair joined from left to right."""
    done = []
    for token in tokens:
        if done and (done[-1], token) == pair:
            done[-1] += token
        else:
            done.append(token)
    return done


def alphabet_of_a_text(text):
    alphabet = [chr(code) for code in np.unique([ord(character) for character in text])]
    return {"alphabet": alphabet, "vocab_size": len(alphabet) + 2}


def ids_of_a_text(alphabet, text, unknown):
    ids = [alphabet.index(character) + 2 for character in text]
    return {
        "ids": ids,
        "ids_with_the_end": [*ids, 1],
        "ids_of_no_text": 0,
        "ids_of_no_text_with_the_end": [1],
        "what_is_raised_for_unknown_characters": "ValueError",
    }


def text_of_ids(alphabet, ids, after):
    text = "".join(alphabet[i - 2] for i in ids[ids > 0])
    return {
        "text": text,
        "text_up_to_the_end": text,
        "text_of_an_end": "",
        "what_is_raised_for_ids_out_of_range": ["ValueError"] * 3,
        "what_is_raised_for_a_fraction": "TypeError",
    }


def batch_of_texts(rows, pad_id):
    longest = max(map(len, rows))
    bare = [row + [pad_id] * (longest - len(row)) for row in rows]
    return {
        "batch": [row + [50] + [pad_id] * (longest - len(row)) for row in rows],
        "type": "int64",
        "batch_without_ends": bare,
        "what_is_raised_for_no_texts": "ValueError",
        "what_is_raised_for_one_text": "TypeError",
    }


def joined_tokens(words, joins):
    ring = [(0, "")]  # place and token; the border in front of all words, then each with the border behind it
    for letter in "".join(f"{word}|" for word in words):
        ring.append((len(ring), letter.strip("|")))
    size = len(ring)
    for join in joins:
        possible = [i for i in range(len(ring) - 1) if ring[i][1] and ring[i + 1][1]]
        if possible:
            i = possible[int(join * len(possible))]
            ring[i : i + 2] = [(ring[i][0], ring[i][1] + ring[i + 1][1])]
    tokens = [dict(ring).get(place, "") for place in range(size)]
    forward = [ring[i % len(ring)][1] for i in range(size + 1)]
    backward = [ring[-i % len(ring)][1] for i in range(size + 1)]
    return {"tokens": tokens, "tokens_walking_forward": forward, "tokens_walking_backward": backward}


def pairs_joined_everywhere(words):
    row, counts, places = [""], Counter(), {}
    for word, count in words.items():
        tokens = cut(word)
        for pair in ("b", "c"), ("a", "b"), ("a", "a"):
            tokens = joined(tokens, pair)
        starts = len(row) + np.cumsum([0, *map(len, tokens)])
        for start, pair in zip(starts.tolist(), pairwise(tokens)):
            counts[pair] += count
            places.setdefault(pair, []).append(start)
        row += [part for token in tokens for part in (token, *[""] * (len(token) - 1))] + [""]
    pairs = sorted(counts)
    return {
        "tokens": row,
        "pairs": pairs,
        "counts": [counts[pair] for pair in pairs],
        "places": [place for pair in pairs for place in places[pair]],
        "pairs_that_came_about": [max(map(len, pair)) > 1 for pair in pairs],
    }


def learned_merges(words, size):
    rows, merges = {word: cut(word) for word in words}, []
    while True:
        counts = Counter()
        for word, tokens in rows.items():
            for pair in pairwise(tokens):
                counts[pair] += words[word]
        most = max(counts.values(), default=0)
        if most < 2:
            return {"first_merges": merges[:size], "all_merges": merges}
        merges.append(min(pair for pair, count in counts.items() if count == most))
        rows = {word: joined(tokens, merges[-1]) for word, tokens in rows.items()}


def ids_of_words(words, merges):
    ids = {**{chr(value): 1 + value for value in range(256)}, "<end>": 0}
    merges = [(left.decode("latin-1"), right.decode("latin-1")) for left, right in merges]
    ids |= {left + right: 257 + rank for rank, (left, right) in enumerate(merges)}
    rows = []
    for word in words:
        tokens = cut(word)
        while known := [pair for pair in pairwise(tokens) if pair in merges]:
            tokens = joined(tokens, min(known, key=merges.index))
        rows.append([ids[token] for token in tokens])
    return {"counts": [len(row) for row in rows], "ids": np.concatenate(rows)}


def ids_of_a_text_of_words(text):
    def of(text):
        ids = []
        for word in re.findall(r" ?[a-zé]+| ?[^a-zé\s]+|\s+(?!\S)|\s+", text):
            ids += [1000 + len(word), *word.encode()]
        return ids

    allowed, names = [], {"<pad>": 0, "<end>": 1, "<name>": 2}
    for piece in re.split("(<pad>|<end>|<name>)", text):
        allowed += [names[piece]] if piece in names else of(piece)
    return {
        "ids": of(text),
        "ids_with_the_end": [*of(text), 1],
        "ids_where_special_tokens_are_allowed": allowed,
        "ids_with_both": [*allowed, 1],
    }


def text_of_tokens(tokens):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = "".join(map(decoder.decode, tokens))
    return {"text": "<name>" + text + decoder.decode(b"", final=True)}


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_python(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
