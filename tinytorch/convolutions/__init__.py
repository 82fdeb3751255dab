"""Module 09: convolutions, pooling and batch normalisation, over one axis (signals) or two (images).

Read in this order: `windows` (what a kernel sees), `convolution`, `pooling`, `normalization`.

Letters: B batch, C channels, F filters (the channels that come out), H height, W width, k the size of a kernel.

Tensors are (B, C, W) or (B, C, H, W), as in PyTorch. Inside the operations the batch comes last, (C, H, W, B), in
memory too: what an element of a kernel sees is then made of long runs of neighbours, which move fast. Outputs keep that
memory and only show it in PyTorch's order, so that a network transposes what comes in and what leaves, and no more.
"""

from .convolution import Conv1d, Conv2d, conv1d, conv2d, conv2d_composed
from .normalization import BatchNorm1d, BatchNorm2d, batch_norm, batch_norm_composed
from .pooling import (
    AvgPool1d,
    AvgPool2d,
    Flatten,
    MaxPool1d,
    MaxPool2d,
    avg_pool1d,
    avg_pool2d,
    avg_pool2d_composed,
    max_pool1d,
    max_pool2d,
    max_pool2d_composed,
)

__all__ = [name for name in dir() if not name.startswith("_")]
