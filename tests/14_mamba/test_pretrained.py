"""Mambas of Hugging Face's transformers load, compute and learn what they did there, and are written as they came."""

import json

import numpy as np
import pytest
import safetensors.numpy
from golden_folders import GOLDEN, copied, rewrite

import tinytorch as tt
from tinytorch.mamba import Mamba, MambaConfig
from tinytorch.testing import assert_close

NAMES = ["mamba", "mamba_biases", "mamba_untied"]
every_model = pytest.mark.parametrize("name", NAMES)


def expected(name):
    with np.load(GOLDEN / name / "expected.npz") as file:
        return dict(file)


def assert_golden(model, name):
    wanted = expected(name)
    assert_close(model(tt.tensor(wanted["ids"])), wanted["logits"], 1e-4, 1e-5)


@pytest.fixture
def copy(tmp_path):
    """A function that copies a golden folder, changes fields of its config.json (None removes one), and returns it."""

    def make(name="mamba", **changes):
        return copied(name, tmp_path / "copy", **changes)

    return make


def renamed(folder, rename):
    return rewrite(folder, lambda tensors: {rename(name): array for name, array in tensors.items()})


# ---- reading


@every_model
def test_logits_are_those_of_transformers(name):
    model = Mamba.from_pretrained(GOLDEN / name)
    assert_golden(model, name)
    assert {parameter.dtype for parameter in model.parameters()} == {tt.float32}
    assert not model.training


@every_model
@tt.no_grad()
def test_a_loaded_model_goes_on_from_its_state(name):
    model, wanted = Mamba.from_pretrained(GOLDEN / name), expected(name)
    ids, cache = tt.tensor(wanted["ids"]), None
    cache = model.new_cache()
    pieces = [model(ids[:, start:end], cache=cache) for start, end in [(0, 4), (4, 5), (5, 11)]]
    assert_close(tt.cat(pieces, dim=1), wanted["logits"], 1e-4, 1e-5)


@every_model
def test_gradients_of_every_parameter_are_those_of_transformers(name):
    model, wanted = Mamba.from_pretrained(GOLDEN / name).train(), expected(name)
    loss, _ = tt.next_token_loss(model, tt.tensor(wanted["ids"]))
    loss.backward()
    assert_close(loss, wanted["losses"][0], 1e-5)
    gradients = {key.removeprefix("gradient of ") for key in wanted if key.startswith("gradient of ")}
    assert {parameter for parameter, _ in model.named_parameters()} == gradients
    for parameter, tensor in model.named_parameters():
        there = wanted[f"gradient of {parameter}"]
        assert_close(tensor.grad, there, 1e-3, 1e-5 * np.abs(there).max(), what=parameter)


@every_model
def test_ten_steps_of_training_are_those_of_pytorch(name):
    model, wanted = Mamba.from_pretrained(GOLDEN / name).train(), expected(name)
    optimizer, losses = tt.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1), []
    for _ in range(10):
        loss, _ = tt.next_token_loss(model, tt.tensor(wanted["ids"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert_close(losses, wanted["losses"], 1e-4)
    for parameter, tensor in model.named_parameters():
        assert_close(tensor, wanted[f"trained {parameter}"], 0, 1e-4, what=parameter)


def test_the_configurations_are_read_whole():
    biases, untied = (Mamba.from_pretrained(GOLDEN / name).config for name in NAMES[1:])
    sizes = {"vocab_size": 32, "initializer_range": 0.1}
    assert biases == MambaConfig(8, 5, 3, 3, 3, dt_rank=3, bias=True, layer_norm_epsilon=1e-2, **sizes)
    assert untied == MambaConfig(10, 3, 2, 2, 1, dt_rank=1, conv_bias=False, tie_word_embeddings=False, **sizes)


@pytest.mark.parametrize(
    "changes",
    [
        {"time_step_rank": "auto", "pad_token_id": None, "hidden_act": "swish"},
        {"conv_kernel": None, "expand": None, "tie_word_embeddings": None, "time_step_rank": None, "use_bias": None},
        {"residual_in_fp32": False, "use_mambapy": True, "unknown": 1},
    ],
    ids=str,
)
def test_what_changes_nothing_is_no_reason_to_refuse(copy, changes):
    assert_golden(Mamba.from_pretrained(copy(**changes)), "mamba")


def test_a_pad_token_of_null_is_the_first_row(copy):
    folder = copy()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    assert Mamba.from_pretrained(folder).config.pad_token_id == 0


def test_names_without_the_outer_prefix_are_read(copy):
    assert_golden(Mamba.from_pretrained(renamed(copy(), lambda name: name.removeprefix("backbone."))), "mamba")


# ---- the original project's files


ORIGINAL = {"d_model": 12, "n_layer": 2, "vocab_size": 29, "ssm_cfg": {"d_state": 4}, "rms_norm": True}


def original(copy, **changes):
    """A folder with the names of state-spaces/mamba, where 29 tokens have 32 rows."""
    folder = renamed(copy(), lambda name: name.replace("backbone.embeddings.", "backbone.embedding."))
    (folder / "config.json").write_text(json.dumps({**ORIGINAL, **changes}))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pad_vocab_size_multiple": 8, "residual_in_fp32": True, "fused_add_norm": True},
        {"pad_vocab_size_multiple": 1, "vocab_size": 32, "tie_embeddings": True, "d_intermediate": 0},
        {"ssm_cfg": {"d_state": 4, "use_fast_path": False, "dt_init": "constant", "conv_bias": True, "bias": False}},
        {"ssm_cfg": {"layer": "Mamba1", "d_state": 4, "dt_rank": "auto"}, "attn_layer_idx": [], "attn_cfg": {}},
    ],
    ids=str,
)
def test_the_original_files_are_read(copy, changes):
    model = Mamba.from_pretrained(original(copy, **changes))
    assert_golden(model, "mamba")
    assert model.config.vocab_size == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ssm_cfg": {"layer": "Mamba2"}}, r"asks for ssm_cfg=\{'layer': 'Mamba2'\}, but Mamba has layers of type Mam"),
        ({"rms_norm": False}, "asks for rms_norm=False, but Mamba computes with True only"),
        ({"attn_layer_idx": [3]}, r"asks for attn_layer_idx=\[3\], but Mamba"),
        ({"d_intermediate": 64}, "asks for d_intermediate=64, but Mamba"),
        ({"vocab_size": 33}, r"do not fit its config.json. .* needs shape \(40, 12\), but .* \(32, 12\)"),
        ({"vocab_size": "29"}, "vocab_size needs an integer of at least 1, but got '29'"),
        ({"pad_vocab_size_multiple": 0}, "pad_vocab_size_multiple needs an integer of at least 1, but got 0"),
        ({"pad_vocab_size_multiple": "8"}, "pad_vocab_size_multiple needs an integer of at least 1, but got '8'"),
        (
            {"ssm_cfg": {"d_state": 4, "ngroups": 2, "headdim": 64}},
            "does not know headdim, ngroups. It reads d_state, d_",
        ),
        ({"ssm_cfg": 5}, "needs ssm_cfg to be an object, but it is 5"),
    ],
)
def test_what_mamba_does_not_do_is_refused_in_the_original_files_too(copy, changes, message):
    with pytest.raises(ValueError, match=message):
        Mamba.from_pretrained(original(copy, **changes))


@pytest.mark.parametrize("other", ["backbone.embedding.weight", "embeddings.weight", "embedding.weight"])
def test_one_tensor_under_two_names_is_refused(copy, other):
    folder = copy()
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load(path.read_bytes())
    path.unlink()
    safetensors.numpy.save_file(tensors | {other: tensors["backbone.embeddings.weight"] * 2}, path)
    with pytest.raises(ValueError, match=rf"hold .*{other}.*, which are two names of one tensor"):
        Mamba.from_pretrained(folder)


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "of model_type 'gpt2', but Mamba reads only mamba"),
        ({"hidden_act": "gelu"}, "asks for hidden_act='gelu', but Mamba computes with 'silu' or 'swish' only"),
        ({"quantization_config": {"bits": 4}}, "asks for quantization_config="),
        ({"hidden_size": None, "vocab_size": None}, "needs vocab_size, hidden_size, but has only"),
        ({"state_size": 0}, "d_state needs an integer of at least 1, but got 0"),
        ({"state_size": 5}, r"do not fit its config.json. .*needs shape"),
        ({"num_hidden_layers": 1}, r"do not fit its config.json. .*unexpected \['backbone.layers.1"),
        ({"model_type": ["mamba"]}, r"of model_type \['mamba'\], but Mamba reads only mamba"),
        ({"model_type": {}}, r"of model_type \{\}, but Mamba reads only mamba"),
        (
            {"intermediate_size": 99},
            "asks for intermediate_size=99, but Mamba computes with expand times hidden_size, 24",
        ),
        ({"expand": 3}, "asks for intermediate_size=24, but Mamba computes with expand times hidden_size, 36"),
        ({"hidden_size": "12"}, "hidden_size needs an integer of at least 1, but got '12'"),
    ],
)
def test_what_mamba_does_not_do_is_refused_with_the_field(copy, changes, message):
    with pytest.raises(ValueError, match=message):
        Mamba.from_pretrained(copy(**changes))


def test_a_gpt_says_that_it_reads_no_mamba():
    with pytest.raises(ValueError, match="of model_type 'mamba', but GPT reads only gpt2, llama, mistral"):
        tt.GPT.from_pretrained(GOLDEN / "mamba")


# ---- writing


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "bias": True}, {"conv_bias": False}], ids=str)
def test_what_was_saved_comes_back(changes, tmp_path):
    model = Mamba(MambaConfig.tiny(**changes), tt.Generator(0))
    model.save_pretrained(tmp_path / "first")
    again = Mamba.from_pretrained(tmp_path / "first")
    for name, tensor in model.state_dict().items():
        assert_close(again.state_dict()[name], tensor, 0, 0, what=name)
    assert (again.lm_head.weight is again.backbone.embeddings.weight) == model.config.tie_word_embeddings
    again.save_pretrained(tmp_path / "second")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "second" / file).read_bytes() == (tmp_path / "first" / file).read_bytes()


@every_model
def test_a_loaded_model_is_saved_under_the_names_it_came_with(name, tmp_path):
    Mamba.from_pretrained(GOLDEN / name).save_pretrained(tmp_path)
    came, saved = (safetensors.deserialize((f / "model.safetensors").read_bytes()) for f in (GOLDEN / name, tmp_path))
    assert {n: spec["shape"] for n, spec in saved} == {n: spec["shape"] for n, spec in came}
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (GOLDEN / name, tmp_path))
    for field in (theirs.keys() & ours.keys()) - {"bos_token_id", "eos_token_id", "dtype"}:
        assert ours[field] == theirs[field], field


def test_half_the_space_is_enough_for_a_mamba(tmp_path):
    model = Mamba(MambaConfig.tiny(), tt.Generator(0))
    for dtype in ("float32", "bfloat16"):
        model.save_pretrained(tmp_path / dtype, dtype)
    whole, half = ((tmp_path / dtype / "model.safetensors").stat().st_size for dtype in ("float32", "bfloat16"))
    assert abs(whole - half - 2 * model.num_parameters()) <= 16  # but for the numbers in its header
    again = Mamba.from_pretrained(tmp_path / "bfloat16").state_dict()
    for name, tensor in model.state_dict().items():
        assert_close(again[name], tt.round_to(tensor.numpy(), "bfloat16"), 0, 0, what=name)


def test_fields_can_be_changed_while_loading():
    assert Mamba.from_pretrained(GOLDEN / "mamba", pad_token_id=3).config.pad_token_id == 3
