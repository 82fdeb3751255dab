"""How Hugging Face's transformers writes GPT-2, Llama and Mistral (Llama with a sliding window): fields and names.

What a configuration asks for and GPT does not do is refused: a model that loads computes what it computed there.
"""

import dataclasses
import re

import numpy as np


class Format:
    """One `model_type`: its configuration and the names of its weights, from theirs to ours and back.

    fields: the fields of our configuration and their names there; defaults: what a field of theirs means where it is
    left out (the others are needed); parts: the fields of ours that are the same for all models of this type; limits:
    fields of theirs that change the result, and what we do, the first being what leaving out means.
    `model` is the name of our class, `embedding` that of its token embedding, which a tied output head shares.
    """

    model_type = architecture = model = embedding = None

    def __init__(self, fields, defaults, parts, limits):
        elsewhere = ("quantization_config", "auto_map", "num_experts", "num_local_experts", "n_routed_experts")
        self.fields, self.defaults, self.parts = fields, defaults, parts
        self.limits = {**dict.fromkeys(elsewhere, (None,)), **limits}

    def read_config(self, config, path):
        """The fields of our configuration that the content of the config.json at `path` describes."""
        for name, allowed in self.limits.items():
            if config.get(name, allowed[0]) not in allowed:
                only = " or ".join(map(repr, allowed))
                raise ValueError(
                    f"{path} asks for {name}={config[name]!r}, but {self.model} computes with {only} only."
                )
        given = {**self.defaults, **config}
        missing = [name for name in self.fields.values() if name not in given]
        if missing:
            raise ValueError(f"{path} needs {', '.join(missing)}, but has only {', '.join(config)}.")
        return {**self.parts, **{ours: given[theirs] for ours, theirs in self.fields.items()}}

    def resolved(self, config):
        """The fields of our configuration, with numbers for those that follow from others."""
        return dataclasses.asdict(config)

    def fits(self, config):
        """Whether our configuration is of this type."""
        fields = self.resolved(config)
        return all(fields[name] == value for name, value in self.parts.items())

    def write_config(self, config):
        """The content of config.json for our configuration. Which tokens are special is not known."""
        described = {"model_type": self.model_type, "architectures": [self.architecture]}
        described |= {"bos_token_id": None, "eos_token_id": None}
        fields = self.resolved(config)
        return described | {theirs: fields[ours] for ours, theirs in self.fields.items()}

    def read_names(self, stored):
        """A state dict of ours from one of theirs, {name: array}."""
        return stored

    def write_names(self, state):
        """A state dict of theirs from one of ours."""
        return state


class GPTFormat(Format):
    """What GPT is read from and written in: a Format whose `name` an error tells, with what makes it one."""

    model, embedding, name = "GPT", "wte.weight", None

    def __str__(self):
        return f"{self.name}, {self.parts}"

    def resolved(self, config):
        """The fields of our configuration, with numbers for those that follow from others."""
        return {
            **dataclasses.asdict(config),
            "n_kv_head": config.n_kv_head or config.n_head,
            "head_dim": config.head_dim or config.n_embd // config.n_head,
            "n_inner": config.n_inner or (8 * config.n_embd // 3 if config.mlp == "swiglu" else 4 * config.n_embd),
        }


class GPT2(GPTFormat):
    """Matrices are stored (in, out), those of queries, keys and values side by side in c_attn."""

    model_type, architecture = "gpt2", "GPT2LMHeadModel"
    name = "GPT-2"
    dropouts = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    transposed = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")

    def __init__(self):
        fields = {
            "vocab_size": "vocab_size",
            "n_positions": "n_positions",
            "n_embd": "n_embd",
            "n_layer": "n_layer",
            "n_head": "n_head",
            "n_inner": "n_inner",
            "dropout": "resid_pdrop",
            "layer_norm_epsilon": "layer_norm_epsilon",
            "initializer_range": "initializer_range",
            "tie_word_embeddings": "tie_word_embeddings",
        }
        defaults = {
            "n_inner": None,
            "resid_pdrop": 0.1,
            "layer_norm_epsilon": 1e-5,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
        }
        parts = {"norm": "layer_norm", "positions": "learned", "mlp": "gelu", "bias": True, "sliding_window": None}
        limits = {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),  # three ways to write one formula
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        }
        super().__init__(fields, defaults, parts, limits)

    def read_config(self, config, path):
        """The fields of our configuration; three dropouts there are one here."""
        found = {name: config.get(name, self.defaults["resid_pdrop"]) for name in self.dropouts}
        if len(set(found.values())) > 1:
            raise ValueError(f"{path} asks for {found}, but GPT has one dropout for all. Make them equal in the file.")
        return super().read_config(config, path)

    def __str__(self):
        return f"{super().__str__()} and heads that share no keys"

    def fits(self, config):
        """Whether our configuration is of this type, whose heads share no keys and fill n_embd."""
        fields = self.resolved(config)
        plain = fields["n_kv_head"] == fields["n_head"] and fields["head_dim"] * fields["n_head"] == fields["n_embd"]
        return plain and super().fits(config)

    def write_config(self, config):
        """The content of config.json for our configuration."""
        dropouts = dict.fromkeys(self.dropouts, config.dropout)
        return {**super().write_config(config), **dropouts, "activation_function": "gelu_new"}

    def read_names(self, stored):
        """A state dict of ours from one of theirs, {name: array}, with or without `transformer.` in front."""
        state = {}
        for name, array in renamed(stored, lambda name: name.removeprefix("transformer.")).items():
            array = array.T if self.transposed.search(name) else array
            if ".attn.c_attn." in name:
                if len(array) % 3:
                    raise ValueError(f"{name} needs queries, keys and values of one size, but holds {len(array)}.")
                for proj, part in zip(("q_proj", "k_proj", "v_proj"), np.split(array, 3)):
                    state[name.replace("c_attn", proj)] = part
            else:
                state[name.replace(".attn.c_proj.", ".attn.out_proj.")] = array
        return state

    def write_names(self, state):
        """A state dict of theirs from one of ours."""
        stored = {}
        for name, array in state.items():
            if ".attn.k_proj." in name or ".attn.v_proj." in name:
                continue  # with the queries
            if ".attn.q_proj." in name:
                three = [state[name.replace("q_proj", proj)] for proj in ("q_proj", "k_proj", "v_proj")]
                name, array = name.replace("q_proj", "c_attn"), np.concatenate(three)
            name = name.replace(".attn.out_proj.", ".attn.c_proj.")
            array = array.T if self.transposed.search(name) else array
            stored[name if name.startswith("lm_head.") else f"transformer.{name}"] = array
        return stored


class Llama(GPTFormat):
    """Rotary angles turn channel i with channel i + D / 2. Its one dropout, of attention weights, is ours of all."""

    model_type, architecture = "llama", "LlamaForCausalLM"
    name = "Llama"

    def __init__(self):
        fields = {
            "vocab_size": "vocab_size",
            "n_positions": "max_position_embeddings",
            "n_embd": "hidden_size",
            "n_layer": "num_hidden_layers",
            "n_head": "num_attention_heads",
            "n_kv_head": "num_key_value_heads",
            "head_dim": "head_dim",
            "n_inner": "intermediate_size",
            "dropout": "attention_dropout",
            "layer_norm_epsilon": "rms_norm_eps",
            "initializer_range": "initializer_range",
            "tie_word_embeddings": "tie_word_embeddings",
        }
        defaults = {
            "max_position_embeddings": 2048,
            "num_key_value_heads": None,
            "head_dim": None,
            "attention_dropout": 0.0,
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.02,
            "tie_word_embeddings": False,
        }
        parts = {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False, "sliding_window": None}
        limits = {
            "hidden_act": ("silu", "swish"),  # two names of one function
            "attention_bias": (False,),
            "mlp_bias": (False,),
            "partial_rotary_factor": (None, 1),
        }
        self.names = {
            "wte": "embed_tokens",
            "h": "layers",
            "ln_1": "input_layernorm",
            "attn": "self_attn",
            "out_proj": "o_proj",
            "ln_2": "post_attention_layernorm",
            "ln_f": "norm",
        }
        super().__init__(fields, defaults, parts, limits)

    def read_config(self, config, path):
        """transformers 5 keeps the base of the angles in rope_parameters, earlier versions beside rope_scaling."""
        theta = config.get("rope_theta") or 10000.0
        for name in ("rope_scaling", "rope_parameters"):
            settings = config.get(name) or {}
            if not isinstance(settings, dict):
                raise ValueError(f"{path} needs {name} to be an object, but it is {settings!r}.")
            kind = settings.get("rope_type", settings.get("type", "default"))
            for_some_layers = any(isinstance(value, dict) for value in settings.values())
            if kind != "default" or settings.get("partial_rotary_factor", 1) != 1 or for_some_layers:
                raise ValueError(f"{path} asks for {name}={settings}, but GPT turns all channels, by unscaled angles.")
            theta = settings.get("rope_theta", theta)
        return {**super().read_config(config, path), "rope_theta": theta}

    def write_config(self, config):
        """The content of config.json for our configuration."""
        rope = {"rope_type": "default", "rope_theta": config.rope_theta}
        both = {"rope_parameters": rope, "rope_theta": config.rope_theta}  # each version finds its own
        return {**super().write_config(config), **both, "hidden_act": "silu"}

    def read_names(self, stored):
        """A state dict of ours from one of theirs, {name: array}, with or without `model.` in front."""
        ours = {theirs: part for part, theirs in self.names.items()}
        return renamed(stored, lambda name: _with_parts(name.removeprefix("model."), ours))

    def write_names(self, state):
        """A state dict of theirs from one of ours."""
        names = {name: _with_parts(name, self.names) for name in state}
        return {(new if name.startswith("lm_head.") else f"model.{new}"): state[name] for name, new in names.items()}


class Mistral(Llama):
    """Llama with a sliding window."""

    model_type, architecture = "mistral", "MistralForCausalLM"
    name = "Mistral"

    def __init__(self):
        super().__init__()
        self.fields["sliding_window"] = "sliding_window"
        self.defaults |= {"num_key_value_heads": 8, "sliding_window": 4096}
        del self.parts["sliding_window"]


FORMATS = {kind.model_type: kind() for kind in (GPT2, Llama, Mistral)}


def renamed(stored, rename):
    """{rename(name): array}. Raises ValueError where two of the names in a file stand for one of ours."""
    theirs = {}
    for name in stored:
        if theirs.setdefault(rename(name), name) != name:
            raise ValueError(
                f"The weights hold {theirs[rename(name)]} and {name}, which are two names of one tensor. Which is it? "
                "Remove the other from the file."
            )
    return {ours: stored[name] for ours, name in theirs.items()}


def _with_parts(name, parts):
    return ".".join(parts.get(part, part) for part in name.split("."))
