"""Module 08: subsets share nothing, samplers draw what they promise, and a loader follows them."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt

property_test = settings(deadline=None, derandomize=True, max_examples=60)


def numbers(n):
    return tt.TensorDataset(tt.arange(n))


def one_pass(loader):
    return [batch.tolist() for (batch,) in loader]


# ---- subsets


def test_a_subset_has_the_samples_at_its_indices_in_that_order():
    subset = tt.Subset(["a", "b", "c", "d"], [3, 1, 3])
    assert len(subset) == 3
    assert [subset[i] for i in range(3)] == ["d", "b", "d"]
    assert subset[-1] == "d"


def test_a_subset_asks_its_dataset_for_plain_integers():
    class Keyed(tt.Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            assert type(index) is int
            return index * 10

    assert [batch.tolist() for batch in tt.DataLoader(tt.Subset(Keyed(), np.array([4, 0])), 2)] == [[40, 0]]


def test_batches_of_a_subset_of_tensors_are_picked_at_once():
    class Counted(tt.TensorDataset):
        picks_arrays, picks = True, 0

        def __getitem__(self, index):
            self.picks += 1
            return super().__getitem__(index)

    data = Counted(tt.arange(10))
    nested = tt.Subset(tt.Subset(data, range(1, 10)), [8, 0, 2])
    assert one_pass(tt.DataLoader(nested, 3)) == [[9, 1, 3]]
    assert data.picks == 1


@pytest.mark.parametrize("index", [-1, 4, 10**9])
def test_a_subset_refuses_indices_that_are_not_there(index):
    with pytest.raises(IndexError, match=f"indices from 0 to 3, but got {index}"):
        tt.Subset(list("abcd"), [0, index])


@pytest.mark.exercise("ex-08-6", points=3)
@property_test
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 5))
def test_a_split_has_every_sample_in_one_part(lengths, seed):
    parts = tt.random_split(numbers(sum(lengths)), lengths, tt.Generator(seed))
    assert [len(part) for part in parts] == lengths
    assert sorted(i for part in parts for i in part.indices.tolist()) == list(range(sum(lengths)))


@pytest.mark.exercise("ex-08-6", points=3)
@pytest.mark.parametrize(
    ("n", "fractions", "lengths"),
    [
        (10, [0.7, 0.3], [7, 3]),
        (10, [0.75, 0.25], [8, 2]),
        (11, [0.25, 0.25, 0.5], [3, 3, 5]),
        (100, [1 / 3, 1 / 3, 1 / 3], [34, 33, 33]),
        (7, [1.0], [7]),
    ],
)
def test_fractions_are_rounded_down_and_the_first_parts_get_the_rest(n, fractions, lengths):
    assert [len(part) for part in tt.random_split(range(n), fractions)] == lengths


@pytest.mark.oracle
@property_test
@given(st.integers(5, 200), st.lists(st.floats(0.2, 1), min_size=1, max_size=4))
def test_fractions_give_pytorchs_lengths(n, weights):
    torch = pytest.importorskip("torch")
    fractions = [weight / sum(weights) for weight in weights]
    fractions[-1] = 1.0 - sum(fractions[:-1])
    if math.floor(n * min(fractions)) == 0 or sum(fractions) > 1:
        return
    theirs = torch.utils.data.random_split(range(n), fractions)
    assert [len(part) for part in tt.random_split(range(n), fractions)] == [len(part) for part in theirs]


@pytest.mark.exercise("ex-08-6", points=3)
def test_a_split_depends_on_the_generator_alone():
    def indices(seed):
        return [part.indices.tolist() for part in tt.random_split(numbers(20), [15, 5], tt.Generator(seed))]

    assert indices(1) == indices(1) != indices(2)
    tt.manual_seed(1)
    first = tt.random_split(numbers(20), [15, 5])[0].indices.tolist()
    assert first == indices(1)[0]


@pytest.mark.exercise("ex-08-6", points=3)
@pytest.mark.parametrize(
    "lengths", [[], [9], [5, 6], [10, 0], [11, -1], [0.5, 0.4], [0.6, 0.6], [5.0, 5.0], [1.0, 0.0]]
)
def test_lengths_that_do_not_make_up_the_dataset_are_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths above 0 that sum to 10.*or fractions that sum to 1.*but got \["):
        tt.random_split(range(10), lengths)


# ---- samplers


def test_a_sequential_sampler_counts():
    sampler = tt.SequentialSampler("abc")
    assert list(sampler) == list(sampler) == [0, 1, 2]
    assert len(sampler) == 3 and sampler.generator is None


@pytest.mark.exercise("ex-08-4", points=2)
def test_a_random_sampler_gives_each_sample_once_per_pass():
    sampler = tt.RandomSampler(range(5), generator=tt.Generator(0))
    assert len(sampler) == 5
    assert sorted(sampler) == sorted(sampler) == [0, 1, 2, 3, 4]


@pytest.mark.exercise("ex-08-4", points=2)
@property_test
@given(st.integers(1, 10), st.integers(1, 40))
def test_a_random_sampler_goes_round_before_it_repeats(n, num_samples):
    sampler = tt.RandomSampler(range(n), num_samples=num_samples, generator=tt.Generator(0))
    counts = Counter(sampler)
    assert len(sampler) == counts.total() == num_samples
    assert set(counts.values()) <= {num_samples // n, -(-num_samples // n)}
    assert all(type(number) is int for number in sampler)


@pytest.mark.exercise("ex-08-4", points=2)
def test_with_replacement_every_sample_is_as_likely_at_any_time():
    sampler = tt.RandomSampler(range(4), replacement=True, num_samples=4000, generator=tt.Generator(0))
    drawn = list(sampler)
    assert all(900 < count < 1100 for count in Counter(drawn).values())  # 1000 expected, with a deviation of 27
    assert 200 < sum(a == b for a, b in zip(drawn, drawn[4:])) / 4 < 300  # the next pass knows nothing of this one


@pytest.mark.exercise("ex-08-7", points=2)
def test_weights_are_chances():
    drawn = Counter(tt.WeightedRandomSampler([1, 0, 3], 4000, generator=tt.Generator(0)))
    assert drawn[1] == 0 and drawn.total() == 4000
    assert 890 < drawn[0] < 1110  # 1000 expected, with a deviation of 27


@pytest.mark.exercise("ex-08-7", points=2)
def test_without_replacement_the_first_is_drawn_by_weight_and_the_second_from_the_rest():
    sampler = tt.WeightedRandomSampler([1, 2, 3], 2, replacement=False, generator=tt.Generator(0))
    pairs = Counter(tuple(sampler) for _ in range(6000))
    for (first, second), count in pairs.items():
        weight = (first + 1) / 6 * (second + 1) / (6 - first - 1)
        assert count == pytest.approx(6000 * weight, abs=5 * math.sqrt(6000 * weight))
    assert len(pairs) == 6


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [1, math.nan], [1, math.inf], [[1, 2]]], ids=str)
def test_weights_that_are_no_chances_are_refused(weights):
    with pytest.raises(ValueError, match="a row of finite weights of at least 0, not all 0"):
        tt.WeightedRandomSampler(weights, 2)


def test_more_samples_than_there_are_cannot_be_drawn_without_replacement():
    with pytest.raises(ValueError, match="num_samples of at most 2, the number of weights above 0, but got 3"):
        tt.WeightedRandomSampler([1, 0, 1], 3, replacement=False)


@pytest.mark.parametrize(
    "build", [lambda n: tt.RandomSampler(range(3), num_samples=n), lambda n: tt.WeightedRandomSampler([1], n)]
)
@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_a_number_of_samples_that_is_none_is_refused(build, n):
    with pytest.raises(ValueError, match=f"num_samples needs an integer of at least 1, but got {n}"):
        build(n)


@pytest.mark.exercise("ex-08-2", points=1)
@pytest.mark.parametrize(
    ("n", "drop_last", "expected"),
    [(6, False, 2), (7, False, 3), (8, False, 3), (2, False, 1), (6, True, 2), (8, True, 2), (2, True, 0)],
)
def test_a_batch_sampler_counts_its_batches_of_three(n, drop_last, expected):
    assert len(tt.BatchSampler(range(n), 3, drop_last)) == expected


@pytest.mark.exercise("ex-08-2", points=1)
@pytest.mark.exercise("ex-08-3", points=2)
@pytest.mark.parametrize(
    ("drop_last", "expected"), [(False, [[0, 1, 2], [3, 4, 5], [6]]), (True, [[0, 1, 2], [3, 4, 5]])]
)
def test_a_batch_sampler_cuts_batches(drop_last, expected):
    sampler = tt.BatchSampler(tt.SequentialSampler(range(7)), 3, drop_last)
    assert list(sampler) == expected
    assert len(sampler) == len(expected)


@pytest.mark.parametrize(("method", "call"), [("a __len__", len), ("an __iter__", list)])
def test_a_sampler_says_which_method_is_missing(method, call):
    class Empty(tt.Sampler):
        pass

    with pytest.raises(NotImplementedError, match=f"Empty needs {method} method"):
        call(Empty())


# ---- loaders that follow them


def test_a_loader_follows_its_sampler():
    assert one_pass(tt.DataLoader(numbers(10), 2, sampler=[9, 0, 9, 4, 5])) == [[9, 0], [9, 4], [5]]
    loader = tt.DataLoader(numbers(10), 2, sampler=[9, 0, 9], drop_last=True)
    assert one_pass(loader) == [[9, 0]] and len(loader) == 1 and loader.batch_size == 2


def test_a_loader_follows_its_batch_sampler():
    loader = tt.DataLoader(numbers(10), batch_sampler=[[3], [1, 2, 1]])
    assert one_pass(loader) == one_pass(loader) == [[3], [1, 2, 1]]
    assert len(loader) == 2 and loader.batch_size is None


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_loaders_generator_is_that_of_its_sampler(wrapped):
    sampler = tt.WeightedRandomSampler([1, 2, 3], 6, generator=tt.Generator(3))
    given = {"batch_sampler": tt.BatchSampler(sampler, 2)} if wrapped else {"sampler": sampler}
    assert tt.DataLoader(numbers(3), **given).generator is sampler.generator


def test_shuffling_is_a_random_sampler():
    loader = tt.DataLoader(numbers(9), 2, shuffle=True, generator=tt.Generator(4))
    sampler = tt.RandomSampler(numbers(9), generator=tt.Generator(4))
    assert one_pass(loader) == list(tt.BatchSampler(sampler, 2))


def test_the_order_of_a_pass_is_drawn_when_it_begins():
    generator = tt.Generator(0)
    loader = tt.DataLoader(numbers(9), 2, shuffle=True, generator=generator)
    batches = iter(loader)
    drawn = generator.get_state()
    list(batches)
    assert generator.get_state() == drawn


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": [0], "shuffle": True}, "shuffle or a sampler, but got both: tell it the sampler"),
        ({"sampler": [0], "generator": tt.Generator(0)}, "generator or a sampler, but got both"),
        ({"batch_sampler": [[0]], "sampler": [0]}, "sampler or a batch_sampler, but got both"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "batch_size or a batch_sampler, but got both"),
        ({"batch_sampler": [[0]], "shuffle": True, "drop_last": True}, "shuffle and drop_last or a batch_sampler"),
        ({"sampler": iter([0])}, "a sampler that knows how much it gives: add a __len__ method"),
        ({"batch_sampler": iter([[0]])}, "a batch_sampler that knows how much it gives"),
        ({"sampler": [0, 1], "batch_size": 3, "drop_last": True}, "2 samples make no full batch of 3"),
        ({"prefetch": -1}, "prefetch needs an integer of at least 1, but got -1"),
        ({"prefetch": 1.5}, "prefetch needs an integer of at least 1, but got 1.5"),
        ({"prefetch": True}, "prefetch needs an integer of at least 1, but got True"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tt.DataLoader(numbers(4), **settings)


# ---- samples that are dicts


@pytest.mark.exercise("ex-08-5", points=3)
def test_dicts_are_batched_by_key():
    data = [
        {"x": tt.ones(2), "label": 1, "part": {"y": (0.5, True)}},
        {"label": 0, "x": tt.zeros(2), "part": {"y": (1.5, False)}},
    ]
    (batch,) = tt.DataLoader(data, 2)
    assert list(batch) == ["x", "label", "part"]
    assert batch["x"].tolist() == [[1, 1], [0, 0]]
    assert batch["label"].tolist() == [1, 0]
    assert [column.tolist() for column in batch["part"]["y"]] == [[0.5, 1.5], [True, False]]


@pytest.mark.exercise("ex-08-5", points=3)
@pytest.mark.parametrize("other", [{"x": 1}, {"x": 1, "y": 2, "z": 3}, {"x": 1, "z": 2}, 5], ids=str)
def test_dicts_with_other_keys_are_refused(other):
    with pytest.raises((ValueError, TypeError), match=r"the same keys|not iterable"):
        tt.default_collate([{"x": 1, "y": 2}, other])
