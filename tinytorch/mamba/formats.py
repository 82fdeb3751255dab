"""How Hugging Face's transformers and the original project write Mamba: fields and names.

Ours are the names of transformers. What a configuration asks for and Mamba does not do is refused.
"""

import dataclasses
import re

from ..layers import require_positive
from ..transformers.formats import Format, renamed

ORIGINAL = re.compile(r"^backbone\.embedding\.")


class MambaNames(Format):
    """What both have in common: names of weights that are ours, but for one."""

    model, embedding = "Mamba", "backbone.embeddings.weight"

    def read_names(self, stored):
        """A state dict of ours from one of theirs, with or without `backbone.` in front; the original's `embedding`."""
        return renamed(stored, _our_name)


class MambaFormat(MambaNames):
    """transformers' MambaForCausalLM.

    Not read: `time_step_init_scheme`, since the weights are there, and `residual_in_fp32`, since all is float32 here.
    """

    model_type, architecture = "mamba", "MambaForCausalLM"

    def __init__(self):
        fields = {
            "vocab_size": "vocab_size",
            "d_model": "hidden_size",
            "n_layers": "num_hidden_layers",
            "d_state": "state_size",
            "d_conv": "conv_kernel",
            "expand": "expand",
            "pad_token_id": "pad_token_id",
            "dt_rank": "time_step_rank",
            "dt_min": "time_step_min",
            "dt_max": "time_step_max",
            "dt_init_floor": "time_step_floor",
            "dt_scale": "time_step_scale",
            "layer_norm_epsilon": "layer_norm_epsilon",
            "bias": "use_bias",
            "conv_bias": "use_conv_bias",
            "initializer_range": "initializer_range",
            "tie_word_embeddings": "tie_word_embeddings",
        }
        defaults = {
            "state_size": 16,
            "conv_kernel": 4,
            "expand": 2,
            "pad_token_id": 0,
            "time_step_rank": "auto",
            "time_step_min": 0.001,
            "time_step_max": 0.1,
            "time_step_floor": 1e-4,
            "time_step_scale": 1.0,
            "layer_norm_epsilon": 1e-5,
            "use_bias": False,
            "use_conv_bias": True,
            "initializer_range": 0.1,
            "tie_word_embeddings": True,
        }
        super().__init__(fields, defaults, {}, {"hidden_act": ("silu", "swish")})  # two names of one function

    def read_config(self, config, path):
        """The fields of our configuration that the content of the config.json at `path` describes."""
        found = super().read_config(config, path)
        require_positive(hidden_size=found["d_model"], expand=found["expand"])
        inner = found["expand"] * found["d_model"]
        if config.get("intermediate_size", inner) != inner:
            raise ValueError(
                f"{path} asks for intermediate_size={config['intermediate_size']!r}, but Mamba computes with expand "
                f"times hidden_size, {inner}."
            )
        return {**found, "dt_rank": _given(found["dt_rank"]), "pad_token_id": found["pad_token_id"] or 0}

    def resolved(self, config):
        """The fields of our configuration, with the rank of step sizes as a number."""
        return {**dataclasses.asdict(config), "dt_rank": config.rank}

    def write_config(self, config):
        """The content of config.json for our configuration."""
        fixed = {"intermediate_size": config.d_inner, "hidden_act": "silu", "residual_in_fp32": True}
        return {**super().write_config(config), **fixed}


class OriginalMamba(MambaNames):
    """The files of state-spaces/mamba, whose config.json names no model_type. They are read, and never written.

    Their embedding has more rows than there are tokens: the next multiple of `pad_vocab_size_multiple`.
    """

    of_the_step = ("dt_rank", "dt_min", "dt_max", "dt_init_floor", "dt_scale")
    of_the_mixer = ("d_state", "d_conv", "expand", "bias", "conv_bias", *of_the_step)
    without_effect = ("dt_init", "use_fast_path")  # how weights begin, and by which program

    def __init__(self):
        fields = {
            "vocab_size": "vocab_size",
            "d_model": "d_model",
            "n_layers": "n_layer",
            "tie_word_embeddings": "tie_embeddings",
        }
        limits = {"rms_norm": (True,), "d_intermediate": (0,), "attn_layer_idx": ([],)}
        super().__init__(fields, {"tie_embeddings": True}, {}, limits)

    def read_config(self, config, path):
        """The fields of our configuration; what concerns the mixer is in `ssm_cfg`."""
        found, mixer = super().read_config(config, path), config.get("ssm_cfg") or {}
        if not isinstance(mixer, dict):
            raise ValueError(f"{path} needs ssm_cfg to be an object, but it is {mixer!r}.")
        if mixer.get("layer", "Mamba1") != "Mamba1":
            raise ValueError(f"{path} asks for ssm_cfg={mixer}, but Mamba has layers of type Mamba1 only.")
        unknown = mixer.keys() - {"layer", *self.of_the_mixer, *self.without_effect}
        if unknown:
            raise ValueError(
                f"{path} asks for ssm_cfg={mixer}, but Mamba does not know {', '.join(sorted(unknown))}. It reads "
                f"{', '.join(self.of_the_mixer)}."
            )
        multiple = config.get("pad_vocab_size_multiple", 8)
        require_positive(vocab_size=found["vocab_size"], pad_vocab_size_multiple=multiple)
        found["vocab_size"] += -found["vocab_size"] % multiple
        found |= {name: mixer[name] for name in self.of_the_mixer if name in mixer}
        return {**found, "dt_rank": _given(found.get("dt_rank"))}

    def fits(self, config):
        """Never: what is written is written for transformers."""
        return False


def _our_name(name):
    whole = name if name.startswith(("backbone.", "lm_head.")) else f"backbone.{name}"
    return ORIGINAL.sub("backbone.embeddings.", whole)


def _given(rank):
    """A rank of step sizes, or None for the one that follows from d_model."""
    return None if rank == "auto" else rank


FORMATS = {kind.model_type: kind() for kind in (MambaFormat, OriginalMamba)}
