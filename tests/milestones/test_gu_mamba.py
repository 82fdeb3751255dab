"""The gate of the milestone of 2023: short runs of both tasks, and one whole run of the quicker."""

import contextlib
import io
import math
import signal
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from running import MILESTONES, is_png, load_script, read_metrics, whole_run

import tinytorch as tt
from tinytorch_course import corpora, milestone

SCRIPT = MILESTONES / "07_2023_mamba" / "gu_mamba.py"
OF_A_MODEL = {
    "loss_initial", "loss_final", "loss_decrease", "steps", "seconds", "steps_per_second", "tokens_per_second",
    "step_memory_mb", "parameters",
}  # fmt: skip
OF_A_WRITER = OF_A_MODEL | {
    "bits_per_byte", "token_ms_first", "token_ms_last", "pace_kept", "cache_kb_first", "cache_kb_last", "memory_kept",
}  # fmt: skip
OF_A_CORPUS = {"bits_per_byte_5gram", "corpus_texts", "corpus_bytes", "corpus_held_out_bytes", "corpus_sha256"}

script = load_script(SCRIPT)
copying, writing = script.selective_copying, script.writing_costs


def run_here(out, *arguments):
    """A run of the script in this process, where a test can make it smaller. Returns its exit status."""
    options = milestone.read_options(
        script.__doc__, script.default_steps, out, list(map(str, arguments)), script.CHOICES
    )
    tt.manual_seed(options.seed)
    return script.main(options)


# ---- selective copying: the task


def in_order(ids):
    """The symbols of each row, in their order: what is to be answered."""
    return np.array([[token for token in row if token >= 2] for row in ids.tolist()])


class Knowing(tt.Module):
    """In the place of a model: it knows the answers to all but the last of the questions."""

    def __init__(self):
        self.weight = tt.Parameter(tt.zeros(1))

    def forward(self, ids):
        logits = np.zeros((*ids.shape, 2 + copying.SYMBOLS), np.float32)
        for k in range(copying.KEPT - 1):
            np.put_along_axis(logits[:, copying.PLACES + k], in_order(ids.numpy())[:, k, None], 100, axis=1)
        return tt.tensor(logits) + 0 * self.weight


def batch_of(count, seed=0):
    samples = copying.examples(count, np.random.default_rng(seed))
    return {name: tt.tensor(np.stack([sample[name] for sample in samples])) for name in ("input_ids", "labels")}


def test_a_sample_is_symbols_among_blanks_and_as_many_questions():
    ids, labels = (part.numpy() for part in batch_of(200).values())
    places, asked = ids[:, : copying.PLACES], ids[:, copying.PLACES :]
    assert (asked == copying.ASK).all() and asked.shape[1] == copying.KEPT + 1  # of the last nothing is predicted
    assert ((places >= 2).sum(axis=1) == copying.KEPT).all() and not (places == copying.ASK).any()
    assert (labels[:, : copying.PLACES + 1] == -100).all()
    assert_array_equal(labels[:, copying.PLACES + 1 :], in_order(ids))
    assert set(places[places >= 2].tolist()) == set(range(2, 2 + copying.SYMBOLS))
    assert (places >= 2).any(axis=0).all()  # everywhere, in one sample or another


def test_the_loss_counts_the_questions_and_knowing_all_but_one_answer_costs_one_guess():
    loss, count = tt.language_model_loss(Knowing(), batch_of(50))
    assert count == 50 * copying.KEPT
    assert loss.item() == pytest.approx(math.log(2 + copying.SYMBOLS) / copying.KEPT)


def test_accuracy_counts_the_answers_at_their_places():
    batches = [batch_of(40, seed) for seed in range(5)]
    last = np.concatenate([batch["labels"].numpy()[:, -1] for batch in batches])
    guessed = np.mean(last == 0)  # equal logits: the first token, which is no symbol
    assert copying.accuracy(Knowing(), batches) == pytest.approx((copying.KEPT - 1 + guessed) / copying.KEPT)


# ---- selective copying: the model that cannot select


@pytest.fixture
def fixed():
    config = tt.MambaConfig(8, d_state=4, n_layers=1, vocab_size=10)
    return copying.FixedMixer(config, tt.Generator(0))


def test_a_fixed_mixer_treats_all_tokens_alike(fixed):
    delta, B, C = (each.detach() for each in fixed._select(tt.randn(2, 3, 16, generator=tt.Generator(1))))
    assert (delta.shape, B.shape, C.shape) == ((2, 3, 16), (2, 3, 4), (2, 3, 4))
    for each in (delta, B, C):
        assert_array_equal(each.numpy(), np.broadcast_to(each.numpy()[:1, :1], each.shape))
    assert (delta.numpy() > 0).all() and np.ptp(delta.numpy()) > 0  # channels differ


def test_a_fixed_mixer_is_a_convolution_before_its_gate(fixed):
    """A long convolution with the kernel C exp(delta A)^k delta B, which is what a state-space model of 2021 was."""
    u = np.random.default_rng(0).normal(size=(1, 9, 16))
    fixed, inputs = fixed.to(dtype=tt.float64), tt.tensor(u)
    with tt.no_grad():
        A, D = -fixed.A_log.exp().numpy(), fixed.D.detach().numpy()
        delta, B, C = (each.numpy() for each in fixed._select(inputs))
        y = tt.selective_scan(inputs, *(tt.tensor(each) for each in (delta, A, B, C)), fixed.D)
    expected = D * u[0]
    for t in range(9):
        for k in range(t + 1):
            kernel = (C[0, 0] * np.exp(k * delta[0, 0][:, None] * A) * delta[0, 0][:, None] * B[0, 0]).sum(axis=1)
            expected[t] += kernel * u[0, t - k]
    assert_allclose(y.numpy()[0], expected, rtol=1e-10)


def test_both_models_are_the_same_but_for_what_selects():
    selective, fixed = copying.build_models(3).values()
    ours, theirs = (model.state_dict() for model in (selective, fixed))
    only = {name.rpartition("mixer.")[2] for name in theirs.keys() ^ ours.keys()}
    assert only == {"x_proj.weight", "dt_proj.weight", "dt_proj.bias", "delta", "B", "C"}
    for name in theirs.keys() & ours.keys():
        assert_array_equal(theirs[name].numpy(), ours[name].numpy())


def test_every_parameter_of_both_learns():
    for model in copying.build_models(0).values():
        tt.language_model_loss(model, batch_of(4))[0].backward()
        assert all(np.abs(parameter.grad.numpy()).max() > 0 for parameter in model.parameters())


# ---- selective copying: the run


copied = whole_run(SCRIPT, "--task", "copying")


@pytest.mark.slow
def test_the_selective_model_copies_and_the_fixed_one_does_not(copied):
    process, out = copied
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ""
    found = read_metrics(out)
    assert found.keys() == {
        *OF_A_MODEL, *(f"fixed_{name}" for name in OF_A_MODEL), "accuracy", "fixed_accuracy", "fixed_lost",
        "peak_memory_mb", "seed",
    }  # fmt: skip
    assert found["accuracy"] > 0.95 and 0.3 < found["fixed_accuracy"] < 0.6
    assert found["parameters"] > found["fixed_parameters"] > 0.8 * found["parameters"]
    assert all(is_png(out / name) for name in ("accuracy.png", "loss.png"))
    assert "100" in process.stdout and "selective       fixed" in process.stdout


@pytest.fixture
def small_copying(monkeypatch):
    monkeypatch.setattr(copying, "HELD_OUT", 40)
    monkeypatch.setitem(script.TRAINING["copying"], "batch_size", 4)
    monkeypatch.setitem(script.TRAINING["copying"], "eval_steps", 2)


def test_a_short_run_says_that_it_was_short(tmp_path, small_copying, capsys):
    assert run_here(tmp_path, "--task", "copying", "--steps", 6) == 1
    said = capsys.readouterr().out
    assert "Not reached: the gate is that 95 % of the symbols come back with selection" in said
    assert "This run was 6 steps; the milestone is made for 1000." in said
    steps = [line.split()[0] for line in said.splitlines() if "%" in line and line.strip()[0].isdigit()]
    assert steps == ["0", "2", "4", "6"]
    found = read_metrics(tmp_path)
    assert found["fixed_lost"] == 1 - found["fixed_accuracy"]
    assert found["loss_initial"] == pytest.approx(math.log(2 + copying.SYMBOLS), rel=0.2)


def test_ctrl_c_saves_and_resume_ends_as_if_nothing_had_happened(tmp_path, small_copying, monkeypatch):
    arguments = ["--task", "copying", "--steps", 6, "--seed", 2]
    run_here(tmp_path / "whole", *arguments)
    out, evaluate = tmp_path / "stopped", copying.CopyingTrainer.evaluate

    def press(trainer, loader):
        if trainer.step == 4 and trainer.config.experiment_name == "fixed":
            signal.raise_signal(signal.SIGINT)
        return evaluate(trainer, loader)

    with monkeypatch.context() as patch:
        patch.setattr(copying.CopyingTrainer, "evaluate", press)
        with pytest.raises(KeyboardInterrupt, match="Stopped by Ctrl-C after step 4 of 6"):
            run_here(out, *arguments)
    assert not (out / "metrics.json").exists()
    run_here(out, "--resume")
    whole, resumed = (read_metrics(folder) for folder in (tmp_path / "whole", out))
    for name in ("loss_initial", "loss_final", "accuracy", "fixed_loss_final", "fixed_accuracy"):
        assert resumed[name] == whole[name]
    with pytest.raises(SystemExit):
        run_here(out, "--resume", "--task", "language")


# ---- what writing costs


def test_both_models_have_the_same_size_within_two_percent():
    mamba, gpt = (model.num_parameters() for model in script.build_models(1258, 0).values())
    assert abs(mamba / gpt - 1) < 0.02


def test_mamba_remembers_as_much_after_each_token_and_gpt_a_token_more(monkeypatch):
    monkeypatch.setattr(writing, "TOKENS", 128)
    models = script.build_models(20, 0)
    mamba, gpt = (writing.measure(model).remembered for model in models.values())
    config = models["Mamba"].config
    of_a_layer = 4 * config.d_inner * (config.d_conv - 1 + config.d_state)
    assert_array_equal(mamba, np.full(128, config.n_layers * of_a_layer))
    config = models["GPT"].config
    assert_array_equal(gpt, np.arange(1, 129) * config.n_layer * 2 * 4 * config.n_embd)


def test_the_pace_is_that_of_the_fastest_of_the_first_and_of_the_last_tokens():
    seconds, beside = np.full(320, 0.5), np.linspace(0.001, 0.021, 20)
    seconds[-20:] = 2 * beside
    found = writing.describe(writing.Costs(seconds, np.linspace(1000, 4000, 320), beside))
    assert found["pace_kept"] == pytest.approx(0.5)
    assert (found["token_ms_first"], found["token_ms_last"]) == (pytest.approx(3), pytest.approx(6))
    assert (found["cache_kb_first"], found["cache_kb_last"], found["memory_kept"]) == (1, 4, 0.25)


def test_the_first_tokens_are_written_again_beside_the_last(monkeypatch):
    monkeypatch.setattr(writing, "TOKENS", 32)
    lengths = []

    def write(model, token, cache):
        lengths.append(cache[0].length)
        return step(model, token, cache)

    step = writing.write
    monkeypatch.setattr(writing, "write", write)
    costs = writing.measure(script.build_models(20, 0)["Mamba"])
    assert [len(each) for each in costs] == [32, 32, 2]
    assert lengths == [*range(30), 0, 30, 1, 31]


def test_the_table_has_a_line_for_each_doubling(monkeypatch, capsys):
    monkeypatch.setattr(writing, "TOKENS", 256)
    seconds = np.repeat([0.001, 0.002], 128)
    remembered = {"Mamba": np.full(256, 58e3), "GPT": np.arange(1, 257) * 1e3}
    writing.show(
        {name: writing.Costs(seconds * (1 + (name == "GPT")), remembered[name], seconds) for name in remembered}
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("after")]
    assert [line[1] for line in lines] == ["4", "8", "16", "32", "64", "128", "256"]
    assert lines[-1][2:] == ["2.00", "ms", "58", "KB", "4.00", "ms", "256", "KB"]


# ---- language


def make_small(patch):
    """Make what follows a matter of seconds: a small corpus, short rows, few tokens to write."""
    patch.setattr(writing, "TOKENS", 128)
    patch.setattr(corpora, "MAX_BYTES", 60_000)
    patch.setattr(corpora, "MERGES", 50)
    patch.setattr(script, "WINDOW", 24)
    patch.setitem(script.LENGTH, "language", 25)
    patch.setitem(script.TRAINING["stdlib"], "batch_size", 4)
    patch.setitem(script.TRAINING["stdlib"], "eval_steps", 4)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A short run: its folder, its status, and what it said."""
    out = tmp_path_factory.mktemp("gu_mamba")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        make_small(patch)
        status = run_here(out, "--steps", 6, "--seed", 5)
    return out, status, said.getvalue()


def test_a_short_run_compares_both_models_on_the_same_text(short, monkeypatch):
    out, status, said = short
    found = read_metrics(out)
    assert status == 1  # too short for its gates
    assert found.keys() == {
        *OF_A_WRITER, *(f"gpt_{name}" for name in OF_A_WRITER), *OF_A_CORPUS, "bits_saved", "transformer_ratio",
        "peak_memory_mb", "seed",
    }  # fmt: skip
    make_small(monkeypatch)
    corpus = corpora.read_stdlib()
    assert found["corpus_sha256"] == corpus.sha256() and corpus.describe() in said
    for prefix in ("", "gpt_"):
        assert 0 < found[f"{prefix}loss_final"] < found[f"{prefix}loss_initial"] == pytest.approx(5.73, rel=0.02)
        assert 2 < found[f"{prefix}bits_per_byte"] < 8
        assert found[f"{prefix}step_memory_mb"] > 0.5
    assert found["bits_saved"] == found["bits_per_byte_5gram"] - found["bits_per_byte"] < 0
    assert found["transformer_ratio"] == found["gpt_bits_per_byte"] / found["bits_per_byte"]
    assert found["memory_kept"] == 1 and found["gpt_memory_kept"] == pytest.approx(1 / 128)
    assert "Not reached: the gate is that Mamba needs no more bits per byte than the 5-gram" in said
    for prompt in script.PROMPTS["stdlib"]:
        assert said.count(f"# Mamba\n{prompt}|") == said.count(f"# GPT\n{prompt}|") == 1
    assert all(is_png(out / name) for name in ("loss.png", "states.png", "writing_costs.png"))


def test_a_run_is_written_down_so_that_it_can_be_repeated(short):
    out, _, _ = short
    for name, kind in (("Mamba", tt.Mamba), ("GPT", tt.GPT)):
        config = tt.Config.load(out / f"{name}.toml")
        assert config.seed == 5 and config.folder == out / "checkpoints" / name
        arrays, state = tt.Checkpoints(config.folder).load()
        weights = {key.removeprefix("model."): array for key, array in arrays.items() if key.startswith("model.")}
        kind(config.model).load_state_dict(weights)
        assert state["metadata"]["config"] == config.to_dict()


def test_a_run_that_was_stopped_goes_on_with_the_same_text_and_tokenizer(short, tmp_path, monkeypatch):
    make_small(monkeypatch)
    evaluate = tt.DistributedTrainer.evaluate

    def press(trainer, loader):
        if trainer.step == 4 and trainer.config.experiment_name == "GPT":
            signal.raise_signal(signal.SIGINT)
        return evaluate(trainer, loader)

    with monkeypatch.context() as patch:
        patch.setattr(tt.DistributedTrainer, "evaluate", press)
        with pytest.raises(KeyboardInterrupt, match="Stopped by Ctrl-C after step 4 of 6"):
            run_here(tmp_path, "--steps", 6, "--seed", 5, "--train-only")
    monkeypatch.setattr(tt.BPETokenizer, "train", None)  # it was kept
    run_here(tmp_path, "--resume", "--train-only")
    whole, resumed = read_metrics(short[0]), read_metrics(tmp_path)
    for name in ("loss_initial", "loss_final", "gpt_loss_initial", "gpt_loss_final", "steps", "gpt_steps"):
        assert resumed[name] == whole[name]


def test_a_python_without_the_reference_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(FileNotFoundError, match=r"pydoc_data\.topics"):
        run_here(tmp_path, "--corpus", "topics")


def test_the_state_is_drawn_behind_what_was_read_before(tmp_path):
    tokenizer = tt.CharTokenizer.from_text("def f(x): return x")
    model = tt.Mamba(tt.MambaConfig(8, d_state=4, n_layers=2, vocab_size=tokenizer.vocab_size))
    figure = script.draw_states(model, tokenizer, "def f(x): return x", tmp_path / "states.png", 4, 8, channels=5)
    (image,) = figure.axes[0].images
    assert image.get_array().shape == (5, 8)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list("f(x):␣re")
    assert is_png(tmp_path / "states.png")
