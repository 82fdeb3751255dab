"""Hugging Face's Mamba beside ours, live, on random small configurations: weights both ways, learning, writing."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.mamba import Mamba, MambaConfig
from tinytorch.testing import assert_close

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.oracle
IDS = np.random.default_rng(1).integers(0, 50, (2, 17))


@pytest.fixture(scope="module")
def hub():
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def drawn(seed):
    """A random small configuration, in our words."""
    rng = np.random.default_rng(seed)
    sizes = {"d_model": (5, 25), "d_state": (1, 9), "d_conv": (2, 6), "expand": (1, 4), "n_layers": (1, 4)}
    fields = {name: int(rng.integers(*limits)) for name, limits in sizes.items()}
    fields |= {name: bool(rng.integers(2)) for name in ("bias", "conv_bias", "tie_word_embeddings")}
    rank = [None, 1, 3][rng.integers(3)]
    return MambaConfig(vocab_size=50, dt_rank=rank, layer_norm_epsilon=float(10 ** rng.uniform(-6, -2)), **fields)


every_shape = pytest.mark.parametrize("seed", range(5))


def randomised(parameters, seed=0):
    """Numbers that are large enough that none is without effect."""
    rng = np.random.default_rng(seed)
    for name, parameter in parameters:
        gain = "norm" in name or name.endswith(".D")
        parameter.data[...] = 0.15 * rng.standard_normal(parameter.shape).astype(np.float32) + gain


@pytest.fixture
def both(hub, tmp_path):
    """A function that makes our model, and theirs from the folder that ours was saved in."""

    def make(seed):
        ours = Mamba(drawn(seed))
        randomised(ours.named_parameters())
        ours.save_pretrained(tmp_path)
        theirs, report = hub.MambaForCausalLM.from_pretrained(tmp_path, output_loading_info=True, use_mambapy=False)
        assert not any(report.values())  # nothing missing, unexpected or of another shape
        return ours, theirs

    return make


def logits_of(theirs):
    with torch.no_grad():
        return theirs(torch.tensor(IDS)).logits.numpy()


@every_shape
def test_our_folders_load_there(both, seed):
    ours, theirs = both(seed)
    assert_close(ours(tt.tensor(IDS)), logits_of(theirs), 1e-4, 1e-5)


@every_shape
def test_our_folders_of_half_the_size_load_there(hub, seed, tmp_path):
    ours = Mamba(drawn(seed))
    randomised(ours.named_parameters())
    ours.save_pretrained(tmp_path, dtype="bfloat16")
    theirs, report = hub.MambaForCausalLM.from_pretrained(tmp_path, output_loading_info=True, use_mambapy=False)
    assert not any(report.values())
    state = theirs.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    for name, tensor in Mamba.from_pretrained(tmp_path).state_dict().items():
        assert_close(tensor, state[name].float().numpy(), 0, 0, what=name)
        assert_close(tensor, tt.round_to(ours.state_dict()[name].numpy(), "bfloat16"), 0, 0, what=name)


@every_shape
def test_their_folders_load_here(both, seed, tmp_path):
    _, theirs = both(seed)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Mamba.from_pretrained(tmp_path / "theirs")
    assert_close(ours(tt.tensor(IDS)), logits_of(theirs), 1e-4, 1e-5)


@every_shape
def test_gradients_of_every_parameter_and_ten_steps_agree(both, seed):
    ours, theirs = both(seed)
    theirs.train()
    others = dict(theirs.named_parameters())
    optimizer = tt.AdamW(ours.parameters(), lr=3e-3, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs.parameters(), lr=3e-3, weight_decay=0.1)
    for step in range(10):
        loss, _ = tt.next_token_loss(ours, tt.tensor(IDS))
        optimizer.zero_grad()
        loss.backward()
        expected = theirs(torch.tensor(IDS), labels=torch.tensor(IDS)).loss
        reference.zero_grad()
        expected.backward()
        assert_close(loss, expected.item(), 1e-4)
        for name, parameter in ours.named_parameters() if step == 0 else ():
            there = others[name].grad.numpy()
            assert_close(parameter.grad, there, 1e-3, 1e-5 * np.abs(there).max(), what=name)
        optimizer.step()
        reference.step()
    for name, parameter in ours.named_parameters():
        assert_close(parameter, others[name].detach().numpy(), 0, 3e-4, what=name)


@every_shape
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_they_write_the_same(both, seed, penalty):
    ours, theirs = both(seed)
    settings = {"do_sample": False, "repetition_penalty": penalty, "eos_token_id": None, "pad_token_id": 0}
    there = theirs.generate(torch.tensor(IDS), max_new_tokens=12, **settings).tolist()
    assert ours.generate(tt.tensor(IDS), 12, temperature=0, repetition_penalty=penalty).tolist() == there


@every_shape
def test_behind_padding_stands_what_they_compute_without_it(both, seed):
    """Without it: theirs lets the bias of in_proj into the state at padding, and so what follows is another."""
    ours, theirs = both(seed)
    padding = np.arange(17) < np.array([[0], [6]])
    here = ours(tt.tensor(IDS), key_padding_mask=tt.tensor(padding))
    with torch.no_grad():
        there = theirs(torch.tensor(IDS[1:, 6:])).logits.numpy()
    assert_close(here[1:, 6:], there, 1e-4, 1e-5)
