"""Module 10: tokenizers, from text to numbers and back."""

from .bpe import BPETokenizer
from .characters import CharTokenizer
