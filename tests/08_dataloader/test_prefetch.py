"""Module 08: batches that a thread prepares ahead are the same batches, in the same order, at the same seed."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import tinytorch as tt

property_test = settings(deadline=None, derandomize=True, max_examples=40)


class Watched(tt.Dataset):
    """The numbers below n, which notes what was asked for and by which thread; one of them may be broken."""

    def __init__(self, n, broken=None):
        self.n, self.broken, self.asked, self.threads = n, broken, [], set()

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.asked.append(index)
        self.threads.add(threading.current_thread().name)
        if index == self.broken:
            raise OSError(f"sample {index} cannot be read")
        return index


def prefetching():
    """The threads that go on after a pass that ended: nobody waits for them, so they are given a moment."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    for thread in threads:
        thread.join(timeout=60)
    return [thread for thread in threads if thread.is_alive()]


def one_pass(loader):
    return [batch.tolist() for batch in loader]


@property_test
@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 9), st.booleans())
def test_batches_and_their_order_are_the_same(n, batch_size, prefetch, shuffle):
    plain = tt.DataLoader(range(n), batch_size, shuffle, generator=tt.Generator(7))
    ahead = tt.DataLoader(range(n), batch_size, shuffle, generator=tt.Generator(7), prefetch=prefetch)
    for _ in range(2):
        assert one_pass(plain) == one_pass(ahead)
    assert plain.generator.get_state() == ahead.generator.get_state()
    assert prefetching() == []


def test_a_thread_of_its_own_prepares_them():
    data = Watched(6)
    assert one_pass(tt.DataLoader(data, 2, prefetch=2)) == [[0, 1], [2, 3], [4, 5]]
    assert data.asked == [0, 1, 2, 3, 4, 5]
    assert len(data.threads) == 1 and data.threads.pop().startswith("prefetch")


def test_it_is_as_far_ahead_as_asked_and_no_further():
    reached = threading.Event()

    class Waited(Watched):
        def __getitem__(self, index):
            if index == 3:
                reached.set()
            return super().__getitem__(index)

    data = Waited(20)
    batches = iter(tt.DataLoader(data, prefetch=3))
    next(batches)
    assert reached.wait(timeout=60)  # while nobody asks for it
    batches.close()
    assert prefetching() == []
    assert data.asked == [0, 1, 2, 3]


def test_an_error_is_raised_where_its_batch_would_have_come():
    batches = iter(tt.DataLoader(Watched(10, broken=5), 2, prefetch=4))
    assert [next(batches).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="sample 5 cannot be read"):
        next(batches)
    assert prefetching() == []
    assert list(batches) == []


def test_leaving_early_ends_the_thread():
    data = Watched(1000)
    for batch in tt.DataLoader(data, prefetch=2):
        if batch.item() == 3:
            break
    assert prefetching() == []
    asked = len(data.asked)
    assert asked <= 7
    loader = tt.DataLoader(data, prefetch=2)
    assert next(iter(loader)).item() == 0  # and the next pass begins at the beginning
    assert prefetching() == []


def test_what_was_still_wanted_of_a_pass_that_was_left_is_not_made():
    left = threading.Event()

    class Waiting(Watched):
        def __getitem__(self, index):
            assert index == 0 or left.wait(timeout=60)
            return super().__getitem__(index)

    data = Waiting(100)
    batches = iter(tt.DataLoader(data, prefetch=50))
    next(batches)
    batches.close()
    left.set()
    assert prefetching() == []
    assert data.asked in ([0], [0, 1])


def test_an_error_in_the_loop_ends_the_thread():
    with pytest.raises(ZeroDivisionError):
        for _ in tt.DataLoader(Watched(100), prefetch=2):
            1 / 0  # noqa: B018
    assert prefetching() == []


def test_a_pass_that_the_garbage_collector_drops_waits_for_nothing():
    """The last reader may be the thread itself, or one that holds any lock: reading goes on, and the thread ends."""
    loader = tt.DataLoader(range(64), 4, prefetch=2)
    threshold = gc.get_threshold()
    gc.set_threshold(1)  # only makes a rare moment frequent
    try:
        for _ in range(50):
            left = {"pass": iter(loader)}
            left["itself"] = left  # a cycle, as around a trainer that raised
            assert next(left["pass"]).tolist() == [0, 1, 2, 3]
            del left
            assert len(one_pass(loader)) == 16
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert prefetching() == []


def test_a_dataset_is_read_by_one_thread_at_a_time():
    """A file has one place: the thread of a pass that was left may still read when the next one begins."""
    reading, entered = threading.Event(), threading.Event()

    class Slow(Watched):
        def __getitem__(self, index):
            assert not reading.is_set()
            reading.set()
            if index == 1 and not entered.is_set():
                entered.set()
                closed.wait(timeout=60)
            reading.clear()
            return super().__getitem__(index)

    closed = threading.Event()
    loader = tt.DataLoader(Slow(8), prefetch=2)
    first = iter(loader)
    next(first)
    assert entered.wait(timeout=60)
    first.close()
    following = iter(loader)
    threading.Timer(0.05, closed.set).start()
    assert [batch.item() for batch in following] == list(range(8))
    assert prefetching() == []


def test_two_passes_at_once_do_not_disturb_each_other():
    loader = tt.DataLoader(range(6), 2, prefetch=2)
    assert [(a.tolist(), b.tolist()) for a, b in zip(loader, loader)] == [(b, b) for b in ([0, 1], [2, 3], [4, 5])]


def test_a_program_ends_while_batches_are_prepared():
    program = """
import tinytorch as tt
batches = iter(tt.DataLoader(range(100), 2, prefetch=3))
print(next(batches).tolist())
"""
    process = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout, process.stderr) == (0, "[0, 1]\n", "")


# ---- training, and resuming within a pass


def trainer(folder, prefetch, generator):
    """A small regression whose dropout and order draw from the same or from different generators."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((13, 3)).astype(np.float32)
    data = tt.TensorDataset(tt.tensor(x), tt.tensor(np.sin(x[:, :1])))
    sampler = tt.WeightedRandomSampler(np.arange(1, 14), 13, generator=generator)
    loader = tt.DataLoader(data, 3, sampler=sampler, prefetch=prefetch)
    model = tt.Sequential(tt.Linear(3, 6, generator=tt.Generator(1)), tt.Dropout(0.3), tt.Linear(6, 1))
    return tt.Trainer(
        model,
        tt.Adam(model.parameters(), lr=0.05),
        loader,
        lambda model, batch: tt.mse_loss(model(batch[0]), batch[1]),
        checkpoints=tt.Checkpoints(folder),
        checkpoint_every=1,
    )


def weights(trained):
    return np.concatenate([p.data.ravel() for p in trained.model.parameters()])


@pytest.mark.parametrize("own", [True, False], ids=["own generator", "shared generator"])
@pytest.mark.parametrize("stopped_at", [1, 4, 5, 7])  # of 5 batches a pass
def test_training_and_resuming_are_the_same_bit_for_bit(own, stopped_at, tmp_path):
    def build(folder, prefetch):
        tt.manual_seed(5)
        return trainer(tmp_path / folder, prefetch, tt.Generator(2) if own else None)

    plain = build("plain", 0)
    plain.fit(11)
    ahead = build("ahead", 3)
    ahead.fit(11)
    assert_array_equal(weights(ahead), weights(plain))
    build("stopped", 3).fit(stopped_at)
    resumed = build("stopped", 2)
    tt.rand(3)  # whatever was drawn since
    assert resumed.resume() == stopped_at
    resumed.fit(11)
    assert_array_equal(weights(resumed), weights(plain))
    assert resumed.history["loss"] == plain.history["loss"]
