"""Module 14: Mamba (Gu and Dao 2023), whose memory of the past is a state of fixed size.

Read in this order: `scan` (the recurrence and its way back), `convolution` (the last few tokens), `config` and `model`
(the parts and the whole), `associative` (the same recurrence as a tree), `mamba2` (as products of matrices), `formats`
(weights in Hugging Face's files).
"""

from .associative import blelloch_scan, recurrence, selective_scan_by, sequential_scan, two_level_scan
from .config import MambaConfig
from .convolution import causal_conv1d, causal_conv1d_composed
from .mamba2 import Mamba2Mixer, ssd, ssd_composed
from .model import Mamba, MambaBlock, MambaCache, MambaMixer
from .scan import selective_scan, selective_scan_composed
