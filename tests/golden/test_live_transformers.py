"""PyTorch and Hugging Face's transformers beside us, live: heads that share keys, norms, and models both ways."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.oracle
functional = torch.nn.functional


def compare(ours, theirs, *shapes):
    """Equal outputs, and equal gradients of all inputs under one random cotangent, in float64."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    own = [tt.tensor(a, requires_grad=True) for a in arrays]
    other = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = ours(*own), theirs(*other)
    assert_close(y, expected.detach().numpy(), 1e-10, 1e-11)
    g = rng.standard_normal(y.shape)
    y.backward(g)
    expected.backward(torch.tensor(g))
    for mine, leaf in zip(own, other):
        assert_close(mine.grad, leaf.grad.numpy(), 1e-9, 1e-10)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("causal", [False, True])
def test_heads_that_share_keys_agree(kv_heads, causal):
    settings = {"is_causal": causal, "enable_gqa": True}
    compare(
        lambda *x: tt.scaled_dot_product_attention(*x, **settings),
        lambda *x: functional.scaled_dot_product_attention(*x, **settings),
        (2, 6, 4, 3),
        (2, kv_heads, 4, 3),
        (2, kv_heads, 4, 5),
    )


@pytest.mark.parametrize("shape", [(6,), (3, 6)])
@pytest.mark.parametrize("eps", [None, 1e-3])
def test_rms_norm_agrees(shape, eps):
    compare(lambda *x: tt.rms_norm(x[0], shape, x[1], eps), lambda *x: functional.rms_norm(x[0], shape, x[1], eps),
            (2, 3, 6), shape)  # fmt: skip


def test_rms_norm_modules_have_one_state_dict():
    ours, theirs = tt.RMSNorm(6), torch.nn.RMSNorm(6)
    torch.nn.init.normal_(theirs.weight)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    assert_close(ours(tt.tensor(x)), theirs(torch.tensor(x)).detach().numpy(), 1e-5, 1e-6)


# ---- models


@pytest.fixture(scope="module")
def hub():
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


WIDTHS = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
GPT2 = {**TOKENS, "n_positions": 20, "n_embd": 24, "n_layer": 2, "n_head": 3}
THEIRS = {
    "gpt2": ("GPT2", {}),
    "gpt2_untied": ("GPT2", {"tie_word_embeddings": False, "n_inner": 30, "layer_norm_epsilon": 1e-3}),
    "llama": ("Llama", {}),
    "llama_grouped": ("Llama", {"num_key_value_heads": 2, "head_dim": 10, "tie_word_embeddings": True}),
    "llama_theta": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "mistral": ("Mistral", {"num_key_value_heads": 1, "sliding_window": 5}),
}
IDS = np.random.default_rng(1).integers(0, 50, (2, 17))


def their_model(hub, kind, settings):
    """A random model of theirs, whose weights are large enough that none is without effect."""
    common = GPT2 if kind == "GPT2" else {**TOKENS, **WIDTHS}
    config = getattr(hub, f"{kind}Config")(**{**common, **settings})
    torch.manual_seed(0)
    model = hub.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=float(parameter.ndim == 1 and name.endswith("weight")), std=0.15)
    return model.eval()


def logits_of(theirs):
    with torch.no_grad():
        return theirs(torch.tensor(IDS)).logits.numpy()


@pytest.mark.parametrize(("kind", "settings"), THEIRS.values(), ids=THEIRS)
@pytest.mark.parametrize("largest", ["1GB", "10KB"])
def test_their_models_are_read(hub, kind, settings, largest, tmp_path):
    theirs = their_model(hub, kind, settings)
    theirs.save_pretrained(tmp_path, max_shard_size=largest)
    assert_close(tt.GPT.from_pretrained(tmp_path)(tt.tensor(IDS)), logits_of(theirs), 0, 1e-5)


@pytest.mark.parametrize(("kind", "settings"), THEIRS.values(), ids=THEIRS)
def test_gradients_of_a_loss_agree(hub, kind, settings, tmp_path):
    theirs = their_model(hub, kind, {**settings, **({"attn_pdrop": 0.0} if kind == "GPT2" else {})})
    theirs.config.resid_pdrop = theirs.config.embd_pdrop = 0.0
    theirs.save_pretrained(tmp_path)
    ours = tt.GPT.from_pretrained(tmp_path)
    loss, _ = tt.next_token_loss(ours, tt.tensor(IDS))
    loss.backward()
    expected = theirs(torch.tensor(IDS), labels=torch.tensor(IDS)).loss
    expected.backward()
    assert_close(loss, expected.item(), 1e-5)
    embedding = theirs.get_input_embeddings().weight.grad.numpy()
    assert_close(ours.wte.weight.grad, embedding, 1e-3, 1e-5 * np.abs(embedding).max())


OURS = {
    "gpt2": ("GPT2LMHeadModel", {}),
    "gpt2_tied": ("GPT2LMHeadModel", {"tie_word_embeddings": True, "n_inner": 30}),
    "llama": ("LlamaForCausalLM", {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False}),
    "llama_grouped": (
        "LlamaForCausalLM",
        {
            "norm": "rms_norm",
            "positions": "rotary",
            "mlp": "swiglu",
            "bias": False,
            "n_kv_head": 2,
            "head_dim": 8,
            "rope_theta": 50.0,
            "tie_word_embeddings": True,
        },
    ),
    "mistral": (
        "MistralForCausalLM",
        {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False, "sliding_window": 5},
    ),
}


@pytest.mark.parametrize(("kind", "shape"), OURS.values(), ids=OURS)
def test_our_folders_load_there(hub, kind, shape, tmp_path):
    config = tt.GPTConfig(50, 20, 24, 2, 4, initializer_range=0.15, **shape)
    ours = tt.GPT(config, tt.Generator(0)).eval()
    ours.save_pretrained(tmp_path)
    theirs, report = getattr(hub, kind).from_pretrained(tmp_path, attn_implementation="eager", output_loading_info=True)
    assert not any(report.values())  # nothing missing, unexpected or of another shape
    assert_close(ours(tt.tensor(IDS)), logits_of(theirs.eval()), 0, 1e-5)


@pytest.mark.parametrize(("kind", "shape"), OURS.values(), ids=OURS)
def test_our_folders_of_half_the_size_load_there(hub, kind, shape, tmp_path):
    tt.GPT(tt.GPTConfig(50, 20, 24, 2, 4, initializer_range=0.15, **shape), tt.Generator(0)).save_pretrained(
        tmp_path, dtype="bfloat16"
    )
    theirs, report = getattr(hub, kind).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert {parameter.dtype for parameter in theirs.parameters()} == {torch.bfloat16}
    wide = getattr(hub, kind).from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.float32)
    assert_close(tt.GPT.from_pretrained(tmp_path)(tt.tensor(IDS)), logits_of(wide.eval()), 0, 1e-5)


@pytest.mark.parametrize(("kind", "shape"), OURS.values(), ids=OURS)
@pytest.mark.parametrize(("penalty", "padded"), [(1.0, 0), (1.6, 0), (1.0, 5)])
def test_they_write_the_same(hub, kind, shape, penalty, padded, tmp_path):
    """From prompts of equal and of unequal length. (With both, they would penalise the padding, too.)"""
    ours = tt.GPT(tt.GPTConfig(50, 20, 24, 2, 4, initializer_range=0.15, **shape), tt.Generator(0)).eval()
    ours.save_pretrained(tmp_path)
    theirs = getattr(hub, kind).from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids, padding = IDS[:, :10], np.arange(10) < np.array([[0], [padded]])
    settings = {"do_sample": False, "repetition_penalty": penalty, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.tensor(~padding).long()
    there = theirs.generate(torch.tensor(ids), attention_mask=mask, max_new_tokens=10, **settings).tolist()
    settings = {"temperature": 0, "repetition_penalty": penalty, "key_padding_mask": tt.tensor(padding)}
    assert ours.generate(tt.tensor(ids), 10, **settings).tolist() == there
