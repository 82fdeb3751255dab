"""Module 07: the training loop, and checkpoints from which training goes on as if it had never stopped.

Read in this order: `trainer` (the loop), `checkpoints` (what is kept, and how it survives a crash), `recomputation`
(less memory for more time).
"""

from .checkpoints import CheckpointError, Checkpoints
from .interrupts import TrainingInterrupted
from .recomputation import Recomputable, checkpoint, recompute_blocks
from .trainer import Trainer
