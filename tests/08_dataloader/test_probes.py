"""The probes of lesson 08 on seeds that everybody knows, beside plain NumPy."""

import math

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def rows_of_tensors(arrays, number, numbers):
    one = {f"one_of_tensor_{i}": x[number] for i, x in enumerate(arrays)}
    several = {f"several_of_tensor_{i}": np.take(x, numbers, axis=0) for i, x in enumerate(arrays)}
    return one | several


def number_of_batches(batch_size, lengths):
    begins = [len(range(0, n, batch_size)) for n in lengths]
    ends = [len(range(batch_size, n + 1, batch_size)) for n in lengths]
    return {"of_all": begins, "with_drop_last": ends}


def batches_of_numbers(numbers, batch_size):
    whole, rest = divmod(len(numbers), batch_size)
    full = {"sizes": [batch_size] * whole, "numbers": numbers[: whole * batch_size]}
    cases = ("with_a_rest_and_drop_last", "without_a_rest", "without_a_rest_and_drop_last")
    found = {f"{name}_{case}": value for case in cases for name, value in full.items()}
    return {**found, "sizes_with_a_rest": [batch_size] * whole + [rest], "numbers_with_a_rest": numbers}


def batch_of_nested_samples(images, labels, points, weights, flags):
    weights = weights.astype(np.float32)  # what Python's numbers become
    return {"image": images, "label": labels, "point": points, "weight": weights, "flag": flags}


def samples_that_make_no_batch(x):
    return dict.fromkeys(("other_keys", "a_key_more", "a_part_more", "other_shapes"), "ValueError")


def order_without_replacement(n, rest, seed):
    return {
        "count": [2 * n + rest, n],
        "each_pass": [range(n), range(n)],
        "different_numbers_in_the_rest": rest,
        "a_pass_is_shuffled": True,
        "the_next_pass_has_another_order": [True, True],
        "the_same_seed_gives_the_same_order": True,
        "another_seed_gives_another_order": True,
        "kind_of_a_number": "int",
    }


def order_with_replacement(n, seed):
    return {
        "count": 100 * n,
        "numbers_from_0_to": n - 1,
        "all_come_about_as_often": True,
        "some_come_twice_in_each_pass": [True] * 100,
        "the_next_time_there_are_others": True,
    }


def weights_are_chances(weights, seed):
    return {
        "count": 4000,
        "numbers_from_0_to": len(weights) - 1,
        "count_of_what_has_no_weight": [0],
        "each_comes_about_as_often_as_its_weight_says": [True] * len(weights),
        "the_next_time_there_are_others": True,
        "kind_of_a_number": "int",
    }


def weights_without_replacement(weights, seed):
    possible = [i for i, weight in enumerate(weights) if weight > 0]
    return {
        "all_that_have_a_weight": possible,
        "different_numbers": len(possible) - 1,
        "the_same_seed_gives_the_same_order": True,
    }


def split(samples, sizes):
    return {
        "sizes": sizes,
        "samples_of_all_parts": np.sort(samples),
        "it_is_shuffled": True,
        "the_same_seed_gives_the_same_parts": [True, True],
        "another_seed_gives_other_parts": True,
    }


def split_by_lengths(samples, lengths, seed):
    return {**split(samples, lengths), "refusals": ["ValueError"] * 4}


def split_by_fractions(samples, lengths, seed):
    sizes = [math.floor(len(samples) * fraction) for fraction in lengths]
    for i in range(len(samples) - sum(sizes)):
        sizes[i] += 1
    return split(samples, sizes)


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
