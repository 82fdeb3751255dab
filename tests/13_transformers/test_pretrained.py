"""Folders of Hugging Face's transformers load and compute what they computed there; what GPT cannot do is refused."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from golden_folders import GOLDEN, copied, rewrite

import tinytorch as tt
from tinytorch.testing import assert_close

NAMES = ["gpt2", "gpt2_untied", "llama", "llama_grouped", "mistral"]
WHOLE = ["gpt2", "gpt2_untied", "llama", "mistral"]  # in one file
every_model = pytest.mark.parametrize("name", NAMES)


def expected(name):
    with np.load(GOLDEN / name / "expected.npz") as file:
        return tt.tensor(file["ids"]), file["logits"]


def assert_golden(model, name, atol=1e-5):
    ids, logits = expected(name)
    assert_close(model(ids), logits, 0, atol)


@pytest.fixture
def copy(tmp_path):
    """A function that copies a golden folder, changes fields of its config.json (None removes one), and returns it."""

    def make(name, **changes):
        return copied(name, tmp_path / "copy", **changes)

    return make


def small(**changes):
    shape = {"vocab_size": 29, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    return tt.GPT(tt.GPTConfig(**{**shape, **changes}), tt.Generator(0))


LLAMA = {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False}
SHAPES = {
    "gpt2": {},
    "gpt2_tied": {"tie_word_embeddings": True, "n_inner": 10, "layer_norm_epsilon": 1e-3, "dropout": 0.2},
    "gpt2_plain_heads_by_name": {"n_kv_head": 4, "head_dim": 4},
    "llama": LLAMA,
    "llama_grouped": {**LLAMA, "n_kv_head": 2, "head_dim": 6, "rope_theta": 50.0, "tie_word_embeddings": True},
    "mistral": {**LLAMA, "sliding_window": 3, "n_kv_head": 1, "n_inner": 20, "layer_norm_epsilon": 1e-6},
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


# ---- reading


@pytest.mark.exercise("ex-13-7", points=4)
@every_model
def test_logits_are_those_of_transformers(name):
    model = tt.GPT.from_pretrained(GOLDEN / name)
    assert_golden(model, name)
    assert {parameter.dtype for parameter in model.parameters()} == {tt.float32}
    assert not model.training


def test_the_configurations_are_read_whole():
    untied, grouped, mistral = (
        tt.GPT.from_pretrained(GOLDEN / n).config for n in ("gpt2_untied", "llama_grouped", "mistral")
    )
    assert untied == tt.GPTConfig(29, 12, 12, 2, 2, n_inner=10, dropout=0.1, layer_norm_epsilon=1e-2)
    assert grouped == tt.GPTConfig.llama(
        vocab_size=29,
        n_positions=2048,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_inner=20,
        layer_norm_epsilon=0.01,
        tie_word_embeddings=True,
        n_kv_head=2,
        head_dim=6,
        rope_theta=50.0,
    )
    assert (mistral.sliding_window, mistral.n_kv_head, mistral.norm) == (3, 1, "rms_norm")


@every_model
@tt.no_grad()
def test_a_loaded_model_goes_on_from_a_cache(name):
    model = tt.GPT.from_pretrained(GOLDEN / name)
    ids, logits = expected(name)
    cache = model.new_cache()
    pieces = [model(ids[:, start:end], cache=cache) for start, end in [(0, 4), (4, 5), (5, 11)]]
    assert_close(tt.cat(pieces, dim=1), logits, 0, 1e-5)


@pytest.mark.parametrize("name", WHOLE)
def test_files_without_the_outer_prefix_are_read(copy, name):
    prefix = "transformer." if name.startswith("gpt2") else "model."
    folder = rewrite_raw(copy(name), lambda name: name.removeprefix(prefix))
    assert_golden(tt.GPT.from_pretrained(folder), name)


def rewrite_raw(folder, rename):
    """Rename tensors of any type of numbers."""
    path = folder / "model.safetensors"
    specs = {rename(name): tensor for name, tensor in safetensors.deserialize(path.read_bytes())}
    header, body = {}, b""
    for name, tensor in specs.items():
        offsets = [len(body), len(body) + len(tensor["data"])]
        header[name] = {"dtype": tensor["dtype"], "shape": tensor["shape"], "data_offsets": offsets}
        body += bytes(tensor["data"])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return folder


@pytest.mark.parametrize(
    ("name", "buffers"),
    [
        ("gpt2", ["transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"]),
        ("gpt2", ["h.0.attn.bias", "h.1.attn.masked_bias"]),
        ("mistral", ["model.layers.0.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"]),
    ],
)
def test_masks_and_tables_in_old_files_are_no_weights(copy, name, buffers):
    masks = {buffer: np.tri(4, dtype=np.uint8) for buffer in buffers}
    assert_golden(tt.GPT.from_pretrained(rewrite(copy(name), lambda tensors: tensors | masks)), name)


def test_a_tied_head_may_be_in_the_file_if_it_is_the_embedding(copy):
    folder = copy("gpt2")
    rewrite(folder, lambda t: t | {"lm_head.weight": t["transformer.wte.weight"].copy()})
    model = tt.GPT.from_pretrained(folder)
    assert model.lm_head.weight is model.wte.weight
    assert_golden(model, "gpt2")
    rewrite(folder, lambda t: t | {"lm_head.weight": t["transformer.wte.weight"] + 1})
    with pytest.raises(ValueError, match=r"output head in .* differs from the token embedding.*tie_word_embeddings=F"):
        tt.GPT.from_pretrained(folder)
    untied = tt.GPT.from_pretrained(folder, tie_word_embeddings=False)
    assert_close(untied.lm_head.weight, untied.wte.weight + 1, 1e-6)


def test_fields_can_be_changed_while_loading():
    model = tt.GPT.from_pretrained(GOLDEN / "gpt2", dropout=0.0, n_positions=12)
    assert model.config.dropout == 0
    assert_golden(model.train(), "gpt2")


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": None, "rope_theta": 10000.0},  # as transformers 4 writes it
        {"rope_parameters": None, "rope_theta": 10000, "rope_scaling": {"type": "default"}},
        {"rope_parameters": None},
        {"num_key_value_heads": None, "head_dim": None, "initializer_range": None, "tie_word_embeddings": None},
        {"pretraining_tp": 2, "hidden_act": "swish", "unknown": 1},
    ],
    ids=str,
)
def test_what_changes_nothing_is_no_reason_to_refuse(copy, changes):
    assert_golden(tt.GPT.from_pretrained(copy("llama", **changes)), "llama")


def test_the_base_of_the_angles_is_found_where_earlier_versions_keep_it(copy):
    folder = copy("llama_grouped", rope_parameters=None, rope_theta=50.0)
    assert_golden(tt.GPT.from_pretrained(folder), "llama_grouped")


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", {"model_type": "bert"}, "of model_type 'bert', but GPT reads only gpt2, llama, mistral"),
        ("gpt2", {"model_type": None}, "of model_type None, but GPT reads only"),
        ("gpt2", {"model_type": ["gpt2"]}, r"of model_type \['gpt2'\], but GPT reads only"),
        ("gpt2", {"activation_function": "relu"}, "asks for activation_function='relu', but GPT .* 'gelu_new'"),
        ("gpt2", {"activation_function": "gelu"}, "asks for activation_function='gelu'"),
        ("gpt2", {"scale_attn_weights": False}, "asks for scale_attn_weights=False"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "asks for scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", {"add_cross_attention": True}, "asks for add_cross_attention=True"),
        ("gpt2", {"attn_pdrop": 0.3}, r"asks for \{.*'attn_pdrop': 0.3\}, but GPT has one dropout for all"),
        ("gpt2", {"n_layer": None}, "needs n_layer, but has only"),
        ("gpt2", {"n_head": 5}, "n_embd divisible by n_head, but got 12 and 5"),
        ("llama", {"hidden_size": None, "vocab_size": None}, "needs vocab_size, hidden_size, but has only"),
        ("llama", {"hidden_act": "gelu"}, "asks for hidden_act='gelu'"),
        ("llama", {"attention_bias": True}, "asks for attention_bias=True, but GPT computes with False only"),
        ("llama", {"mlp_bias": True}, "asks for mlp_bias=True"),
        ("llama", {"num_local_experts": 8}, "asks for num_local_experts=8"),
        ("llama", {"quantization_config": {"bits": 4}}, "asks for quantization_config="),
        ("llama", {"auto_map": {"AutoModel": "mine.py"}}, "asks for auto_map="),
        ("llama", {"partial_rotary_factor": 0.5}, "asks for partial_rotary_factor=0.5"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "asks for rope_scaling=.*unscaled angles"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "asks for rope_scaling="),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "asks for rope_parameters="),
        ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "turns all channels"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "asks for rope_parameters="),
        ("llama", {"rope_scaling": "linear"}, "needs rope_scaling to be an object, but it is 'linear'"),
        ("llama", {"num_key_value_heads": 3}, "n_head divisible by n_kv_head, but got 4 and 3"),
        ("mistral", {"hidden_act": "relu"}, "asks for hidden_act='relu'"),
    ],
)
def test_what_gpt_does_not_do_is_refused_with_the_field(copy, name, changes, message):
    with pytest.raises(ValueError, match=message):
        tt.GPT.from_pretrained(copy(name, **changes))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", {"n_embd": 24}, r"do not fit its config.json. wte.weight needs shape \(29, 24\), but .* \(29, 12\)"),
        ("gpt2", {"n_layer": 3}, r"do not fit its config.json. .*missing \['h.2.ln_1.weight'"),
        ("gpt2", {"n_layer": 1}, r"do not fit its config.json. .*unexpected \['h.1.attn.q_proj.bias'"),
        ("llama", {"num_key_value_heads": 2}, r"do not fit its config.json. h.0.attn.k_proj.weight needs shape"),
        ("gpt2", {"tie_word_embeddings": False}, r"do not fit its config.json. .*missing \['lm_head.weight'\]"),
    ],
)
def test_weights_that_do_not_fit_their_configuration_are_named(copy, name, changes, message):
    with pytest.raises(ValueError, match=message):
        tt.GPT.from_pretrained(copy(name, **changes))


def test_stacked_projections_of_unequal_size_are_refused(copy):
    folder = copy("gpt2")
    rewrite(folder, lambda t: t | {"transformer.h.0.attn.c_attn.bias": np.zeros(37, np.float32)})
    with pytest.raises(ValueError, match=r"h.0.attn.c_attn.bias needs queries, keys and values of one size.* 37"):
        tt.GPT.from_pretrained(folder)


def test_weights_that_are_no_floats_are_refused(copy):
    folder = rewrite(copy("gpt2"), lambda t: t | {"transformer.wte.weight": np.zeros((29, 12), np.int8)})
    with pytest.raises(ValueError, match=r"needs numbers of type .*BF16, but transformer.wte.weight is of type I8"):
        tt.GPT.from_pretrained(folder)


def test_weights_too_large_for_float32_are_refused(copy):
    folder = rewrite(copy("gpt2"), lambda t: t | {"transformer.ln_f.bias": np.full(12, -1e300)})
    with pytest.raises(ValueError, match=r"ln_f.bias holds numbers up to 1e\+300, which are too large for float32"):
        tt.GPT.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "tensor", "other"),
    [
        ("gpt2", "transformer.wte.weight", "wte.weight"),
        ("mistral", "model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
    ],
)
def test_one_tensor_under_two_names_is_refused(copy, name, tensor, other):
    folder = rewrite(copy(name), lambda t: t | {other: t[tensor] * 2})
    with pytest.raises(ValueError, match=rf"hold (.* and )?{other}.*, which are two names of one tensor"):
        tt.GPT.from_pretrained(folder)


def test_missing_files_are_named_with_the_remedy(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"needs a folder on this machine with config.json.*yet to be downl"):
        tt.GPT.from_pretrained(tmp_path / "gpt2")
    folder = copy("gpt2")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"model.safetensors or model.safetensors.index.json .*pickled"):
        tt.GPT.from_pretrained(folder)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_torn_file_is_refused(copy, cut):
    path = copy("gpt2") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged, or no .safetensors file"):
        tt.GPT.from_pretrained(path.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "to be a JSON file"),
        ("[" * 100_000, "to be a JSON file, but it is not: maximum recursion depth"),
        ("[1]", "a JSON object, but holds a list"),
    ],
    ids=["torn", "deep", "list"],
)
def test_a_config_that_is_no_json_object_is_refused(copy, content, message):
    folder = copy("gpt2")
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        tt.GPT.from_pretrained(folder)


# ---- several files


def test_a_missing_part_is_named(copy):
    folder = copy("llama_grouped")
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"index.json needs the file 'model-00002-of-00003.safetensors'"):
        tt.GPT.from_pretrained(folder)


@pytest.mark.parametrize("file", ["../copy/model-00001-of-00003.safetensors", "/etc/hostname", ".."])
def test_an_index_leads_nowhere_outside_its_folder(copy, file):
    folder = copy("llama_grouped")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": file}}))
    with pytest.raises(FileNotFoundError, match=r"index.json needs the file .* does not have it"):
        tt.GPT.from_pretrained(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": ["a"]}, {"weight_map": {"a": 1}}])
def test_an_index_without_a_map_is_refused(copy, index):
    folder = copy("llama_grouped")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="needs a weight_map from the names of tensors to the names of files"):
        tt.GPT.from_pretrained(folder)


def test_one_whole_file_goes_before_an_index(copy):
    folder = copy("gpt2")
    (folder / "model.safetensors.index.json").write_text("{}")  # of an older save
    assert_golden(tt.GPT.from_pretrained(folder), "gpt2")


# ---- writing


@every_shape
def test_what_was_saved_comes_back(shape, tmp_path):
    model = small(**shape)
    model.save_pretrained(tmp_path / "new" / "folder")
    again = tt.GPT.from_pretrained(tmp_path / "new" / "folder")
    for name, tensor in model.state_dict().items():
        assert_close(again.state_dict()[name], tensor, 0, 0, what=name)
    ids = expected("gpt2")[0]
    assert_close(again(ids), model.eval()(ids), 0, 0)
    assert (again.lm_head.weight is again.wte.weight) == model.config.tie_word_embeddings
    again.save_pretrained(tmp_path / "second")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "second" / file).read_bytes() == (tmp_path / "new" / "folder" / file).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_model_is_saved_under_the_names_it_came_with(name, tmp_path):
    tt.GPT.from_pretrained(GOLDEN / name).save_pretrained(tmp_path)
    came = {}
    for path in (GOLDEN / name).glob("*.safetensors"):
        came |= {tensor: spec["shape"] for tensor, spec in safetensors.deserialize(path.read_bytes())}
    saved = safetensors.deserialize((tmp_path / "model.safetensors").read_bytes())
    assert {tensor: spec["shape"] for tensor, spec in saved} == came
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (GOLDEN / name, tmp_path))
    special = {"bos_token_id", "eos_token_id", "dtype"}
    for field in (theirs.keys() & ours.keys()) - special:
        assert ours[field] == theirs[field] or theirs[field] is None, field


def test_the_file_says_that_it_is_for_pytorch(tmp_path):
    """transformers refuses files that do not."""
    small().save_pretrained(tmp_path)
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


@every_shape
def test_bfloat16_takes_half_the_space_and_comes_back_rounded(shape, tmp_path):
    model = small(**shape)
    for dtype in ("float32", "bfloat16"):
        model.save_pretrained(tmp_path / dtype, dtype=dtype)
        assert json.loads((tmp_path / dtype / "config.json").read_text())["dtype"] == dtype
    whole, half = ((tmp_path / dtype / "model.safetensors").stat().st_size for dtype in ("float32", "bfloat16"))
    assert abs(whole - half - 2 * model.num_parameters()) <= 16  # but for the numbers in its header
    stored = safetensors.deserialize((tmp_path / "bfloat16" / "model.safetensors").read_bytes())
    assert {tensor["dtype"] for _, tensor in stored} == {"BF16"}
    again = tt.GPT.from_pretrained(tmp_path / "bfloat16")
    for name, tensor in model.state_dict().items():
        assert_close(again.state_dict()[name], tt.round_to(tensor.numpy(), "bfloat16"), 0, 0, what=name)


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_a_model_of_float64_is_saved_as_it_is_or_as_asked(tmp_path, dtype):
    model = small().to(tt.float64)
    model.save_pretrained(tmp_path, dtype)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == (dtype or "float64")
    stored = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert {str(array.dtype) for array in stored.values()} == {dtype or "float64"}
    again = tt.GPT.from_pretrained(tmp_path)
    assert_close(again.wte.weight, model.wte.weight.data.astype(np.float32), 0, 0)


@pytest.mark.parametrize("dtype", ["float16", "float64", np.float32])
def test_another_type_of_numbers_is_refused_before_anything_is_written(dtype, tmp_path):
    with pytest.raises(ValueError, match="save_pretrained needs dtype 'float32' or 'bfloat16', but got"):
        small().save_pretrained(tmp_path / "folder", dtype)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(("dtype", "number"), [("bfloat16", 3.4e38), ("float32", 1e300)])
def test_numbers_too_large_for_their_type_are_refused_before_anything_is_written(dtype, number, tmp_path):
    model = small().to(tt.float64 if dtype == "float32" else tt.float32)
    model.wte.weight.data[3, 4] = -number
    with pytest.raises(ValueError, match=rf"wte.weight holds numbers up to .*, which are too large for {dtype}"):
        model.save_pretrained(tmp_path / "folder", dtype)
    assert not (tmp_path / "folder").exists()
    model.wte.weight.data[3, 4] = -np.inf  # is no result of rounding
    model.save_pretrained(tmp_path, dtype)
    assert tt.GPT.from_pretrained(tmp_path).wte.weight[3, 4].item() == -np.inf


def test_a_tied_head_is_saved_once(tmp_path):
    small(tie_word_embeddings=True).save_pretrained(tmp_path)
    assert "lm_head.weight" not in safetensors.numpy.load((tmp_path / "model.safetensors").read_bytes())


@pytest.mark.parametrize(
    "shape",
    [
        {"norm": "rms_norm"},
        {"mlp": "swiglu"},
        {"positions": "rotary"},
        {"bias": False},
        {"n_kv_head": 2},
        {"head_dim": 6},
        {"sliding_window": 4},
        {**LLAMA, "bias": True},
        {**LLAMA, "positions": "learned"},
        {**LLAMA, "mlp": "gelu"},
    ],
    ids=str,
)
def test_a_shape_that_is_neither_is_refused_before_anything_is_written(shape, tmp_path):
    with pytest.raises(
        ValueError, match=r"save_pretrained writes models with the parts of GPT-2.* or of Llama.* but th"
    ):
        small(**shape).save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_other_files_of_the_folder_stay(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    for _ in range(2):
        small().save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"tokenizer.json", "config.json", "model.safetensors"}


@pytest.mark.parametrize("at", ["serialize_file", "fsync"])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(at, tmp_path, monkeypatch):
    old = small(vocab_size=31)
    old.save_pretrained(tmp_path)

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors if at == "serialize_file" else os, at, full)
        with pytest.raises(OSError, match="No space left"):
            small().save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert_close(tt.GPT.from_pretrained(tmp_path).wte.weight, old.wte.weight, 0, 0)


@pytest.mark.parametrize("renamed", [0, 1])
def test_an_interruption_between_two_files_leaves_nothing_that_loads_as_a_mixture(renamed, tmp_path, monkeypatch):
    small(**LLAMA, rope_theta=100.0).save_pretrained(tmp_path)
    replace, calls = os.replace, []

    def interrupted(*paths):
        if len(calls) == renamed:
            raise KeyboardInterrupt
        calls.append(replace(*paths))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            small(**LLAMA, rope_theta=200.0).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config.json is missing. Was saving interrupted"):
        tt.GPT.from_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors"}
    small(**LLAMA).save_pretrained(tmp_path)
    assert tt.GPT.from_pretrained(tmp_path).config.rope_theta == 10000.0


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_where_the_configuration_stays_an_interruption_leaves_the_old_weights_or_the_new(
    renamed, tmp_path, monkeypatch
):
    old, new = small(), small()
    new.wte.weight.data[...] += 1
    old.save_pretrained(tmp_path)
    replace, calls = os.replace, []

    def interrupted(*paths):
        if len(calls) == renamed:
            raise KeyboardInterrupt
        calls.append(replace(*paths))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        if renamed < 2:
            with pytest.raises(KeyboardInterrupt):
                new.save_pretrained(tmp_path)
        else:
            new.save_pretrained(tmp_path)
    found = tt.GPT.from_pretrained(tmp_path)
    assert_close(found.wte.weight, (new if renamed else old).wte.weight, 0, 0)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


KILLED = """
import os, signal, sys
import tinytorch as tt

os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
tt.GPT.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a signal that cannot be caught")
def test_what_a_killed_process_left_goes_with_the_next_save(tmp_path):
    small().save_pretrained(tmp_path)
    (tmp_path / ".tmp-of-somebody").write_text("stays")
    mine = {file.name for file in tmp_path.iterdir()}
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert {file.name for file in tmp_path.iterdir()} > mine
    tt.GPT.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == mine
