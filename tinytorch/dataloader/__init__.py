"""Module 08: datasets, samplers, and loaders that turn them into batches.

Read in this order: `datasets` (what is numbered), `samplers` (in which order), `loader` (batches of it); then, for
language models, `sequences` (padded and packed), `batch_samplers` (of like length), `rank_samplers` (many processes).
"""

from .batch_samplers import DynamicBatchSampler
from .datasets import Dataset, Subset, TensorDataset, random_split
from .loader import DataLoader, default_collate
from .rank_samplers import DistributedBatchSampler, DistributedSampler
from .samplers import BatchSampler, RandomSampler, Sampler, SequentialSampler, WeightedRandomSampler
from .sequences import PackedRows, SequencePacker, padded_collate, token_sample
