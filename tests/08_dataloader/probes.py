"""What the grader asks the answers to lesson 08, beside the reference, on inputs that nobody knows before.

Of what is drawn at random no order is fixed: what comes back is what every fair order has in common.
"""

from collections import deque

import numpy as np

from tinytorch_course.grading.probes import probe, refusal


def seed(rng):
    return int(rng.integers(2**31))


# ---- datasets and batches


def table(rng):
    """Rows of three arrays, the number of one, and several, with some that come twice."""
    n = rng.integers(1, 9)
    return {
        "arrays": [rng.standard_normal((n, 2, 3)), rng.integers(0, 10, n), rng.standard_normal((n, 1))],
        "number": int(rng.integers(n)),
        "numbers": rng.integers(0, n, 10),
    }


@probe("ex-08-1", table)
def rows_of_tensors(tt, arrays, number, numbers):
    dataset = tt.TensorDataset(*map(tt.Tensor, arrays))
    asked = {"one": number, "several": numbers}
    return {f"{name}_of_tensor_{i}": x for name, index in asked.items() for i, x in enumerate(dataset[index])}


def lengths(rng):
    size = int(rng.integers(2, 20))
    return {"batch_size": size, "lengths": np.append(rng.integers(1, 5 * size, 12), [1, size, size + 1, 3 * size])}


@probe("ex-08-2", lengths)
def number_of_batches(tt, batch_size, lengths):
    def counted(drop_last):
        return [len(tt.BatchSampler(range(n), batch_size, drop_last)) for n in lengths]

    return {"of_all": counted(False), "with_drop_last": counted(True)}


def numbers_and_rest(rng):
    """Numbers that make some batches and leave a rest."""
    size, whole = rng.integers(2, 7), rng.integers(1, 5)
    n = size * whole + rng.integers(1, size)
    return {"numbers": rng.integers(0, 100, n), "batch_size": int(size)}


@probe("ex-08-3", numbers_and_rest)
def batches_of_numbers(tt, numbers, batch_size):
    found = {}
    for rest, n in ("with_a_rest", len(numbers)), ("without_a_rest", len(numbers) // batch_size * batch_size):
        sampler = deque(numbers[:n].tolist())  # of which no slice can be taken
        for kind, drop_last in ("", False), ("_and_drop_last", True):
            batches = list(tt.BatchSampler(sampler, batch_size, drop_last))
            found[f"sizes_{rest}{kind}"] = [len(batch) for batch in batches]
            found[f"numbers_{rest}{kind}"] = np.concatenate(batches)
    return found


def parts(rng):
    n = rng.integers(2, 6)
    return {
        "images": rng.standard_normal((n, 2, 3)),
        "labels": rng.integers(0, 10, n),
        "points": rng.standard_normal((n, 2)),
        "weights": rng.standard_normal(n),
        "flags": rng.random(n) < 0.5,
    }


@probe("ex-08-5", parts)
def batch_of_nested_samples(tt, images, labels, points, weights, flags):
    samples = [
        {"image": tt.Tensor(image), "rest": (label, [point, {"weight": weight}]), "flag": flag}
        for image, label, point, weight, flag in zip(images, labels.tolist(), points, weights.tolist(), flags.tolist())
    ]
    batch = tt.default_collate(samples)
    label, (point, others) = batch["rest"]
    return {"image": batch["image"], "label": label, "point": point, "weight": others["weight"], "flag": batch["flag"]}


@probe("ex-08-5", lambda rng: {"x": rng.standard_normal((3, 2))})
def samples_that_make_no_batch(tt, x):
    a, b, c = x
    return {
        "other_keys": refusal(tt.default_collate, [{"a": a}, {"b": b}]),
        "a_key_more": refusal(tt.default_collate, [{"a": a}, {"a": b, "b": c}]),
        "a_part_more": refusal(tt.default_collate, [(a,), (b, c)]),
        "other_shapes": refusal(tt.default_collate, [a, b[:1]]),
    }


# ---- random orders


@probe("ex-08-4", lambda rng: {"n": int(rng.integers(20, 40)), "rest": int(rng.integers(1, 20)), "seed": seed(rng)})
def order_without_replacement(tt, n, rest, seed):
    def sampler(seed, num_samples=None):
        return tt.RandomSampler(range(n), num_samples=num_samples, generator=tt.Generator(seed))

    several = sampler(seed, 2 * n + rest)
    first, second, again = list(several), list(several), list(sampler(seed, 2 * n + rest))
    one, other = list(sampler(seed)), list(sampler(seed + 1))
    return {
        "count": [len(first), len(one)],
        "each_pass": np.sort(np.reshape(first[: 2 * n], (2, n))),
        "different_numbers_in_the_rest": len(set(first[2 * n :])),
        "a_pass_is_shuffled": one != sorted(one),
        "the_next_pass_has_another_order": [first[:n] != first[n : 2 * n], first != second],
        "the_same_seed_gives_the_same_order": first == again,
        "another_seed_gives_another_order": one != other,
        "kind_of_a_number": type(next(iter(several))).__name__,
    }


@probe("ex-08-4", lambda rng: {"n": int(rng.integers(30, 50)), "seed": seed(rng)})
def order_with_replacement(tt, n, seed):
    sampler = tt.RandomSampler(range(n), True, 100 * n, tt.Generator(seed))
    drawn, second = list(sampler), list(sampler)
    counts = np.bincount(drawn, minlength=n)
    return {
        "count": len(drawn),
        "numbers_from_0_to": len(counts) - 1,
        "all_come_about_as_often": np.all(np.abs(counts - 100) < 70),  # 100 expected, with a deviation of 10
        "some_come_twice_in_each_pass": [len(set(row)) < n for row in np.reshape(drawn, (100, n)).tolist()],
        "the_next_time_there_are_others": drawn != second,
    }


def weights(rng):
    """Weights that are far from equal and from a sum of 1, and of which one is 0."""
    n = rng.integers(12, 20)
    return {"weights": rng.permutation(np.append(rng.uniform(1, 6, n), 0)), "seed": seed(rng)}


@probe("ex-08-7", weights)
def weights_are_chances(tt, weights, seed):
    sampler = tt.WeightedRandomSampler(weights, 4000, generator=tt.Generator(seed))
    drawn, second = list(sampler), list(sampler)
    counts, expected = np.bincount(drawn, minlength=len(weights)), 4000 * weights / weights.sum()
    return {
        "count": len(drawn),
        "numbers_from_0_to": len(counts) - 1,
        "count_of_what_has_no_weight": counts[weights == 0],
        "each_comes_about_as_often_as_its_weight_says": np.abs(counts - expected) <= 7 * np.sqrt(expected),
        "the_next_time_there_are_others": drawn != second,
        "kind_of_a_number": type(next(iter(sampler))).__name__,
    }


@probe("ex-08-7", weights)
def weights_without_replacement(tt, weights, seed):
    def drawn(num_samples):
        return list(tt.WeightedRandomSampler(weights, num_samples, False, tt.Generator(seed)))

    possible = int(np.count_nonzero(weights))
    return {
        "all_that_have_a_weight": sorted(drawn(possible)),
        "different_numbers": len(set(drawn(possible - 1))),
        "the_same_seed_gives_the_same_order": drawn(possible) == drawn(possible),
    }


def split(tt, samples, lengths, seed):
    """What a random split has whatever the order."""

    def parts(generator):
        found = tt.random_split(samples.tolist(), lengths.tolist(), generator)
        return [[part[i] for i in range(len(part))] for part in found]

    first = parts(tt.Generator(seed))
    order = [sample for part in first for sample in part]
    tt.manual_seed(seed)
    return {
        "sizes": [len(part) for part in first],
        "samples_of_all_parts": sorted(order),
        "it_is_shuffled": order != samples.tolist(),
        "the_same_seed_gives_the_same_parts": [parts(tt.Generator(seed)) == first, parts(None) == first],
        "another_seed_gives_other_parts": parts(tt.Generator(seed + 1)) != first,
    }


def sizes(rng):
    lengths = np.append(rng.integers(1, 20, rng.integers(1, 5)), 20)
    return {"samples": rng.permutation(200)[: lengths.sum()], "lengths": lengths, "seed": seed(rng)}


@probe("ex-08-6", sizes)
def split_by_lengths(tt, samples, lengths, seed):
    wrong = [*lengths.tolist(), 1], [*lengths.tolist(), 0], [0.5, 0.4], []
    return {
        **split(tt, samples, lengths, seed),
        "refusals": [refusal(tt.random_split, samples.tolist(), lengths) for lengths in wrong],
    }


def fractions(rng):
    """Fractions of which rounding leaves something over."""
    weights = rng.uniform(1, 3, rng.integers(2, 6))
    samples = rng.permutation(200)[: rng.integers(40, 90)]
    return {"samples": samples, "lengths": weights / weights.sum(), "seed": seed(rng)}


@probe("ex-08-6", fractions)
def split_by_fractions(tt, samples, lengths, seed):
    return split(tt, samples, lengths, seed)
