"""Write small random Mambas of Hugging Face's transformers beside this file, in `pretrained/`, and what they compute.

Run by hand where PyTorch 2.13 and transformers 5.23 are installed: python tests/golden/make_golden_mamba.py

tests/14_mamba/test_pretrained.py reads them where neither is installed. Each folder is as save_pretrained left it, with
`expected.npz` beside, all in float32: token ids, the logits for them, the gradient of every parameter, and of ten steps
of AdamW the losses and the parameters after them.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import MambaConfig, MambaForCausalLM

HERE = Path(__file__).parent / "pretrained"
TOKENS = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 1, "use_mambapy": False}

MODELS = {  # name: configuration, type of the numbers in the file
    "mamba": (MambaConfig(**TOKENS, hidden_size=12, state_size=4, num_hidden_layers=2), torch.float32),
    "mamba_biases": (
        MambaConfig(
            **TOKENS,
            hidden_size=8,
            state_size=5,
            num_hidden_layers=3,
            conv_kernel=3,
            expand=3,
            time_step_rank=3,
            use_bias=True,
            layer_norm_epsilon=1e-2,
        ),
        torch.float32,
    ),
    "mamba_untied": (
        MambaConfig(
            **TOKENS,
            hidden_size=10,
            state_size=3,
            num_hidden_layers=1,
            conv_kernel=2,
            use_conv_bias=False,
            tie_word_embeddings=False,
        ),
        torch.bfloat16,
    ),
}


def randomise(model):
    """Biases of zero, norms of one and small weights would hide mistakes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = "norm" in name or name.endswith(".D")
            parameter.normal_(mean=1.0 if is_gain else 0.0, std=0.15)
    return model


def trained(model, ids, steps=10):
    """{name: array}: the gradients of the first of these steps, their losses, and the parameters after them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    found, losses = {}, []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        if step == 0:
            found |= {f"gradient of {name}": p.grad.numpy().copy() for name, p in model.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
    return {
        **found,
        "losses": losses,
        **{f"trained {name}": p.detach().numpy() for name, p in model.named_parameters()},
    }


def main():
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name, (config, dtype) in MODELS.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        randomise(MambaForCausalLM(config)).to(dtype).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        ids = torch.randint(0, TOKENS["vocab_size"], (2, 11))
        model = MambaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            logits = model.eval()(ids).logits.numpy()
        np.savez_compressed(folder / "expected.npz", ids=ids.numpy(), logits=logits, **trained(model.train(), ids))
        files = sorted(folder.iterdir())
        print(f"{name}: {', '.join(f.name for f in files)}, {sum(f.stat().st_size for f in files) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
