"""Is the Mamba that is built the Mamba of the paper, and does it learn? Beginnings, gradients, long inputs, learning.

As a script it prints what the tests check: python tests/14_mamba/test_model_architecture_validation.py
"""

import math
import sys
import tracemalloc

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.mamba import selective_scan_composed

PRESETS = {"tiny": (32, 8, 2, 100), "small": (64, 16, 4, 1000), "medium": (128, 32, 6, 5000)}
LENGTHS = (100, 500, 1000, 2000)
GRADIENT_NORMS = (1e-10, 1e3)
SUM_LOSS_LIMIT = 1e3  # for the tiny preset; the norm grows with the root of how many numbers the loss sums

each_preset = pytest.mark.parametrize("preset", PRESETS)


def mamba(preset="tiny", seed=0, **changes):
    return tt.Mamba(getattr(tt.MambaConfig, preset)(**changes), generator=tt.Generator(seed))


def random_ids(model, batch, time, seed=1):
    return tt.tensor(np.random.default_rng(seed).integers(1, model.config.vocab_size, (batch, time)))


def mean_loss(model, ids):
    return tt.next_token_loss(model, ids)[0]


def gradient_norms(model):
    """{name: length of the gradient}; a parameter without one is None."""
    return {
        name: None if p.grad is None else float(np.linalg.norm(p.grad.data)) for name, p in model.named_parameters()
    }


# ---- what is built


@each_preset
def test_presets_have_the_sizes_of_the_sheet(preset):
    config = getattr(tt.MambaConfig, preset)()
    assert (config.d_model, config.d_state, config.n_layers, config.vocab_size) == PRESETS[preset]


@each_preset
def test_logits_have_a_number_for_each_token_of_the_vocabulary(preset):
    model = mamba(preset)
    with tt.no_grad():
        logits = model(random_ids(model, 2, 10))
    assert logits.shape == (2, 10, model.config.vocab_size)
    assert np.isfinite(logits.data).all()


@each_preset
def test_every_weight_begins_spread_out_and_small(preset):
    for name, p in mamba(preset).named_parameters():
        assert np.any(p.data), name
        if p.ndim >= 2 and not name.endswith("A_log"):
            assert 1e-6 < p.data.std() < 2, name


@each_preset
def test_step_sizes_begin_between_a_thousandth_and_a_tenth(preset):
    """A general initialisation of all biases to 0 would lose them: all step sizes would be 0.69."""
    for block in mamba(preset).backbone.layers:
        dt = np.log1p(np.exp(block.mixer.dt_proj.bias.data.astype(np.float64)))
        assert dt.min() >= 0.99e-3 and dt.max() <= 0.101
        assert np.log10(dt).std() > 0.3  # spread over the decades


@each_preset
def test_decays_begin_at_minus_1_to_minus_n_in_every_channel(preset):
    for block in mamba(preset).backbone.layers:
        A_log = block.mixer.A_log.data
        assert A_log.shape == (block.mixer.config.d_inner, block.mixer.config.d_state)
        np.testing.assert_allclose(
            -np.exp(A_log), np.tile(-np.arange(1, A_log.shape[1] + 1), (len(A_log), 1)), rtol=1e-6
        )


# ---- gradients


@each_preset
def test_every_parameter_gets_a_gradient_of_a_sensible_size(preset):
    model = mamba(preset)
    mean_loss(model, random_ids(model, 2, 10)).backward()
    for name, norm in gradient_norms(model).items():
        assert norm is not None and GRADIENT_NORMS[0] < norm < GRADIENT_NORMS[1], (name, norm)


@each_preset
def test_the_gradient_of_the_sum_of_all_logits_stays_within_its_scale(preset):
    """With a tied head it grows with the root of vocabulary times width: 1000 is the limit of the tiny preset."""
    model = mamba(preset)
    model(random_ids(model, 2, 10)).sum().backward()
    d_model, _, _, vocab_size = PRESETS[preset]
    limit = SUM_LOSS_LIMIT * math.sqrt(vocab_size * d_model / (100 * 32))
    for name, norm in gradient_norms(model).items():
        assert norm is not None and GRADIENT_NORMS[0] < norm < limit, (name, norm)


def test_every_parameter_moves_in_one_step_of_adam():
    model = mamba()
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    mean_loss(model, random_ids(model, 2, 10)).backward()
    tt.Adam(model.parameters(), lr=1e-3).step()
    for name, p in model.named_parameters():
        assert np.abs(p.data - before[name]).max() > 1e-8, name


@each_preset
def test_gradients_are_finite_over_200_tokens(preset):
    model = mamba(preset)
    mean_loss(model, random_ids(model, 1, 200)).backward()
    norms = gradient_norms(model)
    assert all(math.isfinite(norm) for norm in norms.values())
    assert math.sqrt(sum(norm**2 for norm in norms.values())) <= 5000


def test_gradients_are_those_of_finite_differences_along_one_direction():
    """The whole model in float64: convolution, softplus, projections and scan in one."""
    model = mamba(n_layers=1).to(tt.float64)
    ids = random_ids(model, 2, 9)
    mean_loss(model, ids).backward()
    rng = np.random.default_rng(2)
    directions = {name: rng.standard_normal(p.shape) for name, p in model.named_parameters()}
    slope = sum(np.sum(p.grad.data * directions[name]) for name, p in model.named_parameters())
    start = {name: p.data.copy() for name, p in model.named_parameters()}
    losses = []
    for step in (1e-5, -1e-5):
        for name, p in model.named_parameters():
            p.data = start[name] + step * directions[name]
        losses.append(mean_loss(model, ids).item())
    assert slope == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5)


# ---- inputs at the edge


@pytest.mark.parametrize("time", LENGTHS)
@each_preset
def test_logits_stay_finite_on_long_sequences(preset, time):
    model = mamba(preset)
    with tt.no_grad():
        logits = model(random_ids(model, 1, time))
    assert np.isfinite(logits.data).all()


@pytest.mark.parametrize(
    "ids",
    [np.full((2, 20), 7), np.arange(40).reshape(2, 20), np.full((2, 20), 99), np.zeros((2, 20), int), [[5]]],
    ids=["all the same", "sequential", "the largest", "the smallest", "one token"],
)
def test_extreme_ids_give_finite_logits_and_gradients(ids):
    model = mamba()
    logits = model(tt.tensor(ids))
    tt.cross_entropy(logits.flatten(0, 1), tt.tensor(np.array(ids).reshape(-1))).backward()
    assert np.isfinite(logits.data).all()
    assert all(np.isfinite(p.grad.data).all() for p in model.parameters())


@pytest.mark.parametrize("ids", [[[100]], [[-1]]])
def test_ids_outside_of_the_vocabulary_are_refused(ids):
    with pytest.raises(IndexError, match="ids from 0 to 99"):
        mamba()(tt.tensor(ids))


# ---- the faults of a pipeline that was published, each of which would be seen here


def test_the_bias_of_the_step_size_counts_once():
    mixer = mamba().backbone.layers[0].mixer
    u = tt.randn(1, 4, mixer.config.d_inner, generator=tt.Generator(3))
    delta = mixer._select(u)[0].data
    low = u.data @ mixer.x_proj.weight.data[: mixer.config.rank].T
    expected = np.log1p(np.exp(low @ mixer.dt_proj.weight.data.T + mixer.dt_proj.bias.data))
    np.testing.assert_allclose(delta, expected, rtol=1e-4)


def test_the_fused_scan_is_the_recurrence():
    """Two scans of one model, "sequential" and "parallel", must be one function."""
    rng = np.random.default_rng(4)
    u, B, C = (tt.tensor(rng.standard_normal(shape).astype("f")) for shape in [(2, 300, 6), (2, 300, 4), (2, 300, 4)])
    delta = tt.tensor(rng.uniform(0.001, 0.1, (2, 300, 6)).astype("f"))
    A = tt.tensor(-np.tile(np.arange(1.0, 5), (6, 1)).astype("f"))
    one, other = (scan(u, delta, A, B, C).data for scan in (tt.selective_scan, selective_scan_composed))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_generation_runs_each_token_once():
    """With caches that are allocated and never used, each new token would run the whole text again."""

    class Counting(tt.Mamba):
        def forward(self, ids, *args, **kwargs):
            counted.append(ids.shape[1])
            return super().forward(ids, *args, **kwargs)

    counted = []
    model = Counting(tt.MambaConfig.tiny(), tt.Generator(0))
    ids = random_ids(model, 1, 7)
    cached = model.generate(ids, 5, temperature=0)
    assert counted == [7, 1, 1, 1, 1]
    np.testing.assert_array_equal(cached.data, model.generate(ids, 5, temperature=0, use_cache=False).data)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    model = mamba()
    ids = random_ids(model, 2, 9)
    filler, mask = np.full((2, 5), 3), np.zeros((2, 9), bool)
    order = (lambda a, b: [a, b]) if side == "left" else (lambda a, b: [b, a])
    padded = np.concatenate(order(filler, ids.data), axis=1)
    padding = np.concatenate(order(np.ones((2, 5), bool), mask), axis=1)
    with tt.no_grad():
        alone = model(ids).data
        with_padding = model(tt.tensor(padded), key_padding_mask=tt.tensor(padding)).data
    kept = with_padding[:, 5:] if side == "left" else with_padding[:, :9]
    np.testing.assert_allclose(kept, alone, atol=1e-5)


# ---- does it learn?


def train(model, ids, optimizer, epochs, stop_below=0.0):
    """Losses of so many steps on one batch."""
    losses = []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = mean_loss(model, ids)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < stop_below:
            break
    return losses


def memorise():
    """Losses on five sequences of ten random tokens of 50, with Adam at 0.001, for at most 100 epochs."""
    model = mamba(vocab_size=50, seed=5)
    ids = random_ids(model, 5, 10, seed=6)
    return train(model, ids, tt.Adam(model.parameters(), lr=1e-3), 100, stop_below=0.1)


def learn_arithmetic():
    """(losses, accuracy) on sequences that count in steps of 1 or 2, up to 9, in 200 epochs at 0.0005.

    From the third token on the rest is certain: accuracy is that of what comes behind it.
    """
    rows = [[min(start + i * step, 9) for i in range(8)] for start in (1, 2, 3, 4) for step in (1, 2)]
    model = mamba(vocab_size=10)
    ids = tt.tensor(rows)
    losses = train(model, ids, tt.Adam(model.parameters(), lr=5e-4), 200)
    with tt.no_grad():
        predicted = model(ids[:, :-1]).data.argmax(-1)
    return losses, float(np.mean(predicted[:, 1:] == ids.data[:, 2:]))


def watch_random_data():
    """Losses of 50 steps, each on a new batch of random tokens, from which nothing can be learnt."""
    model = mamba()
    optimizer = tt.Adam(model.parameters(), lr=1e-3)
    return [train(model, random_ids(model, 4, 16, seed), optimizer, 1)[0] for seed in range(50)]


def test_five_sequences_are_memorised():
    losses = memorise()
    assert losses[-1] < 1.0
    assert losses[-1] < 0.5 * losses[0]


def test_counting_is_learnt():
    losses, accuracy = learn_arithmetic()
    assert losses[-1] < 2.0
    assert accuracy > 0.8


def test_the_loss_is_calm_where_nothing_can_be_learnt():
    losses = watch_random_data()
    assert max(losses) < 1.1 * losses[0]
    assert np.std(np.diff(losses)) < 1


# ---- memory


def held_bytes(work):
    """Bytes that `work()` leaves behind, and the most that it held."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = work()
        after, peak = tracemalloc.get_traced_memory()
        del kept
        return after - before, peak - before
    finally:
        tracemalloc.stop()


def test_a_larger_model_holds_more():
    held = [held_bytes(lambda preset=preset: mamba(preset))[0] for preset in ("tiny", "small", "medium")]
    assert 0 < held[0] < held[1] < held[2]


def test_training_does_not_grow():
    model = mamba()
    optimizer = tt.Adam(model.parameters())
    ids = random_ids(model, 2, 32)
    train(model, ids, optimizer, 3)
    left, _ = held_bytes(lambda: train(model, ids, optimizer, 50))
    assert abs(left) < 1e6


def test_a_cache_does_not_grow_with_the_text():
    model = mamba()
    sizes = []
    for time in (1, 10, 200):
        cache = model.new_cache()
        with tt.no_grad():
            model(random_ids(model, 2, time), cache=cache)
        sizes.append(sum(layer.nbytes for layer in cache))
    inner, state, taps = 64, 8, 4
    assert sizes == [2 * 4 * 2 * inner * (taps - 1 + state)] * 3


def main():
    """Print what was found. Returns how many of the limits are missed."""
    missed = 0
    for preset in PRESETS:
        model = mamba(preset)
        mean_loss(model, random_ids(model, 2, 10)).backward()
        norms = gradient_norms(model).values()
        print(
            f"{preset:<14}{model.num_parameters():>9,} parameters; their gradients from {min(norms):.1e} to "
            f"{max(norms):.1e}"
        )
    losses = memorise()
    print(f"memorisation  loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} epochs")
    missed += losses[-1] >= 1.0
    losses, accuracy = learn_arithmetic()
    print(f"counting      loss {losses[0]:.3f} -> {losses[-1]:.3f}; {accuracy:.1%} of the certain tokens right")
    missed += losses[-1] >= 2.0 or accuracy <= 0.8
    losses = watch_random_data()
    print(f"random data   loss {losses[0]:.3f} -> {losses[-1]:.3f}, at most {max(losses) / losses[0] - 1:+.1%}")
    missed += max(losses) >= 1.1 * losses[0]
    print("all limits are kept" if not missed else f"{missed} limits are missed")
    return missed


if __name__ == "__main__":
    sys.exit(main())
