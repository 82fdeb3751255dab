"""The gate of the milestone of 2017: the script is run as a user runs it, and what it leaves behind is looked at."""

import ast
import os
import signal
import subprocess
import sys
import time

import pytest
from running import MILESTONES, is_png, load_script, read_metrics, run, whole_run

import tinytorch as tt

SCRIPT = MILESTONES / "05_2017_transformer" / "vaswani_copilot.py"
METRICS = {
    "loss_initial", "loss_final", "loss_decrease", "steps", "seconds", "steps_per_second", "tokens_per_second",
    "peak_memory_mb", "parameters", "exact_completions", "valid_python", "held_out_loss", "seed",
}  # fmt: skip


copilot = load_script(SCRIPT)


trained = whole_run(SCRIPT)


# ---- the corpus


def test_the_corpus_is_45_programs_and_5_others():
    assert (len(copilot.TRAINING), len(copilot.HELD_OUT)) == (45, 5)
    assert len({*copilot.TRAINING, *copilot.HELD_OUT}) == 50


@pytest.mark.parametrize("program", copilot.TRAINING + copilot.HELD_OUT)
def test_every_program_is_python_and_its_first_third_says_which_one_it_is(program):
    ast.parse(program)
    beginning = copilot.first_third(program)
    assert [other for other in copilot.TRAINING + copilot.HELD_OUT if other.startswith(beginning)] == [program]


# ---- a whole run


def test_the_run_reaches_its_gates(trained):
    process, out = trained
    assert process.returncode == 0, process.stdout + process.stderr
    found = read_metrics(out)
    assert found.keys() >= METRICS
    assert found["loss_decrease"] > 0.8
    assert found["exact_completions"] >= 0.9
    assert found["valid_python"] >= 0.9
    assert found["peak_memory_mb"] < 500


def test_the_metrics_agree_with_each_other(trained):
    found = read_metrics(trained[1])
    assert found["loss_decrease"] == pytest.approx(1 - found["loss_final"] / found["loss_initial"])
    assert found["steps_per_second"] == pytest.approx(found["steps"] / found["seconds"])
    assert found["steps"] == copilot.STEPS["patterns"]


def test_the_checkpoint_holds_the_model_that_was_measured(trained):
    _, out = trained
    tokenizer = tt.CharTokenizer.load(out / "tokenizer.json")
    arrays, _ = tt.Checkpoints(out / "checkpoints").load()
    weights = {name.removeprefix("model."): a for name, a in arrays.items() if name.startswith("model.")}
    positions, width = weights["wpe.weight"].shape
    model = tt.GPT(tt.GPTConfig(tokenizer.vocab_size, positions, width, n_layer=2, n_head=4))
    model.load_state_dict(weights)
    model.eval()
    loss, _ = tt.next_token_loss(model, tt.tensor(tokenizer.encode_batch(copilot.TRAINING)), tokenizer.pad_id)
    assert loss.item() == pytest.approx(read_metrics(out)["loss_final"], rel=1e-4)


def test_the_loss_curve_is_a_png(trained):
    assert is_png(trained[1] / "loss.png")


def test_without_a_terminal_it_shows_completions_and_asks_nothing(trained):
    process, _ = trained
    assert process.stdout.count("# valid Python") + process.stdout.count("# not valid Python") == 6
    assert "> " not in process.stdout.splitlines()
    assert process.stderr == ""  # no bar either


# ---- short runs


def test_a_run_that_misses_its_gate_says_so_and_fails(tmp_path):
    process = run(SCRIPT, tmp_path, "--train-only", "--steps", 5)
    assert process.returncode == 1
    assert "Not reached: the gate is that the loss falls by at least 80 %" in process.stdout
    assert "This run was 5 steps; the milestone is made for" in process.stdout
    assert "# valid Python" not in process.stdout


def test_the_same_seed_gives_the_same_loss_and_another_does_not(tmp_path):
    losses = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(SCRIPT, tmp_path / name, "--train-only", "--steps", 10, "--seed", seed)
        losses.append(read_metrics(tmp_path / name)["loss_final"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_saves_and_resume_ends_as_if_nothing_had_happened(tmp_path):
    run(SCRIPT, tmp_path / "whole", "--train-only", "--steps", 150, "--seed", 1)
    out = tmp_path / "stopped"
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "--train-only", "--steps", "150", "--seed", "1", "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("checkpoints/step-*")):
        assert time.monotonic() < deadline and process.poll() is None
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped by Ctrl-C after step" in said and "--resume" in said
    assert not (out / "metrics.json").exists()
    resumed = run(SCRIPT, out, "--train-only", "--resume")  # steps and seed are those of the run
    assert resumed.returncode in (0, 1), resumed.stderr
    assert read_metrics(out)["loss_final"] == read_metrics(tmp_path / "whole")["loss_final"]


# ---- the prompt


@pytest.fixture(scope="module")
def untrained():
    tokenizer = tt.CharTokenizer.from_text("".join(copilot.TRAINING))
    return tt.GPT(tt.GPTConfig(tokenizer.vocab_size, 40, n_embd=8, n_layer=1, n_head=1)), tokenizer


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("if x:\\n    print", "if x:\n    print|"),
        ("@", "The tokenizer does not know '@'"),
        ("x" * 41, "A prompt needs 1 to 40 tokens, but this one has 41"),
    ],
)
def test_the_prompt_completes_what_is_typed_and_explains_what_it_cannot(untrained, typed, answer, monkeypatch, capsys):
    lines = iter([typed, ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    copilot.prompt_loop(*untrained)
    assert answer in capsys.readouterr().out
    assert next(lines, "all read") == "all read"


def test_the_prompt_ends_at_the_end_of_the_input(untrained, monkeypatch):
    def end(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    assert copilot.prompt_loop(*untrained) is None


def test_python_is_what_pythons_parser_accepts():
    assert copilot.is_python("x = 1")
    assert not copilot.is_python("x = ")
    assert not copilot.is_python("x = '\0'")
