"""Module 03: layers. Modules hold parameters and other modules; their keys and initialisation are PyTorch's.

Read in this order: `module` (what all layers are), `basic` (the linear layer and dropout), `containers`, `activations`.
"""

from .activations import GELU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from .basic import (
    Dropout,
    Linear,
    dropout,
    dropout_mask,
    linear,
    linear_composed,
    require_probability,
    uniform,
)
from .containers import ModuleList, Sequential
from .module import Module, Parameter, evaluating, require_positive, zero_gradients
