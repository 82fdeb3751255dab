"""Module 07: links to checkpoints never point to what is not there; a checkpoint is checked without being loaded."""

import errno
import os

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.training.files import write_whole


def links_in(folder):
    return {path.name: os.readlink(path) for path in folder.iterdir() if path.is_symlink()}


def save(checkpoints, step, score=None, names=()):
    return checkpoints.save(step, {"w": np.full(3, step, np.float32)}, {"epoch": step // 2}, score, names)


@pytest.fixture
def checkpoints(tmp_path):
    return tt.Checkpoints(tmp_path / "run", keep=2, links=True)


# ---- links


def test_links_name_the_newest_and_the_best(checkpoints):
    for step, score in [(1, 3.0), (2, 1.0), (3, 2.0), (4, None)]:
        folder = save(checkpoints, step, score)
        assert (checkpoints.folder / "latest_checkpoint").resolve() == folder.resolve()
    assert links_in(checkpoints.folder) == {
        "latest_checkpoint": "step-00000004",
        "best_checkpoint": "step-00000002",
    }
    arrays, state = checkpoints.load(checkpoints.folder / "best_checkpoint")
    assert (arrays["w"].tolist(), state) == ([2, 2, 2], {"epoch": 1})


def test_without_a_score_none_is_the_best(checkpoints):
    save(checkpoints, 1)
    assert links_in(checkpoints.folder) == {"latest_checkpoint": "step-00000001"}


def test_further_names_go_with_the_checkpoint_that_they_were_given(checkpoints):
    for step in range(1, 5):
        save(checkpoints, step, names=[f"checkpoint_epoch_{step}"])
    assert links_in(checkpoints.folder) == {
        "latest_checkpoint": "step-00000004",
        "checkpoint_epoch_3": "step-00000003",
        "checkpoint_epoch_4": "step-00000004",
    }


def test_links_of_a_path_that_was_left_go_with_it(checkpoints):
    for step in (1, 2, 3):
        save(checkpoints, step, score=1 / step, names=[f"epoch_{step}"])
    save(checkpoints, 2, score=0.7)
    assert links_in(checkpoints.folder) == {
        "latest_checkpoint": "step-00000002",
        "best_checkpoint": "step-00000002",
    }


def test_setting_aside_takes_the_links_away(checkpoints):
    save(checkpoints, 1, 1.0)
    checkpoints.set_aside()
    assert list(checkpoints.folder.iterdir()) == []


def test_links_are_no_checkpoints(checkpoints):
    save(checkpoints, 1, 1.0, names=["step-last"])
    assert [folder.name for folder in checkpoints.list()] == ["step-00000001"]


def test_without_links_there_are_none(tmp_path):
    checkpoints = tt.Checkpoints(tmp_path)
    save(checkpoints, 1, 1.0, names=["epoch"])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_system_without_links_saves_all_the_same(checkpoints, monkeypatch):
    def refuse(*arguments, **settings):
        raise OSError(errno.EPERM, "a privilege is missing")

    monkeypatch.setattr(os, "symlink", refuse)
    folder = save(checkpoints, 1, 1.0)
    assert list(checkpoints.folder.iterdir()) == [folder]
    assert checkpoints.load()[1] == {"epoch": 0}


# ---- latest and validate


def test_the_latest_is_the_newest_whole_one(checkpoints):
    assert checkpoints.latest() is None
    folders = [save(checkpoints, step) for step in (1, 2)]
    assert checkpoints.latest() == folders[1]
    (folders[1] / "state.safetensors").write_bytes(b"")
    assert checkpoints.latest() == folders[0]
    (folders[0] / "state.json").unlink()
    assert checkpoints.latest() is None


def test_a_whole_checkpoint_is_valid(checkpoints):
    found = checkpoints.validate(save(checkpoints, 7))
    assert found == (True, [], 7, 3)
    assert (found.is_valid, found.errors, found.step, found.epoch) == found


def test_a_state_without_an_epoch_has_none(tmp_path):
    folder = tt.Checkpoints(tmp_path).save(3, {}, {"text": "any"})
    assert tt.Checkpoints.validate(str(folder)) == (True, [], 3, None)


def test_a_missing_checkpoint_is_invalid_and_says_so(tmp_path):
    found = tt.Checkpoints.validate(tmp_path / "step-00000001")
    assert (found.is_valid, found.step, found.epoch) == (False, None, None)
    assert "step-00000001 is not a whole checkpoint" in found.errors[0]


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: b"", lambda data: data[:20] + bytes([data[20] ^ 4]) + data[21:]],
    ids=["truncated", "empty", "flipped-bit"],
)
def test_a_damaged_checkpoint_is_invalid_and_says_so(file, damage, checkpoints):
    folder = save(checkpoints, 4)
    (folder / file).write_bytes(damage((folder / file).read_bytes()))
    found = checkpoints.validate(folder)
    assert not found.is_valid
    assert "step-00000004 is" in found.errors[0]
    assert found.step == (4 if file == "state.safetensors" else None)


# ---- one file, whole


def test_a_file_is_replaced_whole(tmp_path):
    for text in (b"first", b"2"):
        write_whole(tmp_path / "new" / "file", text)
        assert (tmp_path / "new" / "file").read_bytes() == text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    write_whole(tmp_path / "file", b"old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "file", "text is no bytes")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}
