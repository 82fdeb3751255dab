"""The framework on arrays that only answer NumPy's dispatch protocols, as CuPy's do: proof without a GPU.

`strict_array` stands in for the module cupy, so that `device="cuda"` leads to it; nothing of the framework is patched.
"""

import sys

import numpy as np
import pytest
import strict_array
from catalogue import each_case
from strict_array import StrictArray

import tinytorch as tt
from tinytorch import device


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_array)
    return "cuda"


def on_cpu(array):
    return np.array(array)


def run(case, move):
    """The output of a case and the gradients of its inputs, all of which lie where `move` puts the inputs."""
    tensors = [tt.Tensor(move(x), requires_grad=x.dtype.kind == "f") for x in case.inputs()]
    output = case.function(*tensors)
    output.backward(move(np.random.default_rng(1).standard_normal(output.shape)))
    return [output.data] + [x.grad.data for x in tensors if x.requires_grad]


# ---- the stand-in refuses what it says


@pytest.fixture
def x():
    return strict_array.asarray(np.array([[1.0, 2.0], [3.0, 4.0]]))


class TestStrictArray:
    @pytest.mark.parametrize("convert", [np.asarray, np.array])
    def test_it_does_not_become_a_numpy_array_unasked(self, x, convert):
        with pytest.raises(TypeError, match="Implicit conversion"):
            convert(x)

    @pytest.mark.parametrize("other", [np.ones((2, 2)), np.ones(()), [np.ones(2), np.ones(2)]], ids=type)
    def test_it_does_not_mix_with_numpy_arrays(self, x, other):
        for mix in (
            lambda: x + other,
            lambda: other * x,
            lambda: np.maximum(x, other),
            lambda: np.matmul(other, x),
            lambda: np.where(x > 0, x, other),
            lambda: np.concatenate([x, other]),
        ):
            with pytest.raises(TypeError, match="Unsupported type"):
                mix()

    def test_it_is_not_written_into_a_numpy_array(self, x):
        y = np.ones((2, 2))
        with pytest.raises(TypeError, match="Unsupported type"):
            np.exp(x, out=y)
        with pytest.raises(TypeError, match="Unsupported type"):
            y += x
        with pytest.raises(TypeError, match="Implicit conversion"):
            y[...] = x

    def test_no_numpy_array_is_written_into_it_or_picks_from_it(self, x):
        with pytest.raises(TypeError, match="Unsupported type"):
            x[...] = np.ones((2, 2))
        with pytest.raises(TypeError, match="Unsupported type"):
            x += np.ones((2, 2))
        with pytest.raises(TypeError, match="Unsupported type"):
            x[np.array([0, 1])]
        with pytest.raises(TypeError, match="Unsupported type"):
            x[:, np.array([0, 1])] = 0

    def test_only_calls_of_ufuncs_are_answered(self, x):
        for method in (
            lambda: np.add.at(x, 0, 1.0),
            lambda: np.add.reduce(x),
            lambda: np.add.reduceat(x, [0, 1]),
            lambda: np.multiply.outer(x, x),
        ):
            with pytest.raises(TypeError, match=r"does not support|operand type"):
                method()

    def test_functions_and_arguments_that_cupy_lacks_are_refused(self, x):
        for call in (
            lambda: np.sum(x, where=x > 1),
            lambda: np.max(x, initial=0.0),
            lambda: np.insert(x, 0, 1.0),
            lambda: np.vecdot(x, x),
        ):
            with pytest.raises(TypeError, match=r"no implementation found|operand type"):
                call()
        with pytest.raises(AttributeError, match="no attribute 'itemset'"):
            x.itemset(0)

    def test_scalars_of_python_and_numpy_are_welcome(self, x):
        y = (2.0 * x + np.float64(1)) / np.int64(2)
        assert isinstance(y, StrictArray)
        np.testing.assert_array_equal(y.get(), [[1.5, 2.5], [3.5, 4.5]])

    def test_a_reduction_stays_on_the_device(self, x):
        total = x.sum()
        assert isinstance(total, StrictArray) and total.shape == ()
        assert (float(total), int(total), bool(total), total.item()) == (10.0, 10, True, 10.0)

    def test_operators_in_place_change_the_array_itself(self, x):
        same = x
        same *= 2
        same[0] = -1.0
        assert same is x
        np.testing.assert_array_equal(x.get(), [[-1, -1], [6, 8]])

    def test_what_get_returns_is_a_copy(self, x):
        x.get()[...] = 0
        assert x.sum().item() == 10

    def test_views_know_their_base_as_in_cupy(self, x):
        assert x[:1].base is x and x[:1].reshape(2, 1).base is x and x.T.base is x
        assert x.base is None and x.copy().base is None and (x + 1).base is None

    def test_its_module_adds_at_repeated_indices(self, x):
        strict_array.add.at(x, strict_array.asarray(np.array([0, 0])), 1.0)
        np.testing.assert_array_equal(x.get(), [[3, 4], [3, 4]])


# ---- the seam


def test_the_seam_finds_library_and_device_of_an_array(x):
    assert device.array_module(x) is strict_array
    assert device.array_module(x.get()) is np
    assert tt.Tensor(x).device == "cuda"


def test_tensors_travel_to_the_device_and_back(cuda):
    there = tt.arange(3.0).to(cuda)
    assert isinstance(there.data, StrictArray) and there.device == cuda
    assert there.to(cuda) is there
    back = there.to("cpu")
    assert isinstance(back.data, np.ndarray)
    np.testing.assert_array_equal(back.numpy(), [0, 1, 2])


def test_gradients_travel_back_to_where_their_leaf_lives(cuda):
    x = tt.tensor([1.0, 2.0], requires_grad=True)
    (x.to(cuda) * 3).to("cpu").backward(np.ones(2))
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3])
    y = tt.tensor([1.0, 2.0], requires_grad=True, device=cuda)
    (y.to("cpu") * 3).backward(np.ones(2))
    assert isinstance(y.grad.data, StrictArray)


@pytest.mark.parametrize(
    "make",
    [
        lambda device: tt.tensor([1.0, 2.0], device=device),
        lambda device: tt.full((2,), 1.5, device=device),
        lambda device: tt.zeros(2, device=device),
        lambda device: tt.arange(2, device=device),
        lambda device: tt.eye(2, device=device),
        lambda device: tt.randn(2, generator=tt.Generator(0), device=device),
        lambda device: tt.rand(2, generator=tt.Generator(0), device=device),
        lambda device: tt.ones_like(tt.zeros(2, device=device)),
        lambda device: tt.randn_like(tt.zeros(2, device=device), generator=tt.Generator(0)),
    ],
)
def test_new_tensors_are_made_on_the_device_with_the_same_values(cuda, make):
    there = make(cuda)
    assert isinstance(there.data, StrictArray)
    np.testing.assert_array_equal(there.numpy(), make("cpu").numpy())


def test_values_are_read_from_the_device(cuda):
    x = tt.tensor([1.0, 2.0], device=cuda)
    assert (x.tolist(), x[1].item(), float(x.sum()), len(x)) == ([1.0, 2.0], 2.0, 3.0, 2)
    assert repr(x) == "tensor([1., 2.], device='cuda')"


# ---- every operation


@each_case
def test_every_operation_gives_the_same_on_the_device(case, cuda):
    for there, here in zip(run(case, strict_array.asarray), run(case, on_cpu), strict=True):
        assert isinstance(there, StrictArray)
        assert there.dtype == here.dtype
        np.testing.assert_allclose(there.get(), here, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x > 1) & (x <= 3) | ~(x != 2),
        lambda x: (x == 2).any(),
        lambda x: (x >= 1).all(dim=1),
        lambda x: x < 2.5,
        lambda x: x.argmax(dim=1),
        lambda x: x.argmin(),
    ],
)
def test_comparisons_and_indices_too(function):
    array = np.array([[1.0, 2.0], [3.0, 4.0]])
    there = function(tt.Tensor(strict_array.asarray(array)))
    assert isinstance(there.data, StrictArray)
    np.testing.assert_array_equal(there.numpy(), function(tt.Tensor(array)).numpy())


# ---- a model


def small_gpt():
    config = tt.GPTConfig(vocab_size=11, n_positions=12, n_embd=8, n_layer=2, n_head=2)
    return tt.GPT(config, generator=tt.Generator(0))


IDS = np.random.default_rng(3).integers(0, 11, (3, 8))


def train(where, optimizer, steps=3):
    """The loss of each step, the norm of each gradient, and the weights after."""
    model = small_gpt().to(where)
    ids = tt.tensor(IDS, device=where)
    optimizer = optimizer(model.parameters(), lr=0.01)
    seen = []
    for _ in range(steps):
        loss = tt.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        seen.append((loss.item(), tt.clip_grad_norm_(model.parameters(), 0.5).item()))
        optimizer.step()
    return seen, model.state_dict()


@pytest.mark.parametrize("optimizer", [tt.SGD, tt.Adam, tt.AdamW])
def test_a_gpt_trains_on_the_device_as_on_the_cpu(cuda, optimizer):
    seen_there, weights_there = train(cuda, optimizer)
    seen_here, weights_here = train("cpu", optimizer)
    np.testing.assert_allclose(seen_there, seen_here, rtol=1e-5)
    for name, here in weights_here.items():
        assert isinstance(weights_there[name].data, StrictArray)
        np.testing.assert_allclose(weights_there[name].numpy(), here.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_gpt_writes_the_same_on_the_device(cuda, use_cache):
    prompt = tt.tensor(IDS[:, :4])
    here = small_gpt().generate(prompt, 8, use_cache=use_cache, temperature=0)
    there = small_gpt().to(cuda).generate(prompt.to(cuda), 8, use_cache=use_cache, temperature=0)
    assert isinstance(there.data, StrictArray)
    np.testing.assert_array_equal(there.numpy(), here.numpy())


def test_a_state_dict_loads_across_devices(cuda):
    here, there = small_gpt(), tt.GPT(small_gpt().config, generator=tt.Generator(1)).to(cuda)
    there.load_state_dict(here.state_dict())
    for name, tensor in there.state_dict().items():
        assert isinstance(tensor.data, StrictArray)
        np.testing.assert_array_equal(tensor.numpy(), here.state_dict()[name].numpy())
    back = tt.GPT(small_gpt().config, generator=tt.Generator(2))
    back.load_state_dict(there.state_dict())
    for name, tensor in back.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), here.state_dict()[name].numpy())


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="'cpu' or 'cuda', but got 'tpu'"):
        tt.zeros(2, device="tpu")


def test_a_missing_gpu_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(device, "is_cuda_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"needs CuPy and an NVIDIA GPU.*Install the extra 'cuda'"):
        tt.zeros(2).to("cuda")


# ---- going on elsewhere


def trainer_on(where, folder):
    model = tt.Sequential(tt.Linear(3, 4), tt.Tanh(), tt.Linear(4, 1)).to(where)
    batches = [tt.tensor(np.random.default_rng(i).standard_normal((5, 3)), tt.float32, device=where) for i in range(4)]
    return tt.Trainer(
        model,
        tt.Adam(model.parameters(), lr=0.05),
        batches,
        lambda model, x: (model(x) * model(x)).mean(),
        checkpoints=tt.Checkpoints(folder),
    )


@pytest.mark.parametrize("places", [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")], ids="-then-".join)
def test_a_run_resumes_on_any_device(places, cuda, tmp_path):
    tt.manual_seed(0)
    whole = trainer_on("cpu", tmp_path / "whole").fit(6)["loss"]
    tt.manual_seed(0)
    trainer_on(places[0], tmp_path / "parts").fit(3)
    trainer = trainer_on(places[1], tmp_path / "parts")
    trainer.resume()
    np.testing.assert_allclose(trainer.fit(6)["loss"], whole, rtol=1e-5)


def test_a_model_may_move_between_two_steps_of_its_optimizer(cuda):
    model = tt.Linear(2, 1)
    optimizer = tt.Adam(model.parameters(), lr=0.1)
    for where in ("cpu", cuda, "cpu"):
        model.to(where)
        model(tt.ones(3, 2, device=where)).sum().backward()
        optimizer.step()
        model.zero_grad()
    assert model.weight.device == "cpu"
    assert optimizer.state_dict()["state"][0]["step"] == 3
