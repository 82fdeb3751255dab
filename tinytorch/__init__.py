"""tinytorch: deep learning from a NumPy array up, with PyTorch's names. Everything public is here, by module number."""

# ruff: noqa: I001
from . import activations, attention, device, distributed, embeddings, layers, losses, optimizers, precision, testing
from . import training, transformers

# 05 autograd
from .autograd import no_grad

# 01 tensor
from .tensor import Tensor, op, float32, float64, int64, bool_
from .tensor import tensor, full, zeros, ones, arange, eye, randn, rand
from .tensor import full_like, zeros_like, ones_like, randn_like, rand_like
from .tensor import cat, stack, where, einsum

# 01 tensor: what a tensor's method does, as a function: tt.exp(x) is x.exp()
add, sub, mul, div, matmul = Tensor.__add__, Tensor.__sub__, Tensor.__mul__, Tensor.__truediv__, Tensor.__matmul__
pow, exp, log, sqrt, tanh, sin, cos = (
    Tensor.pow,
    Tensor.exp,
    Tensor.log,
    Tensor.sqrt,
    Tensor.tanh,
    Tensor.sin,
    Tensor.cos,
)
abs, clip, maximum, minimum = Tensor.abs, Tensor.clip, Tensor.maximum, Tensor.minimum
sum, mean, var, std, prod, cumsum = Tensor.sum, Tensor.mean, Tensor.var, Tensor.std, Tensor.prod, Tensor.cumsum
max, min, amax, amin, argmax, argmin = Tensor.max, Tensor.min, Tensor.amax, Tensor.amin, Tensor.argmax, Tensor.argmin
reshape, transpose, permute, swapaxes = Tensor.reshape, Tensor.transpose, Tensor.permute, Tensor.swapaxes
squeeze, unsqueeze, flatten, clone = Tensor.squeeze, Tensor.unsqueeze, Tensor.flatten, Tensor.clone
split, chunk, gather, masked_fill, tril, triu = (
    Tensor.split, Tensor.chunk, Tensor.gather, Tensor.masked_fill, Tensor.tril, Tensor.triu
)  # fmt: skip

# 02 activations
from .activations import relu, sigmoid, gelu, silu, softplus, softmax, log_softmax, erf

# 03 layers
from .layers import Module, Parameter, Linear, Dropout, ModuleList, Sequential, linear, dropout
from .layers import ReLU, Sigmoid, Tanh, GELU, SiLU, Softmax

# 04 losses
from .losses import mse_loss, binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy
from .losses import MSELoss, BCELoss, BCEWithLogitsLoss, CrossEntropyLoss

# 06 optimizers
from .optimizers import Optimizer, SGD, Adam, AdamW, clip_grad_norm_, decay_groups
from .optimizers import LambdaLR, StepLR, MultiStepLR, ConstantLR, LinearLR, ExponentialLR, PolynomialLR
from .optimizers import CosineAnnealingLR, CosineAnnealingWarmRestarts, OneCycleLR, SequentialLR, warmup_cosine
from .optimizers import ReduceLROnPlateau

# 07 training
from .training import Trainer, TrainingInterrupted, Checkpoints, CheckpointError
from .training import checkpoint, recompute_blocks, Recomputable

# 08 dataloader
from .dataloader import Dataset, TensorDataset, Subset, random_split, DataLoader, default_collate
from .dataloader import Sampler, SequentialSampler, RandomSampler, WeightedRandomSampler, BatchSampler
from .dataloader import DynamicBatchSampler, DistributedSampler, DistributedBatchSampler
from .dataloader import SequencePacker, PackedRows, padded_collate

# 09 convolutions
from .convolutions import conv1d, conv2d, max_pool1d, max_pool2d, avg_pool1d, avg_pool2d, batch_norm
from .convolutions import Conv1d, Conv2d, MaxPool1d, MaxPool2d, AvgPool1d, AvgPool2d, BatchNorm1d, BatchNorm2d, Flatten

# 10 tokenization
from .tokenization import BPETokenizer, CharTokenizer

# 11 embeddings
from .embeddings import Embedding, embedding, Rotary, rotary, rotary_angles, sinusoidal_positions

# 12 attention
from .attention import MultiHeadAttention, KVCache, scaled_dot_product_attention

# 13 transformers
from .transformers import LayerNorm, layer_norm, RMSNorm, rms_norm, MLP, SwiGLU, swiglu, Block, GPTConfig, GPT
from .transformers import next_token_loss, complete, Generation, Pretrained

# 14 mamba
from .mamba import selective_scan, causal_conv1d, Mamba, MambaBlock, MambaConfig, MambaMixer, MambaCache
from .mamba import Mamba2Mixer, ssd

# 17 precision
from .precision import autocast, GradScaler, round_to

# 20 pipeline
from .pipeline import Config, DataConfig, TrainingConfig, FailureConfig, FailureKind, TrainingFailed
from .pipeline import DistributedTrainer, TextGenerator, GenerationStatistics
from .pipeline import create_data_loaders, load_token_sequences, language_model_loss

# looking at it
from .pictures import GraphPicture, draw_graph
from .pictures import plot_attention, plot_decision_boundary, plot_loss, plot_states, show_images

# the seam between NumPy and CuPy
from .device import Generator, manual_seed

__version__ = "0.1.0"
