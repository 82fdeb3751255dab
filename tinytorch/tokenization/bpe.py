"""Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909, section 3.2) on bytes, as in GPT-2.

A token is a string of bytes. Training begins with the 256 single bytes and again and again joins the two neighbours
that stand together most often; encoding joins in the same order. So a frequent word becomes one token, and a text in
any script or none can be encoded.
"""

import functools
import heapq
import itertools
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

from ..layers import require_positive
from .base import Tokenizer
from .words import named_token, split_words, to_bytes, token_name

BYTES = [bytes([value]) for value in range(256)]
CACHED_WORDS = 2**16  # of which a tokenizer remembers the ids: most words of a text have occurred before


class _Chain:
    """The bytes of words in a row. Neighbours can be joined to longer tokens, each in the same short time.

    The empty token b"" stands between words, and in the places of tokens that have become part of another.
    """

    def __init__(self, words):
        self.tokens = [b""]
        for word in words:
            self.tokens += [*map(BYTES.__getitem__, word), b""]
        self.before = list(range(-1, len(self.tokens) - 1))
        self.after = list(range(1, len(self.tokens))) + [0]

    def pair(self, i):
        """The token at i and the next one."""
        return self.tokens[i], self.tokens[self.after[i]]

    def join(self, i):
        """Make one token, at i, of the pair there; what was absorbed leaves b"" and is no neighbour any more."""
        absorbed = self.after[i]
        end = self.after[absorbed]
        self.tokens[i] += self.tokens[absorbed]
        self.tokens[absorbed] = b""
        self.after[i], self.before[end] = end, i


def learn_merges(words, size):
    """`size` pairs of tokens to join, a list in order, learned from `words`, a dict {word: how often it occurs}.

    Each is the pair that occurs most often when the earlier ones have been joined; among equals, the one whose bytes
    come first. There are fewer where no pair occurs twice. Counts are kept up to date instead of counted anew: a join
    touches only its neighbours, so the time depends on the text and hardly on the number of merges.
    """
    words = {to_bytes(word): count for word, count in words.items()}
    chain = _Chain(words)
    weights = [0]  # of each place in the chain: how often its word occurs
    for word, count in words.items():
        weights += [count] * (len(word) + 1)
    counts, places = Counter(), defaultdict(list)
    for i, (pair, weight) in enumerate(zip(itertools.pairwise(chain.tokens), weights)):
        counts[pair] += weight
        places[pair].append(i)
    heap = [(-count, pair) for pair, count in counts.items() if all(pair)]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < size:
        count, pair = heapq.heappop(heap)
        if -count > counts[pair]:  # joins around it have made it rarer: it goes back to where it belongs by now
            heapq.heappush(heap, (-counts[pair], pair))
            continue
        if counts[pair] < 2:
            break
        merges.append(pair)
        for new in _join_everywhere(pair, chain, weights, counts, places):
            heapq.heappush(heap, (-counts[new], new))
    return merges


def _join_everywhere(pair, chain, weights, counts, places):
    """Join a pair wherever it stands, from left to right as places were noted. Returns the pairs that came about."""
    created = set()
    for i in places.pop(pair):
        if chain.pair(i) != pair:  # a neighbour was faster: "aaa" becomes "aa", "a"
            continue
        around = chain.before[i], chain.after[i]
        for place in around:
            counts[chain.pair(place)] -= weights[i]
        chain.join(i)
        for place in (around[0], i):
            new = chain.pair(place)
            if all(new):
                counts[new] += weights[i]
                places[new].append(place)
                created.add(new)
    return created


class BPETokenizer(Tokenizer):
    """Byte-level BPE: frequent words are one token, rare ones several, and every text can be encoded.

    Learn one from text with `train`, or read GPT-2's with `from_gpt2`.
    vocab: what each id stands for: bytes, or a str, which is a special token. The first special token is the padding,
    the second ends a text; one alone, as in GPT-2, is both. merges: pairs of bytes to join, in order.
    Raises ValueError for a vocabulary without the 256 single bytes, or without what merges join and make.
    """

    TYPE, NAME = "bpe", "BPE tokenizer"

    def __init__(self, vocab, merges):
        self.vocab, self.merges = list(vocab), [(left, right) for left, right in merges]
        self._ids = {token: i for i, token in enumerate(self.vocab)}
        self._check()
        self._bytes = [token.encode() if isinstance(token, str) else token for token in self.vocab]
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.special_tokens = {token: i for token, i in self._ids.items() if isinstance(token, str)}
        self.pad_id, self.end_id = (2 * list(self.special_tokens.values()))[:2]
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._word_ids = functools.lru_cache(CACHED_WORDS)(self._encode_word)

    def _check(self):
        if len(self._ids) < len(self.vocab) or not all(self.vocab):
            raise ValueError("BPETokenizer needs a vocabulary of distinct tokens, none of them empty.")
        if not any(isinstance(token, str) for token in self.vocab):
            raise ValueError("BPETokenizer needs a special token, a str such as '<end>', but the vocabulary has none.")
        needed = set(BYTES).union(*((left, right, left + right) for left, right in self.merges))
        missing = sorted(needed - self._ids.keys())
        if missing:
            raise ValueError(
                f"BPETokenizer needs the 256 single bytes and all tokens of the merges in its vocabulary, but "
                f"{len(missing)} are missing, the first of them {missing[0]!r}."
            )

    @classmethod
    def train(cls, text_or_texts, vocab_size, special_tokens=("<pad>", "<end>")):
        """Learn the merges of a text, or of several. Ids: the special tokens, the 256 bytes, then new tokens in order.

        Of equally frequent pairs the one whose bytes come first is merged, so that a text always gives the same
        tokens. The vocabulary stays smaller than `vocab_size` where no pair occurs twice any more. Raises ValueError
        for an empty text and for a vocab_size without room for the special tokens and the bytes.
        """
        require_positive(vocab_size=vocab_size)
        if isinstance(special_tokens, str):
            raise TypeError(f"special_tokens needs a list of names, but got one text. Write [{special_tokens!r}].")
        start = [*special_tokens, *BYTES]
        if vocab_size < len(start):
            raise ValueError(
                f"vocab_size needs at least {len(start)}, for {len(start) - 256} special tokens and 256 bytes, but got "
                f"{vocab_size}."
            )
        words = Counter()
        for text in [text_or_texts] if isinstance(text_or_texts, str) else text_or_texts:
            words.update(split_words(text))
        if not words:
            raise ValueError("BPETokenizer needs text to learn from, but got none. Is the corpus empty?")
        merges = learn_merges(words, vocab_size - len(start))
        return cls([*start, *(left + right for left, right in merges)], merges)

    @classmethod
    def from_gpt2(cls, folder):
        """GPT-2's published tokenizer from its `vocab.json` and `merges.txt`; the same ids, `<|endoftext|>` as special.

        Raises ValueError, naming the folder, for other files.
        """
        folder = Path(folder)
        try:
            ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [map(named_token, line.split(" ")) for line in lines[lines[0].startswith("#version") :] if line]
            merges = [(left, right) for left, right in merges]
            known = {token_name(token) for token in [*BYTES, *(left + right for left, right in merges)]}
            vocab = [named_token(name) if name in known else name for name in sorted(ids, key=ids.get)]
            if sorted(ids.values()) != list(range(len(ids))):
                raise ValueError("the ids have gaps")
            return cls(vocab, merges)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{folder} has no vocab.json and merges.txt of GPT-2's kind: {error!r}.") from error

    @property
    def vocab_size(self):
        return len(self.vocab)

    def encode(self, text, add_end=False, allow_special=False):
        """The ids of a text, a list; with `add_end` the end token follows.

        The name of a special token in the text is text like any other, unless `allow_special`: text that a user typed
        must not end a document. Raises ValueError for text that UTF-8 cannot hold.
        """
        ids = []
        for piece in self._special.split(text) if allow_special else [text]:
            if allow_special and piece in self._ids:
                ids.append(self._ids[piece])
            else:
                ids += itertools.chain.from_iterable(map(self._word_ids, split_words(piece)))
        return ids + [self.end_id] * add_end

    def _encode_word(self, word):
        """The ids of one word: the earliest learned pair is joined first, of several the leftmost."""
        chain = _Chain([to_bytes(word)])
        pairs = enumerate(itertools.pairwise(chain.tokens))
        heap = [(self._ranks[pair], i) for i, pair in pairs if pair in self._ranks]
        heapq.heapify(heap)
        while heap:
            rank, i = heapq.heappop(heap)
            if self._ranks.get(chain.pair(i)) != rank:  # one of the two is part of a longer token by now
                continue
            chain.join(i)
            for place in (chain.before[i], i):
                new = self._ranks.get(chain.pair(place))
                if new is not None:
                    heapq.heappush(heap, (new, place))
        return tuple(self._ids[token] for token in chain.tokens if token)

    def _text(self, ids):
        """Bytes that are no UTF-8 become U+FFFD, the replacement character: the tokens of a model may end anywhere."""
        return b"".join(map(self._bytes.__getitem__, ids)).decode("utf-8", errors="replace")

    def _to_json(self):
        vocab = [{"special": token} if isinstance(token, str) else token_name(token) for token in self.vocab]
        return {"vocab": vocab, "merges": [f"{token_name(left)} {token_name(right)}" for left, right in self.merges]}

    @classmethod
    def _from_json(cls, content):
        vocab = [entry["special"] if isinstance(entry, dict) else named_token(entry) for entry in content["vocab"]]
        return cls(vocab, [map(named_token, merge.split(" ")) for merge in content["merges"]])
