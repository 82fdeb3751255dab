"""What the grader asks the answers to lesson 01, beside the reference, on inputs that nobody knows before."""

from tinytorch_course.grading.probes import probe, refusal


def operands(rng):
    """Two matrices of one shape, a row, a column, a number, and whole numbers."""
    n, m = rng.integers(2, 6, 2)
    return {
        "x": rng.standard_normal((n, m)),
        "y": rng.standard_normal((n, m)),
        "row": rng.standard_normal(m),
        "column": rng.standard_normal((n, 1)),
        "number": float(rng.standard_normal()),
        "whole": rng.integers(-9, 10, m),
    }


@probe("ex-01-1", operands)
def addition(tt, x, y, row, column, number, whole):
    x, y, row, column, whole = map(tt.tensor, (x, y, row, column, whole))
    return {
        "sum": x + y,
        "of_a_matrix_and_a_row": x + row,
        "of_a_row_and_a_column": row + column,
        "of_a_number_and_a_matrix": number + x,
        "of_whole_numbers": whole + whole,
        "x_afterwards": x,
    }


@probe("ex-01-2", operands)
def multiplication(tt, x, y, row, column, number, whole):
    x, y, row, column, whole = map(tt.tensor, (x, y, row, column, whole))
    return {
        "product": x * y,
        "of_a_matrix_and_a_row": x * row,
        "of_a_row_and_a_column": row * column,
        "of_a_number_and_a_matrix": number * x,
        "of_whole_numbers": whole * whole,
        "x_afterwards": x,
    }


def ranges(rng):
    """Settings of ranges. The step of fractions is a power of 2, so that it is exact."""
    start, length, step = (int(rng.integers(2, 7)) for _ in range(3))
    return {"start": start, "end": start + length, "step": step, "fraction": float(rng.choice([0.25, 0.5]))}


@probe("ex-01-3", ranges)
def counting(tt, start, end, step, fraction):
    fractions, asked_for = tt.arange(start, end, fraction), tt.arange(end, dtype=tt.float64)
    return {
        "from_0": tt.arange(end),
        "from_a_start": tt.arange(start, end),
        "to_0": tt.arange(-start, 0),
        "down_to_0": tt.arange(end, 0, -step),
        "nothing": tt.arange(end, start),
        "fractions": fractions,
        "fractions_up_to_an_end": tt.arange(end + fraction),
        "types": [str(fractions.dtype), str(asked_for.dtype)],
    }


def matrices(rng):
    """Square matrices, and stacks of others: one of them is a stack of one, which meets each of the other stack."""
    n, k, m, batch = rng.integers(2, 5, 4)
    return {
        "square": rng.standard_normal((2, k, k)),
        "x": rng.standard_normal((batch, n, k)),
        "y": rng.standard_normal((batch, k, m)),
        "one": rng.standard_normal((1, n, k)),
        "vector": rng.standard_normal(k),
    }


@probe("ex-01-4", matrices)
def products_of_matrices(tt, square, x, y, one, vector):
    first, second = map(tt.Tensor, square)
    x, y, one, vector = map(tt.Tensor, (x, y, one, vector))
    return {
        "of_two": first @ second,
        "of_pairs_in_stacks": x @ y,
        "of_one_with_each": one @ y,
        "of_a_stack_and_a_vector": x @ vector,
        "of_a_vector_and_a_matrix": vector @ first,
        "of_two_vectors": vector @ vector,
    }


def block(rng):
    n, m, k = rng.integers(2, 5, 3)
    return {"x": rng.standard_normal((n, 1, m, k))}


@probe("ex-01-5", block)
def sums(tt, x):
    positive, x = tt.Tensor(x > 0), tt.Tensor(x)
    return {
        "over_one_axis": x.sum(2),
        "over_the_last_axis_kept": x.sum(-1, keepdim=True),
        "over_two_axes": x.sum((0, 2)),
        "over_a_list_of_axes_kept": x.sum([1, 3], keepdim=True),
        "over_all": x.sum(),
        "over_all_kept": x.sum(keepdim=True),
        "counted": positive.sum(0),
    }


@probe("ex-01-6", lambda rng: {"x": rng.uniform(1, 9) + rng.standard_normal(rng.integers(2, 6, 2))})
def standard_deviations(tt, x):
    x = tt.Tensor(x)
    return {
        "of_all": x.std(),
        "of_each_row": x.std(1),
        "of_each_column_kept": x.std(0, keepdim=True),
        "of_each_row_by_n_kept": x.std(-1, 0, True),
        "of_all_by_n": x.std(correction=0),
    }


def cut(pieces):
    """The pieces, and the shape of each: so one too many is seen."""
    return {"shapes": [piece.shape for piece in pieces]} | {f"piece_{i}": piece for i, piece in enumerate(pieces)}


def with_a_rest(rng):
    """Three axes, of which the middle one is cut in two pieces of `size` and a shorter one."""
    size = int(rng.integers(3, 6))
    n = 2 * size + int(rng.integers(1, size))
    return {"x": rng.standard_normal((rng.integers(2, 4), n, 2)), "size": size}


@probe("ex-01-7", with_a_rest)
def pieces_of_a_length(tt, x, size):
    return cut(tt.Tensor(x).split(size, -2))


@probe("ex-01-7", with_a_rest)
def pieces_longer_than_the_axis(tt, x, size):
    return cut(tt.Tensor(x).split(x.shape[0] + size))


@probe("ex-01-7", with_a_rest)
def pieces_of_given_lengths(tt, x, size):
    x, n = tt.Tensor(x), x.shape[1]
    refused = [refusal(lambda: x.split(lengths, 1)) for lengths in ([size], [n, 1], [n + size, -size])]
    return cut(x.split([size, 0, 1, n - size - 1], 1)) | {"refused": refused}


def uneven(rng):
    """An axis whose length is no multiple of the number of pieces."""
    chunks, length = int(rng.integers(3, 5)), int(rng.integers(4, 7))
    n = chunks * length + int(rng.integers(1, chunks))
    return {"x": rng.standard_normal((rng.integers(2, 4), n)), "chunks": chunks}


@probe("ex-01-8", uneven)
def a_number_of_pieces(tt, x, chunks):
    return cut(tt.Tensor(x).chunk(chunks, -1))


@probe("ex-01-8", uneven)
def more_pieces_than_there_can_be(tt, x, chunks):
    x = tt.Tensor(x)
    found = cut(x.chunk(len(x) + chunks))
    refused = [refusal(lambda: x.chunk(0)), refusal(lambda: x.chunk(-chunks, 1))]
    return found | {"of_an_empty_axis": len(x[:0].chunk(chunks)), "refused": refused}
