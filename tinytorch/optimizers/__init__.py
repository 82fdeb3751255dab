"""Module 06: optimizers, gradient clipping and learning-rate schedules, with PyTorch's names, defaults and state.

Read in this order: `optimizer` (what all have in common), `rules` (SGD, Adam, AdamW), `schedules`.
"""

from .optimizer import BLOCK, Optimizer
from .rules import SGD, Adam, AdamW, clip_grad_norm_, decay_groups
from .schedules import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    warmup_cosine,
)
