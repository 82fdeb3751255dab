"""The copilot on the standard library: a short run of the whole, with a small corpus."""

import math

import pytest
from running import MILESTONES, load_script, read_metrics

import tinytorch as tt
from tinytorch_course import corpora, milestone

copilot = load_script(MILESTONES / "05_2017_transformer" / "vaswani_copilot.py")


def run(out, *arguments):
    options = milestone.read_options(
        copilot.__doc__,
        lambda options: copilot.STEPS[options.corpus],
        out,
        list(map(str, arguments)),
        choices={"corpus": copilot.CORPORA},
    )
    tt.manual_seed(options.seed)
    return copilot.main(options)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(corpora, "MAX_BYTES", 60_000)
    monkeypatch.setattr(corpora, "MERGES", 50)


def test_a_short_run_reports_what_it_read_and_what_it_learned(tmp_path, small, capsys):
    assert run(tmp_path, "--corpus", "stdlib", "--steps", 8) == 1  # too short for its gate
    said = capsys.readouterr().out
    found = read_metrics(tmp_path)
    corpus = corpora.read_stdlib()
    assert found["corpus_texts"] == len(corpus.training) + len(corpus.held_out)
    assert found["corpus_bytes"] == len("".join(corpus.training + corpus.held_out).encode()) <= 60_000
    assert found["corpus_held_out_bytes"] == len("".join(corpus.held_out).encode())
    assert found["corpus_sha256"] == corpus.sha256()
    assert 0 < found["loss_final"] < found["loss_initial"] == pytest.approx(math.log(308), rel=0.05)
    assert 2 < found["bits_per_byte"] < 8 and 1 < found["bits_per_byte_5gram"] < 6
    assert found["steps"] == 8 and found["held_out_loss"] == pytest.approx(found["loss_final"])
    assert found["corpus_sha256"] in said and "Not reached: the gate is that the loss on files never seen" in said
    assert all(f"\n{header}|" in said for header in copilot.HEADERS)
    assert "valid Python" not in said


def test_resuming_goes_on_with_the_same_corpus_and_tokenizer(tmp_path, small, monkeypatch, capsys):
    run(tmp_path / "whole", "--corpus", "stdlib", "--steps", 6, "--train-only")
    out = tmp_path / "stopped"

    def stop(trainer):
        if trainer.step == 3:
            raise KeyboardInterrupt

    save = tt.Trainer._train_step
    with monkeypatch.context() as patch:
        patch.setattr(tt.Trainer, "_train_step", lambda self: (save(self), self.save(), stop(self))[0])
        with pytest.raises(KeyboardInterrupt):
            run(out, "--corpus", "stdlib", "--steps", 6, "--train-only")
    monkeypatch.setattr(tt.BPETokenizer, "train", None)  # it was kept
    run(out, "--resume", "--train-only")
    ends = [read_metrics(folder) for folder in (tmp_path / "whole", out)]
    assert ends[0]["loss_final"] == ends[1]["loss_final"]
    assert ends[1]["steps"] == 6
    with pytest.raises(SystemExit):
        run(out, "--resume", "--corpus", "patterns")
    assert "a run of corpus stdlib, so --corpus patterns cannot be kept" in capsys.readouterr().err


def test_without_the_option_it_learns_the_programs(tmp_path):
    options = milestone.read_options("", lambda o: copilot.STEPS[o.corpus], tmp_path, [], {"corpus": copilot.CORPORA})
    assert (options.corpus, options.steps) == ("patterns", 700)
