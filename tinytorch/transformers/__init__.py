"""Module 13: the transformer (Vaswani et al. 2017), from its parts to GPT-2 (Radford et al. 2019) and Llama.

Read in this order: `norms` (layer and root mean square normalisation), `gpt` (the parts and the whole), `generation`
(how it writes), `pretrained` and `formats` (weights in Hugging Face's files).
"""

from .generation import Generation, check_sampling, complete, sample
from .gpt import GPT, MLP, Block, GPTConfig, SwiGLU, next_token_loss, swiglu, swiglu_composed
from .norms import LayerNorm, RMSNorm, layer_norm, layer_norm_composed, rms_norm, rms_norm_composed
from .pretrained import Pretrained
