"""Module 20: the loss of a language model predicts each next token once, and nothing that is none."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import tinytorch as tt
from tinytorch.pipeline.loss import count_tokens, language_model_loss, next_tokens, split_rows

CONFIG = tt.GPTConfig(vocab_size=11, n_positions=16, n_embd=8, n_layer=2, n_head=2)


@pytest.fixture(scope="module")
def model():
    return tt.GPT(CONFIG, generator=tt.Generator(0)).double().eval()


@pytest.fixture
def ids():
    return np.random.default_rng(1).integers(0, 11, (3, 9))


def surprise(model, sequence, targets):
    """-log p of each target at its position, in plain NumPy, from the logits of one sequence alone."""
    logits = model(tt.tensor(sequence[None])).data[0]
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return [-log_p[t, target] for t, target in targets]


def next_of(sequence):
    return [(t, sequence[t + 1]) for t in range(len(sequence) - 1)]


def test_each_position_predicts_the_next_token_and_not_the_one_after(model, ids):
    expected = np.mean([surprise(model, row, next_of(row)) for row in ids])
    loss, count = language_model_loss(model, {"input_ids": ids, "labels": ids})
    assert_allclose(loss.item(), expected, rtol=1e-12)
    assert count == 3 * 8


def test_labels_default_to_the_ids_and_may_be_tensors(model, ids):
    expected, _ = language_model_loss(model, {"input_ids": ids, "labels": ids})
    assert language_model_loss(model, {"input_ids": tt.tensor(ids)})[0].item() == expected.item()
    assert language_model_loss(model, {"input_ids": ids, "attention_mask": None})[0].item() == expected.item()


def test_labels_of_minus_100_are_not_predicted(model, ids):
    labels = ids.copy()
    labels[0, :5] = labels[2, 8] = -100
    wanted = [[(t, row[t + 1]) for t in range(8) if marks[t + 1] != -100] for row, marks in zip(ids, labels)]
    expected = np.concatenate([surprise(model, row, targets) for row, targets in zip(ids, wanted)])
    loss, count = language_model_loss(model, {"input_ids": ids, "labels": labels})
    assert_allclose(loss.item(), expected.mean(), rtol=1e-12)
    assert count == len(expected) == 24 - 4 - 1


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("marked", [True, False], ids=["labels-marked", "labels-copied"])
def test_padding_neither_counts_nor_changes_anything(side, marked, model, ids):
    lengths, batch = [9, 5, 2], ids.copy()
    mask = np.arange(9) < np.array(lengths)[:, None]
    if side == "left":
        mask = mask[:, ::-1]
    batch[~mask] = 7
    labels = np.where(mask, batch, -100) if marked else batch
    rows = [row[real] for row, real in zip(batch, mask)]
    expected = np.concatenate([surprise(model, row, next_of(row)) for row in rows])
    loss, count = language_model_loss(model, {"input_ids": batch, "labels": labels, "attention_mask": mask})
    assert_allclose(loss.item(), expected.mean(), rtol=1e-6)
    assert count == len(expected) == sum(lengths) - 3
    assert count_tokens({"input_ids": batch, "attention_mask": mask.astype(np.int64)}) == sum(lengths)


def test_no_document_predicts_the_first_token_of_the_next(model, ids):
    documents = np.array([[0] * 9, [0] * 4 + [1] * 5, [0, 1, 1, 1, 2, 2, 2, 2, 3]])
    pieces = [row[marks == n] for row, marks in zip(ids, documents) for n in np.unique(marks)]
    expected = np.concatenate([surprise(model, piece, next_of(piece)) for piece in pieces if len(piece) > 1])
    loss, count = language_model_loss(model, {"input_ids": ids, "labels": ids, "documents": documents})
    assert_allclose(loss.item(), expected.mean(), rtol=1e-6)
    assert count == len(expected) == 27 - (1 + 2 + 4)


def test_a_batch_without_a_token_to_predict_is_refused(model, ids):
    with pytest.raises(ValueError, match=r"needs a token to predict, but none of \(3, 9\) is left"):
        language_model_loss(model, {"input_ids": ids, "labels": np.full_like(ids, -100)})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"input_ids": None}, r"a dict with 'input_ids'"),
        ({"labels": np.zeros((3, 8), np.int64)}, r"labels .* shape \(3, 8\) beside \(3, 9\)"),
        ({"labels": np.zeros((3, 9))}, r"labels with integers .* but got float64"),
        ({"attention_mask": np.ones(9, bool)}, r"attention_mask .* shape \(9,\)"),
        ({"documents": np.zeros((2, 9), np.int64)}, r"documents .* shape \(2, 9\)"),
        ({"input_ids": np.zeros((3, 1), np.int64), "labels": None}, r"T at least 2"),
    ],
)
def test_a_batch_of_other_parts_is_refused_by_name(change, says, model, ids):
    batch = {"input_ids": ids, "labels": ids, **change}
    if batch["input_ids"] is None:
        del batch["input_ids"]
    with pytest.raises(ValueError, match=says):
        language_model_loss(model, batch)


def test_lists_are_refused_with_what_makes_arrays_of_them(model, ids):
    for use in (count_tokens, lambda batch: split_rows(batch, 1), lambda batch: language_model_loss(model, batch)):
        with pytest.raises(ValueError, match=r"input_ids to be an array or a tensor .* but got a list.*np\.array"):
            use({"input_ids": ids.tolist()})
    with pytest.raises(ValueError, match=r"attention_mask to be an array .* but got a list"):
        count_tokens({"input_ids": ids, "attention_mask": np.ones_like(ids).tolist()})


@pytest.mark.parametrize("batch", [(1, 2), np.zeros((3, 9))], ids=["tuple", "array"])
def test_what_is_no_dict_is_refused(batch, model):
    with pytest.raises(ValueError, match=r"needs to be a dict with 'input_ids' \(B, T\), but is a (tuple|ndarray)"):
        language_model_loss(model, batch)


# ---- pieces


@pytest.mark.parametrize("rows", [1, 2, 3, 7, None])
def test_pieces_weighted_by_their_counts_have_the_loss_and_gradient_of_the_whole(rows, model, ids):
    labels = ids.copy()
    labels[1] = -100  # a piece of one row may have nothing to predict
    labels[2, 4:] = -100
    batch = {"input_ids": ids, "labels": tt.tensor(labels)}

    def gradient_of(batches):
        model.zero_grad()
        total = 0
        for piece in batches:
            loss, count = language_model_loss(model, piece)
            loss.backward(np.full_like(loss.data, count))
            total += count
        return total, np.concatenate([p.grad.data.ravel() for p in model.parameters()])

    count, expected = gradient_of([batch])
    pieces = split_rows(batch, rows)
    assert max(len(piece["input_ids"]) for piece in pieces) <= (rows or 3)
    found_count, found = gradient_of(pieces)
    assert found_count == count == (next_tokens(batch) != -100).sum()
    assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
