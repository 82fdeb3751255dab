"""Module 08: ranks agree on one order, share nothing but the padding, and together have seen everything."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt

property_test = settings(deadline=None, derandomize=True, max_examples=80)
LENGTHS = np.random.default_rng(0).integers(1, 40, 90)


def dealt(n, ranks, epoch=0, **options):
    """What each rank gets of n samples."""
    samplers = [tt.DistributedSampler(n, ranks, rank, **options) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


def batches_dealt(ranks, epoch=0, build=lambda: tt.DynamicBatchSampler(LENGTHS, 4), **options):
    """What each rank gets of the batches; it has a batch sampler of its own, as in a process of its own."""
    samplers = [tt.DistributedBatchSampler(build(), ranks, rank, **options) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


def counted(parts):
    return Counter(tuple(x) if isinstance(x, list) else x for part in parts for x in part)


# ---- samples


def test_two_ranks_share_no_sample_of_twenty():
    first, second = dealt(20, 2)
    assert set(first) & set(second) == set()
    assert sorted(first + second) == list(range(20))


@property_test
@given(st.integers(1, 50), st.integers(1, 7), st.booleans(), st.integers(0, 3))
def test_every_rank_gets_as_many_and_only_the_padding_is_repeated(n, ranks, shuffle, epoch):
    parts = dealt(n, ranks, epoch, shuffle=shuffle)
    sampler = tt.DistributedSampler(n, ranks, 0)
    counts = counted(parts)
    assert {len(part) for part in parts} == {len(sampler)} == {-(-n // ranks)}
    assert set(counts) == set(range(n))
    assert counts.total() - n == sampler.padding == -n % ranks


@property_test
@given(st.integers(7, 50), st.integers(1, 7))
def test_with_drop_last_nothing_is_repeated_and_the_rest_left_out(n, ranks):
    parts = dealt(n, ranks, drop_last=True)
    assert {len(part) for part in parts} == {n // ranks}
    assert set(counted(parts).values()) == {1}
    assert tt.DistributedSampler(n, ranks, 0, drop_last=True).padding == 0


@pytest.mark.oracle
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("n", "ranks"), [(20, 2), (7, 3), (8, 3), (3, 2), (4, 4), (2, 5)])
def test_samples_are_dealt_as_in_pytorch(n, ranks, drop_last):
    torch = pytest.importorskip("torch")
    if drop_last and n < ranks:
        n = ranks
    settings = {"shuffle": False, "drop_last": drop_last}
    theirs = [torch.utils.data.DistributedSampler(range(n), ranks, rank, **settings) for rank in range(ranks)]
    assert dealt(n, ranks, **settings) == [list(sampler) for sampler in theirs]


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): str(dealt(20, 2, epoch, seed=seed)) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9  # seed 0 in epoch 1 is not seed 1 in epoch 0
    tt.manual_seed(5)
    assert str(dealt(20, 2, epoch=1, seed=2)) == orders[2, 1]
    sampler = tt.DistributedSampler(range(20), 2, 0)
    assert list(sampler) == list(sampler)  # until set_epoch names another


def test_no_other_random_numbers_are_drawn():
    before = tt.device.default_generator.get_state()
    dealt(20, 2)
    batches_dealt(2)
    assert tt.device.default_generator.get_state() == before


def test_a_dataset_is_as_good_as_its_length():
    for dataset in "abcdefgh", np.int64(8):
        assert list(tt.DistributedSampler(dataset, 2, 1)) == list(tt.DistributedSampler(8, 2, 1))


def test_a_joint_batch_of_all_ranks_is_one_batch_of_one_process():
    alone = tt.DataLoader(range(24), 6, sampler=tt.DistributedSampler(24, 1, 0))
    ranks = [tt.DataLoader(range(24), 3, sampler=tt.DistributedSampler(24, 2, rank)) for rank in range(2)]
    for whole, *parts in zip(alone, *ranks):
        assert sorted(whole.tolist()) == sorted(i for part in parts for i in part.tolist())


# ---- batches


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 30])
@pytest.mark.parametrize("epoch", [0, 1])
def test_whole_batches_are_dealt(ranks, epoch):
    parts = batches_dealt(ranks, epoch)
    padding = tt.DistributedBatchSampler(tt.DynamicBatchSampler(LENGTHS, 4), ranks, 0).padding
    counts = counted(parts)
    assert len({len(part) for part in parts}) == 1
    assert counts.total() - len(counts) == padding == -23 % ranks
    assert sorted(i for batch in counts for i in batch) == list(range(len(LENGTHS)))


def test_ranks_agree_whatever_their_own_generators_did_before():
    ours, (_, theirs) = batches_dealt(2, epoch=3, seed=1), batches_dealt(2, epoch=3, seed=1)
    assert theirs == ours[1]
    worn = tt.DynamicBatchSampler(LENGTHS, 4, generator=tt.Generator(9))
    list(worn)
    sampler = tt.DistributedBatchSampler(worn, 2, 0, seed=1)
    sampler.set_epoch(3)
    state = worn.generator.get_state()
    assert list(sampler) == ours[0]
    assert worn.generator.get_state() == state


def test_every_epoch_and_seed_has_other_batches():
    contents = [counted(batches_dealt(2, epoch, seed=seed)).keys() for seed in range(2) for epoch in range(2)]
    assert all(a != b for i, a in enumerate(contents) for b in contents[:i])


def test_batches_keep_to_their_limits():
    for part in batches_dealt(2, build=lambda: tt.DynamicBatchSampler(LENGTHS, max_tokens=120)):
        assert max(len(batch) * LENGTHS[batch].max() for batch in part) <= 120


def test_without_shuffling_batches_come_in_turn():
    parts = batches_dealt(2, build=lambda: [[0], [1, 2], [3], [4], [5]], shuffle=False)
    assert parts == [[[0], [3], [5]], [[1, 2], [4], [0]]]


def test_mixing_batches_of_one_is_as_fair_as_mixing_samples():
    """Were the batches mixed by the numbers that mixed the samples, some orders could never come."""
    build = lambda: tt.BatchSampler(tt.RandomSampler(range(3)), 1)
    orders = Counter(str(batches_dealt(1, epoch, build)) for epoch in range(1200))
    assert len(orders) == 6
    assert all(140 < count < 260 for count in orders.values())  # 200 expected, with a deviation of 13


def test_a_loader_follows_a_rank_of_a_batch_sampler():
    samples = [list(range(1, length + 1)) for length in LENGTHS]
    sampler = tt.DistributedBatchSampler(tt.DynamicBatchSampler(LENGTHS, 4), 2, 1)
    loader = tt.DataLoader(samples, batch_sampler=sampler, collate_fn=tt.padded_collate())
    shapes = [batch["input_ids"].shape for batch in loader]
    assert shapes == [(len(batch), LENGTHS[batch].max()) for batch in sampler]


# ---- what cannot be


@pytest.mark.parametrize("build", [lambda *a, **b: tt.DistributedSampler(4, *a, **b), tt.DistributedBatchSampler])
@pytest.mark.parametrize(
    ("ranks", "rank", "settings", "message"),
    [
        (2, 2, {}, "needs a rank from 0 to 1 where num_replicas=2, but got 2"),
        (2, -1, {}, "rank needs an integer of at least 0, but got -1"),
        (0, 0, {}, "num_replicas needs an integer of at least 1, but got 0"),
        (2, 0, {"seed": -1}, "seed needs an integer of at least 0, but got -1"),
        (2, 0, {"seed": 0.5}, "seed needs an integer of at least 0, but got 0.5"),
        (5, 0, {"drop_last": True}, "at least 5 to deal to 5 ranks with drop_last=True, but got 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(build, ranks, rank, settings, message):
    given = () if build is not tt.DistributedBatchSampler else ([[0], [1], [2], [3]],)
    with pytest.raises(ValueError, match=message):
        build(*given, ranks, rank, **settings)


def test_nothing_cannot_be_dealt():
    with pytest.raises(ValueError, match=r"DistributedSampler needs at least 1 to deal to 2 ranks .* but got 0"):
        tt.DistributedSampler([], 2, 0)


@pytest.mark.parametrize("epoch", [-1, 1.0, None, True])
def test_an_epoch_that_is_none_is_refused(epoch):
    with pytest.raises(ValueError, match=f"epoch needs an integer of at least 0, but got {epoch}"):
        tt.DistributedSampler(4, 2, 0).set_epoch(epoch)
