"""Write small random models of Hugging Face's transformers and their logits beside this file, in `pretrained/`.

Run by hand where PyTorch 2.13 and transformers 5.23 are installed: python tests/golden/make_golden_transformers.py

tests/13_transformers/test_pretrained.py reads them where neither is installed. Each folder is as save_pretrained left
it, with `expected.npz` beside: token ids and the logits that the model, in float32, has for them.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig

HERE = Path(__file__).parent / "pretrained"
TOKENS = {"vocab_size": 29, "bos_token_id": 0, "eos_token_id": 1}
WIDTHS = {**TOKENS, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT2 = {**TOKENS, "n_positions": 12, "n_embd": 12, "n_layer": 2, "n_head": 3}

MODELS = {  # name: configuration, type of the numbers in the file, the largest file
    "gpt2": (GPT2Config(**GPT2), torch.float32, "1GB"),
    "gpt2_untied": (
        GPT2Config(**{**GPT2, "n_head": 2}, n_inner=10, layer_norm_epsilon=1e-2, tie_word_embeddings=False),
        torch.float16,
        "1GB",
    ),
    "llama": (LlamaConfig(**WIDTHS, max_position_embeddings=12), torch.bfloat16, "1GB"),
    "llama_grouped": (
        LlamaConfig(
            **WIDTHS,
            num_key_value_heads=2,
            head_dim=6,
            rms_norm_eps=1e-2,
            rope_parameters={"rope_type": "default", "rope_theta": 50.0},
            tie_word_embeddings=True,
        ),
        torch.float32,
        "8KB",
    ),
    "mistral": (MistralConfig(**WIDTHS, num_key_value_heads=1, sliding_window=3), torch.float32, "1GB"),
}


def randomise(model):
    """Biases of zero, norms of one and small weights would hide mistakes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.normal_(mean=1.0 if is_gain else 0.0, std=0.15)
    return model


def main():
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name, (config, dtype, largest) in MODELS.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        randomise(model).to(dtype).save_pretrained(folder, max_shard_size=largest)
        (folder / "generation_config.json").unlink(missing_ok=True)
        ids = torch.randint(0, 29, (2, 11))
        with torch.no_grad():  # read again, as `to` made the angles of rotary positions as coarse as the weights
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            logits = model.eval()(ids).logits
        np.savez_compressed(folder / "expected.npz", ids=ids.numpy(), logits=logits.numpy())
        files = sorted(folder.iterdir())
        print(f"{name}: {', '.join(f.name for f in files)}, {sum(f.stat().st_size for f in files) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
