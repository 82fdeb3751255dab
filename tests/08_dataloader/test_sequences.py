"""Module 08: packed and padded sequences keep every token once, label none of the padding, and shift nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import tinytorch as tt
from tinytorch.dataloader import token_sample

property_test = settings(deadline=None, derandomize=True, max_examples=80)
sequences_of_ids = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=25), min_size=1, max_size=20)


def documents_in(row):
    """The sequences of a packed row, found by plain loops."""
    found = []
    for i, (token, real, document) in enumerate(zip(row["input_ids"], row["attention_mask"], row["documents"])):
        if real and (i == 0 or document != row["documents"][i - 1]):
            found.append([])
        if real:
            found[-1].append(int(token))
    return found


# ---- packing


@property_test
@given(sequences_of_ids, st.integers(1, 30))
def test_every_token_is_packed_once_and_in_its_sequence(sequences, max_length):
    rows = tt.SequencePacker(max_length, pad_id=0).pack(sequences)
    pieces = [s[i : i + max_length] for s in sequences for i in range(0, len(s), max_length)]
    assert sorted(piece for row in rows for piece in documents_in(row)) == sorted(pieces)


@property_test
@given(sequences_of_ids, st.integers(1, 30))
def test_a_packed_row_says_what_is_real(sequences, max_length):
    rows = tt.SequencePacker(max_length, pad_id=7).pack(sequences)
    for row in (rows[i] for i in range(len(rows))):
        real = row["attention_mask"]
        assert_array_equal(row["labels"], np.where(real, row["input_ids"], -100))
        assert (row["input_ids"][~real] == 7).all()
        assert (np.diff(real.astype(int)) <= 0).all()  # padding stands at the end
        steps = np.diff(row["documents"])
        assert row["documents"][0] == 0 and set(steps) <= {0, 1}
        assert (steps[~real[1:] & real[:-1]] == 1).all()  # padding is of no document
        assert {name: (x.shape, x.dtype) for name, x in row.items()} == {
            "input_ids": ((max_length,), np.int64),
            "labels": ((max_length,), np.int64),
            "attention_mask": ((max_length,), bool),
            "documents": ((max_length,), np.int64),
        }


def test_packing_by_hand():
    rows = tt.SequencePacker(6, pad_id=0).pack([[1, 1], [2, 2, 2, 2, 2], [3, 3, 3], [4], [5]])
    assert [rows[i]["input_ids"].tolist() for i in range(len(rows))] == [[1, 1, 3, 3, 3, 5], [2, 2, 2, 2, 2, 4]]
    assert rows[0]["documents"].tolist() == [0, 0, 1, 1, 1, 2]
    assert rows.efficiency == 1


def test_what_is_longer_than_a_row_is_cut_into_documents_of_their_own():
    rows = tt.SequencePacker(4, pad_id=0).pack([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
    assert [documents_in(row) for row in rows] == [[[1, 2, 3, 4]], [[5, 6, 7, 8]], [[9, 10]]]
    assert rows[2]["documents"].tolist() == [0, 0, 1, 1]
    assert rows.efficiency == 10 / 12


def test_packing_comes_close_to_no_padding_at_all():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4, 0.8, 1000).astype(int) + 1, 1, 256)
    sequences = [rng.integers(1, 50, n) for n in lengths]
    rows = tt.SequencePacker(256).pack(sequences)
    assert rows.efficiency > 0.98
    assert rows.efficiency == pytest.approx(np.mean([row["attention_mask"].mean() for row in rows]))
    assert lengths.sum() / (len(lengths) * 256) < 0.4  # of one sequence to a row


@property_test
@given(st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_no_two_rows_could_be_one(lengths):
    rows = tt.SequencePacker(20).pack([[1] * n for n in lengths])
    emptiest = sorted(row["attention_mask"].sum() for row in rows)[:2]
    assert len(rows) == 1 or sum(emptiest) > 20  # or they would have been one


def test_packing_is_the_same_every_time():
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 9, n) for n in rng.integers(1, 30, 50)]
    first, second = (tt.SequencePacker(32).pack(sequences) for _ in range(2))
    assert [row["input_ids"].tolist() for row in first] == [row["input_ids"].tolist() for row in second]


def test_labels_that_were_given_are_packed_with_their_ids():
    samples = [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, [4, 5]]
    (row,) = tt.SequencePacker(6).pack(samples)
    assert row["input_ids"].tolist() == [1, 2, 3, 4, 5, 0]
    assert row["labels"].tolist() == [-100, 2, 3, 4, 5, -100]


def test_packed_rows_are_batched_by_any_loader():
    rows = tt.SequencePacker(4).pack([[1, 2, 3], [4, 5], [6, 7]])
    (batch,) = tt.DataLoader(rows, 2)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0], [4, 5, 6, 7]]
    assert batch["documents"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 1]]
    assert batch["attention_mask"].dtype == tt.bool_ and batch["labels"].dtype == tt.int64


# ---- padding


@pytest.mark.parametrize(
    ("side", "ids", "labels", "mask"),
    [
        ("right", [[5, 0, 6], [7, 9, 9]], [[5, 0, 6], [7, -100, -100]], [[1, 1, 1], [1, 0, 0]]),
        ("left", [[5, 0, 6], [9, 9, 7]], [[5, 0, 6], [-100, -100, 7]], [[1, 1, 1], [0, 0, 1]]),
    ],
)
def test_sequences_are_padded_to_the_longest(side, ids, labels, mask):
    batch = tt.padded_collate(9, side)([[5, 0, 6], np.array([7], np.int32)])
    assert_array_equal(batch["input_ids"].numpy(), np.array(ids, np.int64), strict=True)
    assert_array_equal(batch["labels"].numpy(), np.array(labels, np.int64), strict=True)
    assert_array_equal(batch["attention_mask"].numpy(), np.array(mask, bool), strict=True)


@property_test
@given(sequences_of_ids, st.sampled_from(["right", "left"]))
def test_padding_changes_no_token_even_where_they_equal_it(sequences, side):
    batch = tt.padded_collate(3, side)(sequences)
    ids, labels, mask = (batch[name].numpy() for name in ("input_ids", "labels", "attention_mask"))
    assert [row[real].tolist() for row, real in zip(ids, mask)] == sequences
    assert_array_equal(labels, np.where(mask, ids, -100))


def test_labels_that_were_given_are_padded_with_their_ids():
    samples = [{"input_ids": [1, 2], "labels": [-100, 2]}, {"input_ids": tt.tensor([3])}]
    batch = tt.padded_collate()(samples)
    assert batch["labels"].tolist() == [[-100, 2], [3, -100]]


def test_labels_are_a_copy_and_not_a_view():
    batch = tt.padded_collate()([[1, 2]])
    batch["labels"].data[0, 0] = 5
    assert batch["input_ids"].tolist() == [[1, 2]]


def test_padded_positions_count_in_no_loss():
    batch = tt.padded_collate(0)([[1, 2, 3, 1], [2, 3]])
    logits = tt.tensor(np.random.default_rng(0).standard_normal((2, 4, 4)))
    loss = tt.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    scores = logits.numpy() - np.log(np.exp(logits.numpy()).sum(-1, keepdims=True))
    expected = [scores[0, 0, 2], scores[0, 1, 3], scores[0, 2, 1], scores[1, 0, 3]]
    assert loss.item() == pytest.approx(-np.mean(expected))


# ---- what cannot be


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ([], r"Sample 1 needs a row of at least one integer as input_ids, but got float64 of shape \(0,\)"),
        ([1.0], "row of at least one integer as input_ids, but got float64"),
        ("abc", "row of at least one integer as input_ids, but got <U3"),
        ([[1, 2]], r"of shape \(1, 2\)"),
        ({"labels": [1]}, r"Sample 1 needs 'input_ids' and at most 'labels' beside it, but has \['labels'\]"),
        ({"input_ids": [1], "attention_mask": [1]}, "sequences without padding: masks are made from their lengths"),
        ({"input_ids": [1, 2], "labels": [1]}, "Sample 1 needs a label for each of its 2 ids, but has 1"),
        ({"input_ids": [1, 2], "labels": [0.5, 1]}, "integer as labels, but got float64"),
    ],
)
@pytest.mark.parametrize("use", [lambda samples: tt.SequencePacker(4).pack(samples), tt.padded_collate()])
def test_samples_that_are_no_sequences_are_refused_by_number(use, sample, message):
    with pytest.raises(ValueError, match=message):
        use([[1], sample])


def test_a_sample_is_a_copy():
    ids = np.array([1, 2])
    sample = token_sample(ids)
    sample["input_ids"][0] = sample["labels"][1] = 9
    assert ids.tolist() == [1, 2]
    assert [sample["input_ids"].tolist(), sample["labels"].tolist()] == [[9, 2], [1, 9]]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="max_length needs an integer of at least 1, but got 0"):
        tt.SequencePacker(0)
    with pytest.raises(ValueError, match="SequencePacker needs at least one sequence, but got none"):
        tt.SequencePacker(4).pack([])
    with pytest.raises(ValueError, match="padding_side needs to be 'right' or 'left', but got 'both'"):
        tt.padded_collate(padding_side="both")
