"""Module 13: the transformer (Vaswani et al. 2017), from its parts to GPT-2 (Radford et al. 2019) and Llama.

Read in this order: `norms` (layer and root mean square normalisation), `feedforward` (the layers within each position),
`gpt` (the blocks and the whole), `generation` (how it writes), `pretrained` and `formats` (weights in Hugging Face's
files).
"""

from .feedforward import MLP, SwiGLU, swiglu, swiglu_composed
from .generation import Generation, check_sampling, complete, sample
from .gpt import GPT, Block, GPTConfig, next_token_loss
from .norms import LayerNorm, RMSNorm, layer_norm, layer_norm_composed, rms_norm, rms_norm_composed
from .pretrained import Pretrained
