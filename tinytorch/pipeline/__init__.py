"""Module 20: the pipeline that trains a language model as a configuration says, survives what goes wrong, and uses it.

Read in this order: `config` (what a run is), `data` (its batches), `loss` (what is learnt from one), `failures` (what
goes wrong), `steps` (one step), `agreement` (what has to be the same), `trainer` (all steps), `inference` (what the
model is then asked).
"""

from .config import Config, DataConfig, TrainingConfig
from .data import create_data_loaders, load_token_sequences
from .failures import FailureConfig, FailureKind, TrainingFailed
from .inference import GenerationStatistics, TextGenerator
from .loss import language_model_loss
from .trainer import DistributedTrainer
