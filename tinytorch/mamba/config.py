"""The shape of a Mamba, refused by name where it cannot be."""

import dataclasses
import math

import numpy as np

from ..layers import require_positive


@dataclasses.dataclass(frozen=True)
class MambaConfig:
    """The shape of a Mamba, by default one of 0.7 billion parameters.

    d_state: numbers of state for each channel; d_conv: taps of the convolution; expand: how much wider the inside is;
    dt_rank: rank of the step size (default d_model / 16, rounded up); dt_min, dt_max, dt_init_floor: where step sizes
    begin; dt_scale: of the weights that change them; initializer_range: of the embedding; bias: of in_proj and
    out_proj. pad_token_id: the token that fills rows up; it is an ordinary row of the embedding.
    Raises ValueError, naming the field, for what cannot be.
    """

    d_model: int = 2048
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    n_layers: int = 24
    vocab_size: int = 50280
    pad_token_id: int = 0
    dt_rank: int | None = None
    dt_min: float = 0.001
    dt_max: float = 0.1
    dt_init_floor: float = 1e-4
    dt_scale: float = 1.0
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    bias: bool = False
    conv_bias: bool = True
    tie_word_embeddings: bool = True

    n_positions = None  # no longest sequence: what a transformer's configuration has a number for

    def __post_init__(self):
        sizes = ("d_model", "d_state", "d_conv", "expand", "n_layers", "vocab_size")
        require_positive(**{name: getattr(self, name) for name in sizes})
        if self.dt_rank is not None:
            require_positive(dt_rank=self.dt_rank)
        pad = self.pad_token_id
        if isinstance(pad, bool) or not isinstance(pad, (int, np.integer)) or not 0 <= pad < self.vocab_size:
            raise ValueError(
                f"MambaConfig needs pad_token_id from 0 to vocab_size - 1 = {self.vocab_size - 1}, but got {pad!r}."
            )
        for name in ("dt_min", "dt_max", "dt_init_floor", "dt_scale", "layer_norm_epsilon", "initializer_range"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"MambaConfig needs {name} to be a number above 0, but got {value!r}.")
        for name in ("bias", "conv_bias", "tie_word_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"MambaConfig needs {name} to be True or False, but got {getattr(self, name)!r}.")
        if self.dt_min > self.dt_max:
            raise ValueError(f"MambaConfig needs dt_min up to dt_max, but got {self.dt_min} and {self.dt_max}.")

    @property
    def d_inner(self):
        """Channels inside a block."""
        return self.expand * self.d_model

    @property
    def rank(self):
        """dt_rank, or what it is where it was left out."""
        return self.dt_rank or math.ceil(self.d_model / 16)

    @classmethod
    def tiny(cls, **changes):
        """20 thousand parameters, for tests."""
        return cls(**{"d_model": 32, "d_state": 8, "n_layers": 2, "vocab_size": 100, **changes})

    @classmethod
    def small(cls, **changes):
        """195 thousand parameters."""
        return cls(**{"d_model": 64, "d_state": 16, "n_layers": 4, "vocab_size": 1000, **changes})

    @classmethod
    def medium(cls, **changes):
        """1.4 million parameters."""
        return cls(**{"d_model": 128, "d_state": 32, "n_layers": 6, "vocab_size": 5000, **changes})
