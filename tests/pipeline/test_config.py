"""Module 20: a configuration says by name what cannot be, and comes back from a file as it was."""

import dataclasses
import json
import sys
import tomllib

import pytest

import tinytorch as tt
from tinytorch.mamba import MambaConfig
from tinytorch.pipeline import Config, DataConfig, FailureConfig, TrainingConfig

GPT = tt.GPTConfig(vocab_size=100, n_positions=4096, n_embd=32, n_layer=2, n_head=4)
OTHER = Config(
    MambaConfig(d_model=30, d_state=8, expand=3, n_layers=2, vocab_size=101, dt_rank=5, bias=True),
    TrainingConfig(
        batch_size=7,
        gradient_accumulation_steps=3,
        learning_rate=0.1 + 0.2,
        weight_decay=0,
        max_grad_norm=1e-300,
        warmup_steps=0,
        use_mixed_precision=True,
        gradient_checkpointing=True,
        precision="float16",
        min_lr_ratio=1,
        failures=FailureConfig(not_finite="reload", out_of_memory="raise", max_loss_rise=1e16),
    ),
    DataConfig(
        max_seq_length=9000,
        tokenizer_path='odd "name" \\ of\ta file \x7f \u2028 \N{GRINNING FACE} naïve',
        dataset_path="",
        num_workers=0,
        train_split=0.75,
        val_split=0.25,
        packing=True,
        max_tokens_per_batch=512,
    ),
    experiment_name="a.b-c_2",
    output_dir="some/where",
    log_level="DEBUG",
    seed=0,
)
DEFAULT = Config(GPT)


# ---- what the defaults are


def test_the_defaults_are_those_of_the_interface():
    assert (
        dataclasses.asdict(TrainingConfig()).items()
        >= {
            "batch_size": 32,
            "gradient_accumulation_steps": 4,
            "learning_rate": 1e-4,
            "weight_decay": 0.1,
            "max_grad_norm": 1.0,
            "num_epochs": 3,
            "warmup_steps": 1000,
            "save_steps": 1000,
            "eval_steps": 500,
            "use_mixed_precision": True,
            "gradient_checkpointing": False,
        }.items()
    )
    assert (
        dataclasses.asdict(DataConfig()).items()
        >= {
            "max_seq_length": 2048,
            "tokenizer_path": None,
            "dataset_path": None,
            "num_workers": 4,
            "preprocessing_batch_size": 1000,
            "train_split": 0.9,
            "val_split": 0.1,
            "shuffle_data": True,
        }.items()
    )
    assert (DEFAULT.seed, DEFAULT.training, DEFAULT.data) == (42, TrainingConfig(), DataConfig())


def test_numbers_are_of_low_precision_only_where_that_is_asked_for():
    assert TrainingConfig().compute_dtype == "bfloat16"
    assert TrainingConfig(precision="float16").compute_dtype == "float16"
    assert TrainingConfig(precision="float16", use_mixed_precision=False).compute_dtype == "float32"


# ---- what cannot be

POSITIVE = ("batch_size", "gradient_accumulation_steps", "num_epochs", "save_steps", "eval_steps", "max_checkpoints")
BAD_TRAINING = [
    *[(name, value) for name in POSITIVE for value in (0, -1, 2.0, True, "3", None)],
    *[("warmup_steps", value) for value in (-1, 1.5)],
    *[("learning_rate", value) for value in (0, -1e-4, float("nan"), float("inf"), "1e-4", None, True)],
    *[("weight_decay", value) for value in (-0.1, float("nan"), float("inf"))],
    *[("max_grad_norm", value) for value in (0, -1.0, float("nan"), None)],
    *[("min_lr_ratio", value) for value in (-0.1, 1.1, float("nan"))],
    ("use_mixed_precision", 1),
    ("gradient_checkpointing", "yes"),
    ("precision", "float8"),
    ("precision", "float32"),  # is not mixed
    ("failures", {"not_finite": "skip"}),
]
BAD_DATA = [
    *[(name, value) for name in ("max_seq_length", "preprocessing_batch_size") for value in (0, -5, 1.5, None)],
    *[("num_workers", value) for value in (-1, 0.5)],
    *[("train_split", value) for value in (0, 1.5, -0.1, float("nan"))],
    *[("val_split", value) for value in (1, -0.1)],
    ("tokenizer_path", 7),
    ("shuffle_data", None),
    ("packing", 1),
    ("max_tokens_per_batch", 0),
]
BAD_FAILURES = [
    ("not_finite", "clip"),
    ("exploding_gradient", "halve_batch"),
    ("divergence", "ignore"),
    ("out_of_memory", "reload"),
    ("corrupt_checkpoint", "skip"),
    ("max_gradient_norm", 0),
    ("max_gradient_norm", float("nan")),
    ("max_loss_rise", -1.0),
    ("max_recoveries", 0),
]
BAD_CONFIG = [
    ("model", None),
    ("model", {"kind": "gpt"}),
    ("training", None),
    ("experiment_name", ""),
    ("experiment_name", "a/b"),
    ("experiment_name", ".."),
    ("output_dir", " "),
    ("log_level", "LOUD"),
    ("seed", -1),
    ("seed", 1.0),
]


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        *((TrainingConfig, *bad) for bad in BAD_TRAINING),
        *((DataConfig, *bad) for bad in BAD_DATA),
        *((FailureConfig, *bad) for bad in BAD_FAILURES),
    ],
)
def test_a_bad_value_is_refused_by_field_and_value(cls, name, value):
    with pytest.raises(ValueError) as refused:
        cls(**{name: value})
    assert name in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize(("name", "value"), BAD_CONFIG)
def test_a_bad_value_of_the_whole_is_refused_by_field_and_value(name, value):
    with pytest.raises(ValueError) as refused:
        Config(**{"model": GPT, name: value})
    assert name in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 10**400), ("max_grad_norm", 10**5000), ("weight_decay", 10**309), ("num_epochs", 2**63)],
    ids=["a-float", "which-no-text-shows", "just-above-a-float", "an-integer"],
)
def test_an_integer_that_no_number_of_a_machine_holds_is_refused_by_its_field(name, value):
    with pytest.raises(ValueError, match=rf"{name} to be at most .* but got an integer of {value.bit_length()} bits"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("name", ["layer_norm_epsilon", "initializer_range"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_gpt_that_could_only_compute_nan_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"GPTConfig needs {name} of at least 0 and finite, but got {value}"):
        dataclasses.replace(GPT, **{name: value})


def test_splits_that_do_not_sum_to_1_are_refused():
    with pytest.raises(ValueError, match=r"train_split and val_split that sum to 1, but got 0\.8 and 0\.1"):
        DataConfig(train_split=0.8)


def test_a_step_of_too_many_rows_is_refused():
    assert Config(GPT, TrainingConfig(batch_size=256, gradient_accumulation_steps=4)).training.batch_size == 256
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps of at most 1024, but got 205 \* 5 = 1025"):
        Config(GPT, TrainingConfig(batch_size=205, gradient_accumulation_steps=5))


def test_a_width_that_expand_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"d_model divisible by expand, but got 32 and 3"):
        Config(MambaConfig.tiny(expand=3))


def test_rows_too_long_for_a_wide_model_are_refused():
    long = DataConfig(max_seq_length=8193)
    assert Config(MambaConfig(d_model=2048), data=long).data.max_seq_length == 8193
    with pytest.raises(ValueError, match=r"max_seq_length of at most 8192 .* but got 8193 and 2050"):
        Config(MambaConfig(d_model=2050), data=long)


def test_rows_longer_than_the_model_sees_are_refused():
    with pytest.raises(ValueError, match=r"n_positions, but got 4097 and 4096"):
        Config(GPT, data=DataConfig(max_seq_length=4097))


# ---- files


@pytest.mark.parametrize("suffix", [".json", ".toml", ".yaml", ".yml", ".TOML"])
@pytest.mark.parametrize("config", [DEFAULT, OTHER], ids=["default", "other"])
def test_a_configuration_comes_back_from_its_file(config, suffix, tmp_path):
    if suffix in (".yaml", ".yml"):
        pytest.importorskip("yaml")
    path = tmp_path / "new" / f"config{suffix}"
    config.save(path)
    assert Config.load(path) == config
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("config", [DEFAULT, OTHER], ids=["default", "other"])
def test_toml_and_json_say_the_same(config, tmp_path):
    config.save(tmp_path / "c.json")
    config.save(tmp_path / "c.toml")
    described = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    written = tomllib.loads((tmp_path / "c.toml").read_text(encoding="utf-8"))

    def without_none(table):
        return {n: without_none(v) if isinstance(v, dict) else v for n, v in table.items() if v is not None}

    assert written == without_none(described)
    assert described["model"]["kind"] == ("gpt" if config is DEFAULT else "mamba")


def test_what_a_file_leaves_out_is_as_by_default(tmp_path):
    (tmp_path / "c.toml").write_text(
        'seed = 1\n[model]\nkind = "mamba"\nd_model = 64\n[training.failures]\nnot_finite = "raise"\n'
    )
    expected = Config(
        MambaConfig(d_model=64), TrainingConfig(failures=FailureConfig(not_finite="raise")), DataConfig(), seed=1
    )
    assert Config.load(tmp_path / "c.toml") == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[model]\nkind = "gpt"\nvocab_size = 9\nn_layers = 2',
            r"model has no field 'n_layers'. Did you mean 'n_layer'",
        ),
        ('[model]\nkind = "mamba"\n[training]\nlearn_rate = 1', r"no field 'learn_rate'. Did you mean 'learning_rate'"),
        ('[model]\nkind = "mamba"\n[data]\nzzz = 1', r"data has no field 'zzz'. Its fields are max_seq_length, "),
        ('[model]\nkind = "mamba"\n[trainings]\n', r"Config has no field 'trainings'. Did you mean 'training'"),
        ('[model]\nkind = "mamba"\n[training.failures]\nnan = 1', r"training.failures has no field 'nan'"),
        ('[model]\nkind = "lstm"', r"model.kind to be one of gpt, mamba, but got 'lstm'"),
        ("seed = 3", r"model.kind to be one of gpt, mamba, but got None"),
        ('[model]\nkind = "gpt"', r"model needs vocab_size, but it is left out"),
        ('[model]\nkind = "gpt"\nvocab_size = 9\nbias = "no"', r"GPTConfig needs bias to be bool, but got 'no'"),
        ('[model]\nkind = "gpt"\nvocab_size = 0', r"vocab_size needs an integer of at least 1, but got 0"),
        ('model = "gpt"', r"model needs to be a table of fields, but got 'gpt'"),
        ("seed = ", r"not readable as TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_path(text, says, tmp_path):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=says) as refused:
        Config.load(tmp_path / "c.toml")
    assert "c.toml" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"model": {"kind": ["gpt"]}}', r"model.kind to be one of gpt, mamba, but got \['gpt'\]"),
        ('{"model": {"kind": {}}}', r"model.kind to be one of gpt, mamba, but got \{\}"),
        ('{"seed": 1, "seed": 2}', r"not readable as JSON: 'seed' comes twice"),
        ('{"model": {"kind": "gpt", "vocab_size": 9, "kind": "mamba"}}', r"'kind' comes twice"),
        ('{"model": ' * 100_000 + "1" + "}" * 100_000, r"tables are too deep in each other"),
        (
            '{"model": {"kind": "mamba"}, "training": {"learning_rate": 1' + "0" * 400 + "}}",
            r"learning_rate to be at most 1\.8e\+308, but got an integer of 1329 bits",
        ),
    ],
    ids=["list", "table", "twice", "twice-within", "deep", "long"],
)
def test_json_that_is_wrong_is_refused_with_its_path(text, says, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=says) as refused:
        Config.load(tmp_path / "c.json")
    assert "c.json" in str(refused.value)


@pytest.mark.parametrize(("name", "text"), [("c.json", "{"), ("c.json", "[]"), ("c.yaml", "a: [")])
def test_text_of_another_form_is_refused_with_its_path(name, text, tmp_path):
    if name == "c.yaml":
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}"):
        Config.load(tmp_path / name)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "c.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"c\.json is not readable as JSON"):
        Config.load(tmp_path / "c.json")


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.json, \.toml, \.yaml, \.yml, but got .*c\.ini"):
        DEFAULT.save(tmp_path / "c.ini")
    assert list(tmp_path.iterdir()) == []


def test_without_pyyaml_the_error_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text("seed: 1")
    monkeypatch.setitem(sys.modules, "yaml", None)
    for use in (DEFAULT.save, Config.load):
        with pytest.raises(ImportError, match=r"needs PyYAML \(pip install pyyaml\).*\.toml or \.json"):
            use(tmp_path / "c.yaml")
    assert (tmp_path / "c.yaml").read_text() == "seed: 1"


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    DEFAULT.save(tmp_path / "c.toml")
    unwritable = dataclasses.replace(DEFAULT, data=DataConfig(dataset_path="lone \ud800"))
    with pytest.raises(UnicodeEncodeError):
        unwritable.save(tmp_path / "c.toml")
    assert Config.load(tmp_path / "c.toml") == DEFAULT
    assert [file.name for file in tmp_path.iterdir()] == ["c.toml"]


def test_paths_may_be_paths(tmp_path):
    config = dataclasses.replace(DEFAULT, output_dir=tmp_path, data=DataConfig(dataset_path=tmp_path / "x.txt"))
    assert config.folder == tmp_path / "experiment"
    assert config.data.dataset_path == str(tmp_path / "x.txt")
