"""Module 07: the training loop, and checkpoints from which training goes on as if it had never stopped.

Read in this order: `trainer` (the loop), `checkpoints` (what is kept, and how it survives a crash).
"""

from .checkpoints import CheckpointError, Checkpoints
from .trainer import Trainer, TrainingInterrupted
