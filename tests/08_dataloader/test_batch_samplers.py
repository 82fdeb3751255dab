"""Module 08: batches of like length keep to their limits, lose no sample, and say exactly how many they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt

property_test = settings(deadline=None, derandomize=True, max_examples=80)
LENGTHS = np.random.default_rng(0).lognormal(4, 0.8, 500).astype(int) + 1  # many short ones and a few long ones


def places(batches, lengths):
    """How many places the batches have once they are padded."""
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)


# ---- what every setting promises


@property_test
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=60),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(30, 90),
    st.integers(1, 5),
    st.booleans(),
)
def test_every_sample_comes_once_per_pass_within_the_limits(lengths, batch_size, max_tokens, per_bucket, shuffle):
    if batch_size is None and max_tokens is None:
        batch_size = 3
    sampler = tt.DynamicBatchSampler(
        lengths, batch_size, max_tokens, batches_per_bucket=per_bucket, shuffle=shuffle, generator=tt.Generator(0)
    )
    for _ in range(2):
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        assert all(type(i) is int for batch in batches for i in batch)
        assert batch_size is None or max(map(len, batches)) <= batch_size
        assert max_tokens is None or max(places([batch], lengths) for batch in batches) <= max_tokens


@pytest.mark.parametrize(
    ("n", "drop_last", "sizes"), [(10, False, [4, 4, 2]), (10, True, [4, 4]), (8, True, [4, 4]), (8, False, [4, 4])]
)
def test_only_the_last_batch_of_a_fixed_size_is_shorter(n, drop_last, sizes):
    sampler = tt.DynamicBatchSampler(range(1, n + 1), 4, drop_last=drop_last, batches_per_bucket=1)
    assert len(sampler) == len(sizes)
    assert sorted(map(len, sampler), reverse=True) == sizes


# ---- by hand


def test_without_shuffling_the_longest_come_first():
    sampler = tt.DynamicBatchSampler([3, 9, 1, 7, 9], batch_size=2, shuffle=False)
    assert list(sampler) == list(sampler) == [[1, 4], [3, 0], [2]]
    assert sampler.generator is None


def test_a_budget_gives_more_rows_where_they_are_shorter():
    lengths = [6, 6, 6, 3, 3, 3, 3, 2]
    sampler = tt.DynamicBatchSampler(lengths, max_tokens=12, batches_per_bucket=1, shuffle=False)
    assert list(sampler) == [[0, 1], [2, 3], [4, 5, 6, 7]]


def test_both_limits_hold_together():
    lengths = [6, 6, 1, 1, 1, 1, 1]
    sampler = tt.DynamicBatchSampler(lengths, 3, 12, batches_per_bucket=1, shuffle=False)
    assert list(sampler) == [[0, 1], [2, 3, 4], [5, 6]]


# ---- how much is padding


@pytest.mark.parametrize("limits", [{"batch_size": 8}, {"max_tokens": 2000}, {"batch_size": 16, "max_tokens": 2000}])
def test_far_less_is_padding_than_in_random_batches(limits):
    sampler = tt.DynamicBatchSampler(LENGTHS, **limits, generator=tt.Generator(0))
    batches = list(sampler)
    at_random = np.array_split(np.random.default_rng(1).permutation(len(LENGTHS)), len(batches))
    assert LENGTHS.sum() / places(batches, LENGTHS) > 0.8
    assert LENGTHS.sum() / places(at_random, LENGTHS) < 0.5


def test_a_budget_is_used_up():
    sampler = tt.DynamicBatchSampler(LENGTHS, max_tokens=2000, batches_per_bucket=1, generator=tt.Generator(0))
    assert places(sampler, LENGTHS) > 0.85 * 2000 * len(sampler)


# ---- the order


def test_the_order_depends_on_the_generator_alone():
    def orders(seed):
        sampler = tt.DynamicBatchSampler(LENGTHS, 8, generator=tt.Generator(seed))
        return list(sampler), list(sampler)

    first, second = orders(1)
    assert orders(1) == (first, second)
    assert first != second and first != orders(2)[0]


def test_a_pass_mixes_the_batches_and_who_is_in_them():
    sampler = tt.DynamicBatchSampler(np.arange(1, 101), 5, generator=tt.Generator(0))
    first, second = list(sampler), list(sampler)
    longest = [max(batch) for batch in first]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_equal_lengths_meet_everybody_of_their_length():
    sampler = tt.DynamicBatchSampler([5] * 12, 2, batches_per_bucket=1, generator=tt.Generator(0))
    neighbours = {frozenset(batch) for _ in range(100) for batch in sampler}
    assert len(neighbours) == 12 * 11 / 2


def test_its_generator_is_the_loaders_so_that_training_resumes():
    sampler = tt.DynamicBatchSampler([2, 1, 3], 2, generator=tt.Generator(0))
    loader = tt.DataLoader([[1, 2], [3], [4, 5, 6]], batch_sampler=sampler, collate_fn=tt.padded_collate())
    assert loader.generator is sampler.generator
    state = loader.generator.get_state()
    first = [batch["input_ids"].tolist() for batch in loader]
    loader.generator.set_state(state)
    assert [batch["input_ids"].tolist() for batch in loader] == first


# ---- what cannot be


@pytest.mark.parametrize(
    ("lengths", "settings", "message"),
    [
        ([1], {}, "needs batch_size, max_tokens, or both, but got neither"),
        ([4, 600, 600], {"max_tokens": 512}, "Sample 1 has 600 tokens, but max_tokens=512 is the most"),
        ([4, 0], {"batch_size": 1}, "lengths of at least 1, but sample 1 has 0"),
        ([], {"batch_size": 1}, r"a row of integers, .* shape \(0,\)"),
        ([1.5], {"batch_size": 1}, "a row of integers, .* float64"),
        ([[1, 2]], {"batch_size": 1}, r"a row of integers, .* shape \(1, 2\)"),
        ([1], {"batch_size": 0}, "batch_size needs an integer of at least 1, but got 0"),
        ([1], {"max_tokens": 2.5}, "max_tokens needs an integer of at least 1, but got 2.5"),
        ([1], {"batch_size": 1, "batches_per_bucket": 0}, "batches_per_bucket needs an integer of at least 1"),
        ([1, 1], {"batch_size": 3, "drop_last": True}, "2 samples make no full batch, and drop_last drops the rest"),
    ],
)
def test_settings_that_cannot_be_are_refused(lengths, settings, message):
    with pytest.raises(ValueError, match=message):
        tt.DynamicBatchSampler(lengths, **settings)
