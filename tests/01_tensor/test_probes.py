"""The probes of lesson 01 on seeds that everybody knows, beside plain NumPy."""

import statistics

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def addition(x, y, row, column, number, whole):
    return {
        "sum": x - (-y),
        "of_a_matrix_and_a_row": [[a + b for a, b in zip(line, row)] for line in x],
        "of_a_row_and_a_column": [[a + b for b in row] for (a,) in column],
        "of_a_number_and_a_matrix": x - (-number),
        "of_whole_numbers": 2 * whole,
        "x_afterwards": x,
    }


def multiplication(x, y, row, column, number, whole):
    return {
        "product": np.einsum("ij,ij->ij", x, y),
        "of_a_matrix_and_a_row": x @ np.diag(row),
        "of_a_row_and_a_column": np.outer(column, row),
        "of_a_number_and_a_matrix": [[number * a for a in line] for line in x],
        "of_whole_numbers": whole**2,
        "x_afterwards": x,
    }


def counting(start, end, step, fraction):
    fractions = [start + fraction * i for i in range(int((end - start) / fraction))]
    return {
        "from_0": list(range(end)),
        "from_a_start": list(range(start, end)),
        "to_0": list(range(-start, 0)),
        "down_to_0": list(range(end, 0, -step)),
        "nothing": np.zeros(0, int),
        "fractions": np.array(fractions, np.float32),
        "fractions_up_to_an_end": np.array(range(end + 1), np.float32),
        "types": ["float32", "float64"],
    }


def products_of_matrices(square, x, y, one, vector):
    return {
        "of_two": np.einsum("ij,jk->ik", *square),
        "of_pairs_in_stacks": np.einsum("bij,bjk->bik", x, y),
        "of_one_with_each": np.einsum("ij,bjk->bik", one[0], y),
        "of_a_stack_and_a_vector": np.einsum("bij,j->bi", x, vector),
        "of_a_vector_and_a_matrix": np.einsum("i,ij->j", vector, square[0]),
        "of_two_vectors": sum(a * a for a in vector),
    }


def sums(x):
    return {
        "over_one_axis": np.einsum("abcd->abd", x),
        "over_the_last_axis_kept": np.einsum("abcd->abc", x)[..., None],
        "over_two_axes": np.einsum("abcd->bd", x),
        "over_a_list_of_axes_kept": np.einsum("abcd->ac", x)[:, None, :, None],
        "over_all": np.einsum("abcd->", x),
        "over_all_kept": np.einsum("abcd->", x)[None, None, None, None],
        "counted": np.count_nonzero(x > 0, axis=0),
    }


def standard_deviations(x):
    everything, rows, columns = x.ravel().tolist(), x.tolist(), x.T.tolist()
    return {
        "of_all": statistics.stdev(everything),
        "of_each_row": [statistics.stdev(row) for row in rows],
        "of_each_column_kept": [[statistics.stdev(column) for column in columns]],
        "of_each_row_by_n_kept": [[statistics.pstdev(row)] for row in rows],
        "of_all_by_n": statistics.pstdev(everything),
    }


def cut(*pieces):
    return {"shapes": [piece.shape for piece in pieces]} | {f"piece_{i}": piece for i, piece in enumerate(pieces)}


def pieces_of_a_length(x, size):
    return cut(x[:, :size], x[:, size : 2 * size], x[:, 2 * size :])


def pieces_longer_than_the_axis(x, size):
    return cut(x)


def pieces_of_given_lengths(x, size):
    pieces = cut(x[:, :size], x[:, :0], x[:, [size]], x[:, size + 1 :])
    return pieces | {"refused": ["ValueError"] * 3}


def a_number_of_pieces(x, chunks):
    length = x.shape[1] // chunks + 1
    return cut(*(x[:, start : start + length] for start in range(0, x.shape[1], length)))


def more_pieces_than_there_can_be(x, chunks):
    return cut(*(row[None] for row in x)) | {"of_an_empty_axis": 0, "refused": ["ValueError"] * 2}


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
