"""Module 12: attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

Read in this order: `scaled_dot_product` (the formula, step by step and as one operation), `multi_head`, `cache`.
"""

from .cache import KVCache
from .multi_head import MultiHeadAttention
from .scaled_dot_product import (
    _causal,
    _repeat_heads,
    attention_weights,
    join_heads,
    scaled_dot_product_attention,
    scaled_dot_product_attention_composed,
    split_heads,
)
