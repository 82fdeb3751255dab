"""Module 19: processes that are connected, alone and with two real ones under mpiexec."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from running import run_ranks

import tinytorch as tt
from tinytorch.distributed import all_reduce_gradients, connect

# ---- alone


@pytest.mark.parametrize("env", [{}, {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, {"PATH": "/bin"}], ids=str)
def test_a_process_without_others_is_rank_0_of_1(env):
    ranks = connect(env)
    assert (ranks.rank, ranks.local_rank, ranks.world_size, ranks.is_distributed) == (0, 0, 1, False)
    array = np.arange(3.0)
    assert ranks.all_reduce(array) is array and ranks.broadcast(array) is array
    assert_array_equal(array, [0, 1, 2])
    value = {"any": object()}
    assert ranks.gather(value) == [value]
    ranks.barrier()


def test_one_process_needs_no_mpi():
    program = "import sys, tinytorch as tt; tt.distributed.connect({}).barrier(); print('mpi4py' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert finished.stdout == "False\n"


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (
            {"WORLD_SIZE": "2", "RANK": "1"},
            RuntimeError,
            "WORLD_SIZE=2 needs .* Start with: mpiexec -n 2 python -m mpi4py",
        ),
        ({"WORLD_SIZE": "0"}, ValueError, "One process has WORLD_SIZE=1, but it is 0. Leave it unset"),
        ({"RANK": "1"}, ValueError, "One process has RANK=0, but it is 1. Leave it unset"),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "3"}, ValueError, "One process has LOCAL_RANK=0, but it is 3"),
        ({"WORLD_SIZE": "two"}, ValueError, "variable WORLD_SIZE needs an integer of at least 0, but is 'two'"),
        ({"RANK": "-1"}, ValueError, "variable RANK needs an integer of at least 0, but is '-1'"),
    ],
)
def test_variables_that_do_not_fit_one_process(env, error, message):
    with pytest.raises(error, match=message):
        connect(env)


def test_an_mpi_that_is_missing_is_said(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('no such library')", encoding="utf-8")
    program = "import tinytorch as tt; tt.distributed.connect({'PMI_RANK': '0'})"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(tt.__file__).parents[1])])}
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=60)
    assert "Several processes need mpi4py and an MPI: pip install 'tinytorch-edu[mpi]'. (no such" in finished.stderr


@pytest.mark.parametrize(
    ("method", "value", "error", "message"),
    [
        ("all_reduce", [1.0], TypeError, "integers, float32 or float64, but got list"),
        ("all_reduce", np.ones(2, bool), TypeError, "integers, float32 or float64, but got bool"),
        ("all_reduce", np.ones(2, np.float16), TypeError, "integers, float32 or float64, but got float16"),
        ("broadcast", 3, TypeError, "broadcast needs an array, but got a int"),
    ],
)
def test_what_cannot_be_communicated_is_refused_also_alone(method, value, error, message):
    with pytest.raises(error, match=message):
        getattr(connect({}), method)(value)


def test_a_root_that_is_none_is_refused():
    with pytest.raises(ValueError, match="a root from 0 to 0, but got 1"):
        connect({}).broadcast(np.ones(1), root=1)


# ---- gradients, alone


def parameters_with(*gradients, dtype=np.float32):
    parameters = [tt.Parameter(np.zeros((2, 1), dtype)) for _ in gradients]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = None if gradient is None else tt.tensor(np.array(gradient, dtype).reshape(2, 1))
    return parameters


def test_alone_weighted_sums_become_means():
    parameters = parameters_with([2, 4], None, [6, 8])
    parameters[2].requires_grad = False
    assert all_reduce_gradients(iter(parameters), 4, connect({})) == 4.0
    assert_array_equal(parameters[0].grad.data, [[0.5], [1.0]])
    assert parameters[1].grad is None
    assert_array_equal(parameters[2].grad.data, [[6], [8]])  # frozen: not of our concern


def test_float64_stays_float64():
    (parameter,) = parameters_with([1 / 3, 1 / 7], dtype=np.float64)
    all_reduce_gradients([parameter], 1, connect({}))
    assert parameter.grad.dtype == np.float64
    assert_array_equal(parameter.grad.data, [[1 / 3], [1 / 7]])


@pytest.mark.parametrize("weight", [0, np.inf, np.nan])
def test_a_weight_of_nothing_or_without_end_is_refused(weight):
    with pytest.raises(ValueError, match=rf"finite weights, one of them above 0, but they sum to {float(weight)}"):
        all_reduce_gradients(parameters_with([1, 2]), weight, connect({}))


# ---- two processes


def launch(tmp_path, program, n=2, **env):
    """Run a program on n ranks. Returns what came of it; all processes end within the time, or the test fails."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(program), encoding="utf-8")
    return run_ranks(n, path, timeout=60, **env)


def test_two_ranks_add_up_broadcast_gather_and_wait(tmp_path):
    finished = launch(
        tmp_path,
        """
        import os, pathlib, time
        import numpy as np, pytest
        import tinytorch as tt

        ranks = tt.distributed.connect()
        me, other = ranks.rank, 1 - ranks.rank
        assert (ranks.world_size, ranks.is_distributed, ranks.local_rank) == (2, True, me)

        for dtype in (np.float32, np.float64, np.int64, np.uint8):
            x = np.arange(6, dtype=dtype).reshape(2, 3) + me
            assert ranks.all_reduce(x) is x and x.dtype == dtype
            np.testing.assert_array_equal(x, 2 * np.arange(6).reshape(2, 3) + 1)
        base = np.zeros((3, 4), np.float32)
        column = base[:, 1]  # not in one piece
        column += me + 1
        ranks.all_reduce(column)
        np.testing.assert_array_equal(base, np.array([0, 3, 0, 0]) * np.ones((3, 1)))
        assert ranks.all_reduce(np.array(me + 1.0)) == 3

        for root in (0, 1):
            for dtype in (np.float32, np.float16, np.bool_, np.int64):
                x = np.full((2, 2), me, dtype)
                assert ranks.broadcast(x, root) is x
                np.testing.assert_array_equal(x, np.full((2, 2), root, dtype))

        assert ranks.gather({"rank": me, "text": "a" * me}) == [{"rank": 0, "text": ""}, {"rank": 1, "text": "a"}]

        marker = pathlib.Path(__file__).with_suffix(".came")
        if me == 1:
            time.sleep(0.2)
            marker.touch()
        ranks.barrier()
        assert marker.exists()

        with pytest.raises(ValueError, match=r"all_reduce needs arrays of one shape and dtype, but the ranks gave"):
            ranks.all_reduce(np.ones(2 + me))
        with pytest.raises(ValueError, match=r"broadcast needs arrays of one shape and dtype.*'<f4'.*'<f8'"):
            ranks.broadcast(np.ones(2, [np.float32, np.float64][me]))
        with pytest.raises(ValueError, match="a root from 0 to 1, but got 2"):
            ranks.broadcast(np.ones(2), root=2)

        told = {**os.environ, "WORLD_SIZE": "2", "RANK": str(me), "LOCAL_RANK": str(me)}
        assert tt.distributed.connect(told).rank == me
        for name, wrong in [("WORLD_SIZE", "3"), ("RANK", str(other)), ("LOCAL_RANK", "7")]:
            with pytest.raises(RuntimeError, match=f"{name}={wrong}, but MPI says .* Leave it unset. Start with"):
                tt.distributed.connect({**told, name: wrong})
        with pytest.raises(RuntimeError, match="mpiexec started 4 processes, but mpi4py sees 2: it uses another MPI"):
            tt.distributed.connect({**os.environ, "PMI_SIZE": "4"})
        done = ranks.gather(f"rank {me} is done")
        if me == 0:  # mpiexec mixes what several print
            print(*done)
        """,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "rank 0 is done rank 1 is done\n"


GRADIENTS = """
    import sys
    import numpy as np
    import tinytorch as tt

    def step(batches):
        '''The model with the weighted sums of these batches' gradients, and the weight.'''
        model = tt.Sequential(tt.Linear(3, 8, generator=tt.Generator(0)), tt.Tanh())
        head, spare, unused = (tt.Linear(8, 2, generator=tt.Generator(i)) for i in (1, 2, 3))
        total = 0
        for x, y, through_spare in batches:
            hidden = model(tt.tensor(x))
            loss = tt.mse_loss(head(hidden) + (spare(hidden) if through_spare else 0.0), tt.tensor(y))
            loss.backward(np.float32(len(x)) * np.ones((), np.float32))
            total += len(x)
        return [*model.parameters(), *head.parameters(), *spare.parameters(), *unused.parameters()], total

    rng = np.random.default_rng(0)
    sizes = [5, 3, 7, 2]
    batches = [
        (rng.standard_normal((n, 3)).astype(np.float32), rng.standard_normal((n, 2)).astype(np.float32), n == 2)
        for n in sizes
    ]
    ranks = tt.distributed.connect()
    parameters, weight = step(batches[ranks.rank :: ranks.world_size])
    calls = []
    all_reduce = ranks.all_reduce
    ranks.all_reduce = lambda array: calls.append(array.size) or all_reduce(array)
    assert tt.distributed.all_reduce_gradients(parameters, weight, ranks) == sum(sizes)
    assert len(calls) == 1
    alone, _ = step(batches)
    for ours, wanted in zip(parameters, alone, strict=True):
        assert (ours.grad is None) == (wanted.grad is None)
        if wanted.grad is not None:
            np.testing.assert_allclose(ours.grad.data, wanted.grad.data / sum(sizes), rtol=1e-6, atol=1e-7)
    assert [p.grad is None for p in parameters] == 6 * [False] + 2 * [True]
    digests = ranks.gather([p.grad.data.tobytes() for p in parameters[:6]])
    assert all(digest == digests[0] for digest in digests)
    if ranks.rank == 0:
        print(len(digests), "ranks agree")
    """


@pytest.mark.parametrize("n", [1, 2])
def test_gradients_of_two_ranks_are_those_of_one_with_the_joint_batch(tmp_path, n):
    """Batches of unequal sizes, a part of the model that only one rank used, and one that none did."""
    finished = launch(tmp_path, GRADIENTS, n)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"{n} ranks agree\n"


def test_a_rank_that_raises_ends_all(tmp_path):
    finished = launch(
        tmp_path,
        """
        import tinytorch as tt

        ranks = tt.distributed.connect()
        if ranks.rank == 1:
            raise ZeroDivisionError("of rank 1")
        ranks.barrier()
        print("never reached")
        """,
    )
    assert finished.returncode != 0
    assert "ZeroDivisionError: of rank 1" in finished.stderr
    assert "never reached" not in finished.stdout
