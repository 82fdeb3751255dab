"""Module 07: a checkpoint is whole or refused, never mixed up with another run's, and the right ones are kept."""

import ast
import errno
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_array_equal

import tinytorch as tt


def steps_in(folder):
    """The numbers of the checkpoints in a folder; anything else there fails."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


def save_steps(checkpoints, steps, scores=None):
    for step, score in zip(steps, scores or [None] * len(steps), strict=True):
        checkpoints.save(step, {"w": np.full(3, step, np.float32)}, {"note": f"of step {step}"}, score)


def assert_holds(found, step):
    arrays, state = found
    assert list(arrays) == ["w"]
    assert_array_equal(arrays["w"], np.full(3, step, np.float32), strict=True)
    assert state == {"note": f"of step {step}"}


# ---- what comes back


@pytest.mark.parametrize(
    "array",
    [
        np.array(2.5, np.float32),
        np.array(7),
        np.zeros((0, 4), np.float32),
        np.array([True, False]),
        np.arange(6, dtype=np.float64).reshape(2, 3).T,
        np.array([math.nan, math.inf, -0.0]),
        np.array([1, 2], np.float16),
        np.arange(5)[::-2],
    ],
    ids=["no-axes", "integer-no-axes", "empty", "bool", "transposed", "not-finite", "half", "reversed"],
)
def test_arrays_come_back_with_their_shape_type_and_bits(array, tmp_path):
    checkpoints = tt.Checkpoints(tmp_path)
    checkpoints.save(1, {"a.b.c": array}, {})
    (name, found), *rest = checkpoints.load()[0].items()
    assert (name, rest) == ("a.b.c", [])
    assert (found.shape, found.dtype, found.tobytes()) == (array.shape, array.dtype, array.tobytes())


def test_the_state_comes_back_to_the_last_digit(tmp_path):
    state = {"text": "naïve \u2028 \ud800", "numbers": [0.1 + 0.2, 1e-300, 2**128, -0.0, math.inf], "deep": {"x": [{}]}}
    tt.Checkpoints(tmp_path).save(1, {}, state)
    assert repr(tt.Checkpoints(tmp_path).load()[1]) == repr(state)


def test_a_history_of_thousands_of_steps_stays_readable(tmp_path):
    rng = np.random.default_rng(0)
    history = {name: rng.standard_normal(20_000).tolist() for name in ("step", "loss", "lr", "grad_norm")}
    checkpoints = tt.Checkpoints(tmp_path)
    folder = checkpoints.save(20_000, {"w": np.ones(1)}, {"history": history}, score=0.5)
    assert checkpoints.load()[1] == {"history": history}
    assert checkpoints.best() == folder
    json.loads((folder / "state.json").read_text(encoding="utf-8"))


# ---- which are kept


def test_the_newest_are_kept_in_the_order_of_their_steps(tmp_path):
    checkpoints = tt.Checkpoints(tmp_path / "new" / "run", keep=3)
    for step in (8, 9, 10, 11, 100):
        folder = checkpoints.save(step, {"w": np.full(3, step, np.float32)}, {"note": f"of step {step}"})
        assert folder == checkpoints.list()[-1]
        assert_holds(checkpoints.load(), step)
        assert_holds(checkpoints.load(folder), step)
    assert steps_in(checkpoints.folder) == [10, 11, 100]


@pytest.mark.exercise("ex-07-5", points=2)
@pytest.mark.parametrize(
    ("scores", "best", "kept"),
    [
        ([3.0, 1.0, 2.0, 2.5, 1.5], 2, [2, 4, 5]),
        ([-1.0, -3.0, 0.0, 2.0, -2.0], 2, [2, 4, 5]),
        ([1.0, 2.0, 2.0, 2.0, 0.5], 5, [4, 5]),
        ([1.0, 1.0, 1.0, 1.0, 2.0], 1, [1, 4, 5]),
        ([None, 5.0, None, None, None], 2, [2, 4, 5]),
        ([None] * 5, None, [4, 5]),
        ([math.nan, 2.0, math.nan, 3.0, math.nan], 2, [2, 4, 5]),
        ([math.inf, 2.0, 3.0, -math.inf, 3.0], 4, [4, 5]),
    ],
)
def test_the_best_is_kept_beside_the_newest(scores, best, kept, tmp_path):
    checkpoints = tt.Checkpoints(tmp_path, keep=2)
    save_steps(checkpoints, range(1, 6), scores)
    found = checkpoints.best()
    assert (found and found.name) == (best and f"step-{best:08d}")
    assert steps_in(tmp_path) == kept


def trainer_in(folder, *, model=None, optimizer=None, loss_fn=None, **settings):
    model = model or tt.Linear(3, 2, generator=tt.Generator(0))
    return tt.Trainer(
        model,
        (optimizer or (lambda p: tt.Adam(p, lr=0.1)))(model.parameters()),
        [tt.tensor(np.arange(3, dtype=np.float32))],
        loss_fn or (lambda model, batch: (model(batch) ** 2).mean()),
        checkpoints=tt.Checkpoints(folder),
        **settings,
    )


@pytest.mark.exercise("ex-07-5", points=2)
def test_the_best_of_a_run_is_the_one_of_the_lowest_held_out_loss(tmp_path):
    trainer = trainer_in(tmp_path, optimizer=lambda p: tt.SGD(p, lr=0.38, momentum=0.9), checkpoint_every=1)
    trainer.eval_loader, trainer.eval_every = trainer.train_loader, 2
    history = trainer.fit(12)
    best = history["eval_step"][int(np.argmin(history["eval_loss"]))]
    assert best < 10  # the rate is so high that the end is not the best
    assert trainer.checkpoints.best().name == f"step-{best:08d}"
    assert steps_in(tmp_path) == [best, 10, 11, 12]


@pytest.mark.exercise("ex-07-5", points=2)
def test_a_checkpoint_that_was_not_evaluated_does_not_compete(tmp_path):
    trainer = trainer_in(tmp_path, checkpoint_every=1, eval_loader=[tt.ones(3)], eval_every=2)
    losses = trainer.fit(4)["eval_loss"]
    scores = [tt.training.checkpoints._read_state(folder)["score"] for folder in trainer.checkpoints.list()]
    assert steps_in(tmp_path) == [2, 3, 4]
    assert scores == [losses[0], None, losses[1]]


def test_looking_at_an_older_checkpoint_removes_no_newer_one(tmp_path):
    trainer_in(tmp_path, checkpoint_every=1).fit(3)
    trainer = trainer_in(tmp_path)
    assert trainer.resume(tmp_path / "step-00000001") == 1
    assert steps_in(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("keep", [0, -1, 1.5, math.nan])
def test_keeping_less_than_one_or_a_fraction_is_refused(keep, tmp_path):
    with pytest.raises(ValueError, match=f"keep needs an integer of at least 1, but got {keep}"):
        tt.Checkpoints(tmp_path, keep=keep)


# ---- torn and foreign files


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def fill_with_zeros(path):
    """What some file systems leave after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


def make_a_folder(path):
    path.unlink()
    path.mkdir()


def foreign_arrays(path):
    path.write_bytes(safetensors.numpy.save({"w": np.zeros(3, np.float32)}))


def foreign_json(text):
    def write(path):
        path.write_text(text, encoding="utf-8")

    write.__name__ = f"json {text}"
    return write


DAMAGE = [
    *[
        (file, how)
        for file in ("state.json", "state.safetensors")
        for how in (truncate, empty, flip_a_byte, fill_with_zeros, Path.unlink, make_a_folder)
    ],
    ("state.safetensors", foreign_arrays),
    *[
        ("state.json", foreign_json(text))
        for text in (
            "{}",
            "[]",
            "7",
            "null",
            '"content"',
            '{"content": 1, "sha256": 2}',
            '{"content": null, "sha256": ""}',
            '{"content": "{}", "sha256": "0"}',
            '{"model_type": "gpt2", "n_layer": 12}',
        )
    ],
]


@pytest.fixture(params=DAMAGE, ids=lambda damage: f"{damage[0]}-{damage[1].__name__}")
def damaged(request, tmp_path, monkeypatch):
    """Checkpoints of steps 1, 2 and 3, the last of them damaged."""
    monkeypatch.chdir(tmp_path)  # so that messages name the same folder wherever the test runs
    checkpoints = tt.Checkpoints("run")
    save_steps(checkpoints, [1, 2, 3], scores=[3.0, 2.0, 1.0])
    file, damage = request.param
    damage(checkpoints.folder / "step-00000003" / file)
    return checkpoints


def test_a_damaged_checkpoint_is_refused_by_name(damaged):
    with pytest.raises(tt.CheckpointError, match=r"step-00000003 is (damaged|not a whole checkpoint)"):
        damaged.load(damaged.folder / "step-00000003")


@pytest.mark.exercise("ex-07-6", points=2)
def test_loading_falls_back_to_the_newest_whole_one_and_says_so(damaged, capsys):
    assert_holds(damaged.load(), 2)
    said = capsys.readouterr().out
    assert "step-00000003 is" in said and "Going on from step-00000002 instead." in said


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(damaged, capsys):
    save_steps(damaged, [3])
    assert_holds(damaged.load(), 3)
    assert capsys.readouterr().out == ""
    assert steps_in(damaged.folder) == [1, 2, 3]


@pytest.mark.exercise("ex-07-6", points=2)
def test_a_whole_checkpoint_is_loaded_without_a_word(tmp_path, capsys):
    save_steps(tt.Checkpoints(tmp_path), [1, 2])
    assert_holds(tt.Checkpoints(tmp_path).load(), 2)
    assert tuple(capsys.readouterr()) == ("", "")


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
def test_no_flipped_bit_goes_unnoticed(file, tmp_path):
    folder = tt.Checkpoints(tmp_path).save(1, {"w": np.arange(4)}, {"lr": 0.5})
    whole = (folder / file).read_bytes()
    for i in range(len(whole)):
        (folder / file).write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        with pytest.raises(tt.CheckpointError, match="step-00000001"):
            tt.Checkpoints(tmp_path).load(folder)


def test_files_of_two_checkpoints_do_not_make_one(tmp_path):
    save_steps(tt.Checkpoints(tmp_path), [1, 2])
    os.replace(tmp_path / "step-00000001/state.safetensors", tmp_path / "step-00000002/state.safetensors")
    with pytest.raises(tt.CheckpointError, match="step-00000002 is damaged"):
        tt.Checkpoints(tmp_path).load(tmp_path / "step-00000002")


def test_where_all_are_damaged_each_is_named(tmp_path):
    save_steps(tt.Checkpoints(tmp_path), [1, 2])
    empty(tmp_path / "step-00000001/state.json")
    truncate(tmp_path / "step-00000002/state.safetensors")
    with pytest.raises(tt.CheckpointError, match=r"No checkpoint to load.*step-00000002 .*step-00000001 "):
        tt.Checkpoints(tmp_path).load()


@pytest.mark.exercise("ex-07-6", points=2)
@pytest.mark.parametrize("exists", [True, False])
def test_where_there_is_none_the_error_says_where_it_looked(exists, tmp_path):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with pytest.raises(tt.CheckpointError, match=r"No checkpoint to load in .*run"):
        tt.Checkpoints(folder).load()


def test_damaged_ones_do_not_push_whole_ones_out(tmp_path):
    checkpoints = tt.Checkpoints(tmp_path, keep=1)
    save_steps(checkpoints, [1, 9])
    empty(tmp_path / "step-00000009/state.safetensors")
    save_steps(checkpoints, [5])
    assert_holds(checkpoints.load(), 5)


# ---- what only looks like one


@pytest.mark.parametrize("step", [2, 99])
def test_a_file_with_the_name_of_a_checkpoint_is_none_and_stays(step, tmp_path):
    checkpoints = tt.Checkpoints(tmp_path / "run", keep=1)
    save_steps(checkpoints, [1])
    stray = tmp_path / "run" / f"step-{step:08d}"
    stray.write_text("a letter")
    assert [path.name for path in checkpoints.list()] == ["step-00000001"]
    assert_holds(checkpoints.load(), 1)
    save_steps(checkpoints, [3])
    if step == 2:
        checkpoints.set_aside()
    else:
        with pytest.raises(OSError, match=r"step 99 could not be saved .*The newest whole one is .*step-00000003"):
            save_steps(checkpoints, [99])
        assert_holds(checkpoints.load(), 3)
    assert stray.read_text() == "a letter"
    assert not list((tmp_path / "run").glob(".writing-*"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1, 2]", "TypeError"),
        ("7", "TypeError"),
        ("{}", "KeyError"),
        ("{", "JSONDecodeError"),
        ('{"step": 2, "score": [1], "arrays_sha256": "", "state": {}}', r"its score is \[1\]"),
        ('{"step": "2", "score": 1, "arrays_sha256": "", "state": {}}', r"its step is '2'"),
        ('{"step": 2, "score": 1, "arrays_sha256": [], "state": {}}', r"its arrays_sha256 is \[\]"),
    ],
)
def test_a_state_of_another_form_is_no_checkpoint_though_its_checksum_is_right(content, says, tmp_path):
    checkpoints = tt.Checkpoints(tmp_path)
    save_steps(checkpoints, [1, 2], scores=[1.0, 0.5])
    file = tmp_path / "step-00000002" / "state.json"
    outer = json.loads(file.read_text()) | {"content": content}
    outer["sha256"] = hashlib.sha256(content.encode()).hexdigest()
    file.write_text(json.dumps(outer))
    with pytest.raises(tt.CheckpointError, match=rf"step-00000002 is not a checkpoint of tinytorch: .*{says}"):
        checkpoints.load(tmp_path / "step-00000002")
    assert not checkpoints.validate(tmp_path / "step-00000002").is_valid
    assert checkpoints.latest() == checkpoints.best() == tmp_path / "step-00000001"


# ---- leftovers of a killed process


@pytest.mark.parametrize(
    "name",
    [".writing-00000009-1", ".writing-step-00000001", f".writing-00000003-{os.getpid()}"],
    ids=["of-another-step", "of-a-removal", "of-a-process-that-had-our-number"],
)
def test_leftovers_never_count_and_are_cleaned_by_the_next_save(name, tmp_path):
    checkpoints = tt.Checkpoints(tmp_path, keep=1)
    save_steps(checkpoints, [1])
    leftover = tmp_path / name
    leftover.mkdir()
    for file in (tmp_path / "step-00000001").iterdir():
        (leftover / file.name).write_bytes(file.read_bytes())
    assert [path.name for path in checkpoints.list()] == ["step-00000001"]
    assert checkpoints.best() is None
    assert_holds(checkpoints.load(), 1)
    save_steps(checkpoints, [3])
    assert steps_in(tmp_path) == [3]
    assert_holds(checkpoints.load(), 3)


# ---- a disk that does not take it


def fill_the_disk(monkeypatch, at_write):
    """From write number `at_write` on, only half of the data fits."""
    write, calls = tt.training.checkpoints._write, []

    def write_half(path, data):
        calls.append(path)
        if len(calls) < at_write:
            write(path, data)
        else:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(tt.training.checkpoints, "_write", write_half)


@pytest.mark.parametrize("at_write", [1, 2])
def test_a_full_disk_leaves_the_old_checkpoints_and_nothing_else(at_write, tmp_path, monkeypatch):
    checkpoints = tt.Checkpoints(tmp_path, keep=2)
    save_steps(checkpoints, [1, 2])
    with monkeypatch.context() as patch:
        fill_the_disk(patch, at_write)
        with pytest.raises(
            OSError,
            match=r"step 3 could not be saved in .*No space left.*The newest whole one is .*step-00000002\.",
        ) as refused:
            save_steps(checkpoints, [3])
        assert refused.value.errno == errno.ENOSPC
    assert steps_in(tmp_path) == [1, 2]
    assert_holds(checkpoints.load(), 2)
    save_steps(checkpoints, [3])
    assert steps_in(tmp_path) == [2, 3]


def test_a_full_disk_stops_training_at_a_step_from_which_it_goes_on(tmp_path, monkeypatch):
    trainer = trainer_in(tmp_path / "full", checkpoint_every=1)
    trainer.fit(2)
    with monkeypatch.context() as patch:
        fill_the_disk(patch, at_write=1)
        with pytest.raises(OSError, match="No space left"):
            trainer.fit(4)
    successor = trainer_in(tmp_path / "full", checkpoint_every=1)
    assert successor.resume() == 2
    assert successor.fit(4) == trainer_in(tmp_path / "whole").fit(4)


@pytest.mark.parametrize("stop", [3, 4])
def test_a_step_that_the_disk_did_not_take_is_evaluated_once_and_saved_when_it_does(stop, tmp_path, monkeypatch):
    def build(folder):
        return trainer_in(tmp_path / folder, eval_loader=[tt.ones(3)], eval_every=1, checkpoint_every=3)

    expected = build("whole").fit(4)
    trainer = build("full")
    with monkeypatch.context() as patch:
        fill_the_disk(patch, at_write=1)
        with pytest.raises(OSError, match="step 3 could not be saved"):
            trainer.fit(stop)
    trainer.fit(stop)
    assert trainer.checkpoints.list()[0].name == "step-00000003"
    assert trainer.fit(4) == expected


def test_what_json_cannot_hold_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        tt.Checkpoints(tmp_path).save(1, {}, {"path": tmp_path})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def under_a_file(tmp_path):
    """A folder that nobody can make, not even an administrator: the place above it is a file."""
    (tmp_path / "file").write_text("a letter")
    yield tmp_path / "file" / "run"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "a letter"


def test_saving_where_no_folder_can_be_is_an_error(under_a_file):
    with pytest.raises(OSError, match=r"step 1 could not be saved in .*run .*No whole checkpoint is there\."):
        tt.Checkpoints(under_a_file).save(1, {}, {})
    assert tt.Checkpoints(under_a_file).list() == []
    with pytest.raises(tt.CheckpointError, match=r"No checkpoint to load in .*run"):
        tt.Checkpoints(under_a_file).load()


def test_training_that_could_not_save_does_not_begin(under_a_file):
    trainer = trainer_in(under_a_file)
    with pytest.raises(OSError, match=r"run cannot be a folder of checkpoints .* Name another\."):
        trainer.fit(3)
    assert trainer.step == 0


# ---- one run and another


def test_a_fresh_run_sets_the_checkpoints_of_the_earlier_one_aside(tmp_path):
    trainer_in(tmp_path / "run", checkpoint_every=1).fit(4)
    fresh = trainer_in(tmp_path / "run", checkpoint_every=1)
    fresh.fit(2)
    assert steps_in(tmp_path / "run") == [1, 2]
    assert steps_in(tmp_path / "run-previous") == [2, 3, 4]
    assert trainer_in(tmp_path / "run-previous").resume() == 4
    assert trainer_in(tmp_path / "run").resume() == 2


def test_starting_afresh_twice_by_mistake_does_not_delete_the_long_run(tmp_path):
    trainer_in(tmp_path / "run").fit(10)
    for _ in range(2):
        trainer_in(tmp_path / "run").fit(1)
    (long_run,) = tmp_path.rglob("step-00000010")
    assert trainer_in(tmp_path / "run").resume(long_run) == 10


def test_what_else_lies_in_the_folder_stays_there(tmp_path):
    trainer_in(tmp_path / "run").fit(1)
    (tmp_path / "run" / "tokenizer.json").write_text("{}")
    trainer_in(tmp_path / "run").fit(1)
    assert (tmp_path / "run" / "tokenizer.json").read_text() == "{}"


def test_a_resumed_run_sets_nothing_aside(tmp_path):
    trainer_in(tmp_path / "run").fit(2)
    trainer = trainer_in(tmp_path / "run")
    trainer.resume()
    trainer.fit(3)
    assert steps_in(tmp_path / "run") == [2, 3]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]


def snapshot(trainer):
    """What a refused checkpoint must leave as it was."""
    return (
        trainer.step,
        repr(trainer.history),
        {name: tensor.data.tobytes() for name, tensor in trainer.model.state_dict().items()},
        repr(trainer.optimizer.state_dict()),
        trainer.schedule and trainer.schedule.state_dict(),
        tt.device.default_generator.get_state(),
    )


def momentum(parameters):
    return tt.SGD(parameters, lr=0.3, momentum=0.9)


def two_groups(parameters):
    first, *rest = parameters
    return tt.Adam([{"params": [first]}, {"params": rest}])


@pytest.mark.parametrize(
    "other",
    [
        {"model": lambda: tt.Linear(3, 4)},
        {"model": lambda: tt.Linear(3, 2, bias=False)},
        {"model": lambda: tt.Sequential(tt.Linear(3, 2))},
        {"model": lambda: tt.Sequential(tt.Linear(3, 2), tt.Dropout(generator=tt.Generator(1)))},
        {"optimizer": lambda p: tt.SGD(p, lr=0.3)},
        {"optimizer": momentum},
        {"optimizer": tt.AdamW},
        {"optimizer": two_groups},
        {"optimizer": lambda p: tt.Adam(list(p)[:1])},
        {"optimizer": lambda p: tt.Adam(list(p)[::-1])},
    ],
    ids=["shape", "no-bias", "names", "more-layers", "sgd", "momentum", "adamw", "groups", "fewer", "order"],
)
def test_a_checkpoint_of_another_model_or_optimizer_is_refused_and_changes_nothing(other, tmp_path):
    trainer_in(tmp_path).fit(2)
    trainer = trainer_in(
        tmp_path, model=other["model"]() if "model" in other else None, optimizer=other.get("optimizer")
    )
    before = snapshot(trainer)
    with pytest.raises(tt.CheckpointError, match="another training"):
        trainer.resume()
    assert snapshot(trainer) == before


def test_a_checkpoint_of_sgd_does_not_go_on_as_adam(tmp_path):
    trainer_in(tmp_path, optimizer=momentum).fit(2)
    with pytest.raises(tt.CheckpointError, match="another training"):
        trainer_in(tmp_path).resume()


def with_schedule(folder):
    trainer = trainer_in(folder)
    trainer.schedule = tt.StepLR(trainer.optimizer, 1, gamma=0.5)
    return trainer


def with_generator(folder):
    trainer = trainer_in(folder)
    trainer.train_loader = tt.DataLoader(
        tt.TensorDataset(tt.ones(4, 3)), collate_fn=lambda rows: rows[0][0], generator=tt.Generator(0)
    )
    return trainer


@pytest.mark.parametrize(
    ("saved_by", "resumed_by"),
    [
        (trainer_in, with_schedule),
        (with_schedule, trainer_in),
        (trainer_in, with_generator),
        (with_generator, trainer_in),
    ],
    ids=["schedule-added", "schedule-lost", "generator-added", "generator-lost"],
)
def test_a_checkpoint_of_a_trainer_with_other_parts_is_refused_and_changes_nothing(saved_by, resumed_by, tmp_path):
    saved_by(tmp_path).fit(2)
    trainer = resumed_by(tmp_path)
    before = snapshot(trainer)
    with pytest.raises(tt.CheckpointError, match=r"schedule|generator|loader"):
        trainer.resume()
    assert snapshot(trainer) == before


def test_a_whole_checkpoint_that_no_trainer_wrote_is_refused(tmp_path):
    save_steps(tt.Checkpoints(tmp_path), [1])
    trainer = trainer_in(tmp_path)
    before = snapshot(trainer)
    with pytest.raises(tt.CheckpointError, match=r"not written by a Trainer"):
        trainer.resume()
    assert snapshot(trainer) == before


def test_resuming_without_a_place_for_checkpoints_says_how_to_give_one():
    model = tt.Linear(1, 1)
    with pytest.raises(tt.CheckpointError, match=r"checkpoints=Checkpoints\(folder\)"):
        tt.Trainer(model, tt.SGD(model.parameters()), [], None).resume()


def test_a_folder_may_be_given_as_text(tmp_path):
    trainer_in(str(tmp_path)).fit(1)
    assert trainer_in(str(tmp_path)).resume(str(tmp_path / "step-00000001")) == 1


# ---- nothing is unpickled

UNSAFE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch"}


@pytest.mark.parametrize(
    "path", sorted(Path(tt.__file__).parent.rglob("*.py")), ids=lambda path: path.relative_to(Path(tt.__file__).parent)
)
def test_no_file_of_the_package_can_unpickle(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Constant) and node.value in UNSAFE:
            imported.add(node.value)  # importlib.import_module("pickle")
        elif isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle"
    assert not imported & UNSAFE


def test_a_folder_of_the_users_is_no_checkpoint(tmp_path):
    (tmp_path / "step-original").mkdir()
    checkpoints = tt.Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {}, {})
    checkpoints.save(2, {}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-original"]


def test_a_second_run_into_the_same_folder_is_refused(tmp_path):
    with tt.Checkpoints(tmp_path / "run").locked():
        second = tt.Checkpoints(tmp_path / "run").locked()
        with pytest.raises(tt.CheckpointError, match="Another process is training into"):
            second.__enter__()
    with tt.Checkpoints(tmp_path / "run").locked():
        assert (tmp_path / "run").is_dir()


def test_text_that_no_file_can_hold_is_a_damaged_checkpoint(tmp_path):
    checkpoints = tt.Checkpoints(tmp_path)
    good, torn = checkpoints.save(1, {}, {"a": 1}), checkpoints.save(2, {}, {})
    (torn / "state.json").write_text('{"format": "tinytorch checkpoint 1", "content": "\\ud800", "sha256": ""}')
    assert checkpoints.load()[1] == {"a": 1}
    assert good.exists()
