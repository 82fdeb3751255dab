"""Module 08: a loader hands out every sample once per pass, in an order that its generator alone decides."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import tinytorch as tt

property_test = settings(deadline=None, derandomize=True, max_examples=60)


def numbers(n):
    return tt.TensorDataset(tt.arange(n))


def one_pass(loader):
    """The samples of a pass over `numbers`, batch by batch."""
    return [batch.tolist() for (batch,) in loader]


def flat(batches):
    return [sample for batch in batches for sample in batch]


def loader_of(n, batch_size=1, seed=0, **options):
    return tt.DataLoader(numbers(n), batch_size, generator=tt.Generator(seed), **options)


# ---- batches


@property_test
@given(st.integers(1, 40), st.integers(1, 45), st.booleans(), st.integers(0, 5))
def test_every_sample_comes_once_per_pass(n, batch_size, shuffle, seed):
    loader = loader_of(n, batch_size, seed, shuffle=shuffle)
    for _ in range(2):
        batches = one_pass(loader)
        assert sorted(flat(batches)) == list(range(n))
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert len(batches) == len(loader) == math.ceil(n / batch_size)


@property_test
@given(st.integers(1, 40), st.data(), st.booleans())
def test_drop_last_leaves_full_batches_only(n, data, shuffle):
    batch_size = data.draw(st.integers(1, n))
    loader = loader_of(n, batch_size, shuffle=shuffle, drop_last=True)
    batches = one_pass(loader)
    assert [len(batch) for batch in batches] == [batch_size] * (n // batch_size) and len(loader) == n // batch_size
    assert max(Counter(flat(batches)).values()) == 1


def test_without_shuffling_samples_come_in_order():
    assert one_pass(loader_of(7, 3)) == [[0, 1, 2], [3, 4, 5], [6]]


# ---- the order


@pytest.mark.exercise("ex-08-4", points=2)
def test_the_order_depends_on_the_generator_alone():
    tt.manual_seed(1)
    first, again = loader_of(20, 3, seed=4, shuffle=True), loader_of(20, 3, seed=4, shuffle=True)
    orders = one_pass(first), one_pass(first)
    tt.manual_seed(2)
    tt.rand(5)
    assert (one_pass(again), one_pass(again)) == orders
    assert one_pass(loader_of(20, 3, seed=5, shuffle=True)) != orders[0]
    assert orders[0] != orders[1]


def test_the_batch_size_does_not_change_the_order():
    assert flat(one_pass(loader_of(20, 3, shuffle=True))) == flat(one_pass(loader_of(20, 7, shuffle=True)))


def test_a_loader_without_its_own_generator_follows_manual_seed():
    loader = tt.DataLoader(numbers(20), 4, shuffle=True)
    tt.manual_seed(3)
    order = one_pass(loader)
    tt.manual_seed(3)
    assert one_pass(loader) == order


@pytest.mark.parametrize("shuffle", [True, False])
def test_no_other_random_numbers_are_drawn(shuffle):
    generator = tt.Generator(0)
    loader = tt.DataLoader(numbers(9), 2, shuffle=shuffle, generator=generator)
    before, own = tt.device.default_generator.get_state(), generator.get_state()
    one_pass(loader)
    assert tt.device.default_generator.get_state() == before
    assert (generator.get_state() == own) is not shuffle


def test_every_order_is_as_likely_as_any_other():
    loader = loader_of(3, 3, shuffle=True)
    orders = Counter(str(one_pass(loader)) for _ in range(1200))
    assert len(orders) == 6
    assert all(140 < count < 260 for count in orders.values())  # 200 expected, with a deviation of 13


# ---- samples to batches


class Samples(tt.Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        assert type(index) is int  # so that a dataset may use it as a key, or in a file name
        return self.samples[index]


def batch_of(*samples):
    (batch,) = tt.DataLoader(Samples(samples), batch_size=len(samples))
    return batch


@pytest.mark.exercise("ex-08-5", points=3)
@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([1, 2, 3], np.array([1, 2, 3])),
        ([0.5, 1.5], np.array([0.5, 1.5], np.float32)),
        ([True, False], np.array([True, False])),
        ([np.float64(0.1), np.float64(0.2)], np.array([0.1, 0.2])),
        ([tt.ones(2, 3), tt.zeros(2, 3)], np.stack([np.ones((2, 3)), np.zeros((2, 3))]).astype(np.float32)),
        ([np.array([1, 2]), np.array([3, 4])], np.array([[1, 2], [3, 4]])),
    ],
    ids=["integers", "floats", "booleans", "float64", "tensors", "arrays"],
)
def test_samples_are_stacked_to_a_tensor(samples, expected):
    batch = batch_of(*samples)
    assert isinstance(batch, tt.Tensor)
    assert_array_equal(batch.numpy(), expected, strict=True)


@pytest.mark.exercise("ex-08-5", points=3)
def test_tuples_are_batched_by_column_however_deep():
    x, (y, z) = batch_of((tt.ones(2), (1, 0.5)), [tt.zeros(2), [2, 1.5]])
    assert_array_equal(x.numpy(), [[1, 1], [0, 0]])
    assert (y.tolist(), z.tolist()) == ([1, 2], [0.5, 1.5])


def test_a_collate_function_gets_the_list_of_samples():
    loader = tt.DataLoader(Samples("abcde"), 2, collate_fn="".join)
    assert list(loader) == ["ab", "cd", "e"]


def test_a_collate_function_gets_the_samples_of_a_tensor_dataset_one_by_one():
    loader = tt.DataLoader(numbers(3), 2, collate_fn=lambda samples: [x.item() for (x,) in samples])
    assert list(loader) == [[0, 1], [2]]


@pytest.mark.exercise("ex-08-5", points=3)
@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([tt.ones(2), tt.ones(3)], ValueError, r"stack .*\(2,\).*\(3,\)"),
        ([(1, 2), (1, 2, 3)], ValueError, r"2.*3"),
        (["a", "b"], TypeError, "floats, integers or booleans"),
    ],
    ids=["shapes", "lengths", "text"],
)
def test_samples_that_do_not_make_a_batch_are_refused(samples, error, message):
    with pytest.raises(error, match=message):
        batch_of(*samples)


# ---- datasets


@pytest.mark.exercise("ex-08-1", points=1)
def test_a_tensor_dataset_gives_rows_of_all_its_tensors():
    x, y = tt.tensor(np.arange(8).reshape(4, 2)), tt.tensor([10, 11, 12, 13])
    data = tt.TensorDataset(x, y)
    assert len(data) == 4
    row, label = data[2]
    assert (row.tolist(), label.item()) == ([4, 5], 12)


@pytest.mark.exercise("ex-08-1", points=1)
@pytest.mark.parametrize(
    "index", [np.array([3, 0, 0]), [3, 0, 0], tt.tensor([3, 0, 0])], ids=["array", "list", "tensor"]
)
def test_an_array_of_numbers_picks_a_whole_batch(index):
    rows, labels = tt.TensorDataset(tt.tensor(np.arange(8).reshape(4, 2)), tt.arange(4))[index]
    assert rows.tolist() == [[6, 7], [0, 1], [0, 1]]
    assert labels.tolist() == [3, 0, 0]


def test_a_loader_picks_each_batch_of_a_tensor_dataset_at_once():
    class Counted(tt.TensorDataset):
        picks_arrays, picks = True, 0

        def __getitem__(self, index):
            self.picks += 1
            return super().__getitem__(index)

    data = Counted(tt.arange(10), tt.ones(10, 2))
    batches = list(tt.DataLoader(data, 4, shuffle=True, generator=tt.Generator(0)))
    assert data.picks == len(batches) == 3
    assert [batch[1].shape for batch in batches] == [(4, 2), (4, 2), (2, 2)]


class Doubled(tt.TensorDataset):
    """One sample at a time, made from a row: this cannot be done with a batch of rows."""

    def __getitem__(self, index):
        (x,) = super().__getitem__(index)
        return (x.item() * 2,)


class DoubledAgain(Doubled):
    pass


class OneByOne:
    def __getitem__(self, index):
        (x,) = super().__getitem__(index)
        return (x.item() * 2,)


class Mixed(OneByOne, tt.TensorDataset):
    pass


class DoubledPart(tt.Subset):
    def __getitem__(self, index):
        (x,) = super().__getitem__(index)
        return (x.item() * 2,)


@pytest.mark.parametrize(
    "data",
    [Doubled(tt.arange(3)), DoubledAgain(tt.arange(3)), Mixed(tt.arange(3)), DoubledPart(numbers(5), [0, 1, 2])],
    ids=lambda data: type(data).__name__,
)
def test_a_subclass_with_a_getitem_of_its_own_is_asked_for_one_sample_at_a_time(data):
    assert one_pass(tt.DataLoader(data, 2)) == [[0, 2], [4]]
    assert one_pass(tt.DataLoader(tt.Subset(data, [2, 1]), 2)) == [[4, 2]]


def test_a_subclass_that_changes_nothing_about_picking_still_picks_whole_batches():
    class Named(tt.TensorDataset):
        name = "digits"

    assert Named(tt.arange(3)).picks_arrays is True
    assert tt.Subset(Named(tt.arange(3)), [0]).picks_arrays is True


@pytest.mark.exercise("ex-08-1", points=1)
def test_rows_stay_together_when_shuffled():
    data = tt.TensorDataset(tt.arange(30), tt.arange(30) * 7)
    for x, y in tt.DataLoader(data, 4, shuffle=True, generator=tt.Generator(0)):
        assert_array_equal(y.numpy(), 7 * x.numpy())


def test_a_batch_is_not_a_view_of_the_data():
    x = tt.arange(6)
    (batch,) = next(iter(tt.DataLoader(tt.TensorDataset(x), 3)))
    batch.data[...] = -1
    assert x.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("method", "call"), [("__len__", len), ("__getitem__", lambda data: data[0])])
def test_a_dataset_says_which_method_is_missing(method, call):
    class Empty(tt.Dataset):
        pass

    with pytest.raises(NotImplementedError, match=f"Empty needs a {method} method"):
        call(Empty())


# ---- stopping within a pass


def test_a_pass_that_was_left_early_does_not_shorten_the_next():
    loader = loader_of(10, 3)
    next(iter(loader))
    assert one_pass(loader) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_two_passes_at_once_do_not_disturb_each_other():
    loader = loader_of(12, 3, shuffle=True)
    first, second = zip(*((a.tolist(), b.tolist()) for (a,), (b,) in zip(loader, loader)))
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(12))
    assert first != second


# ---- what is refused


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, None, "4"])
def test_a_batch_size_that_is_no_positive_integer_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size needs an integer of at least 1, but got {batch_size!r}"):
        tt.DataLoader(numbers(4), batch_size)


def test_an_integer_of_numpy_is_a_batch_size():
    assert one_pass(loader_of(4, np.int64(3))) == [[0, 1, 2], [3]]


@pytest.mark.parametrize("dataset", [[], tt.TensorDataset(tt.zeros(0, 3))], ids=["list", "tensors"])
def test_an_empty_dataset_is_refused(dataset):
    with pytest.raises(ValueError, match="at least one sample, but got an empty one"):
        tt.DataLoader(dataset)


def test_dropping_the_only_batch_is_refused():
    with pytest.raises(ValueError, match="3 samples make no full batch of 4"):
        tt.DataLoader(numbers(3), 4, drop_last=True)


@pytest.mark.parametrize(
    ("tensors", "message"), [([], r"lengths \[\]"), ([tt.ones(3), tt.ones(4, 3)], r"lengths \[3, 4\]")]
)
def test_tensors_of_unequal_length_are_refused(tensors, message):
    with pytest.raises(ValueError, match=message):
        tt.TensorDataset(*tensors)


def test_a_tensor_without_rows_is_refused():
    with pytest.raises(TypeError, match="without axes has no length"):
        tt.TensorDataset(tt.tensor(1.0))
