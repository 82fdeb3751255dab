"""A tiny GPT, tiny data and a trainer of both, made anew as a script that is started again would make them."""

import dataclasses

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.pipeline import Config, DataConfig, DistributedTrainer, TrainingConfig

MODEL = tt.GPTConfig(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
TRAINING = TrainingConfig(
    batch_size=4,
    gradient_accumulation_steps=2,
    learning_rate=1e-2,
    num_epochs=3,
    save_steps=1000,
    eval_steps=1000,
    use_mixed_precision=False,
)


class Sequences(tt.Dataset):
    """Rows that count up modulo 11 from one of them, some of them shorter: batches of unequal numbers of tokens."""

    def __init__(self, rows=18, time=6):
        start = np.random.default_rng(3).integers(0, 11, (rows, 1))
        self.ids = (start + np.arange(time)) % 11
        self.mask = np.arange(time) < np.random.default_rng(4).integers(3, time + 1, (rows, 1))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        labels = np.where(self.mask[i], self.ids[i], -100)
        return {"input_ids": self.ids[i], "labels": labels, "attention_mask": self.mask[i]}


def make_config(folder, *, model=MODEL, data=None, failures=None, **training):
    settings = dataclasses.replace(TRAINING, **training)
    if failures is not None:
        settings = dataclasses.replace(settings, failures=failures)
    return Config(model, settings, data or DataConfig(max_seq_length=8), experiment_name="run", output_dir=str(folder))


@pytest.fixture
def build(tmp_path):
    """A function that makes a trainer in a folder of its own, `build("name", **fields of TrainingConfig)`."""

    def build(
        name="a",
        *,
        loss_fn=None,
        resume=None,
        evaluate=True,
        dropout=0.0,
        shuffle=True,
        loader=None,
        held_out=None,
        model=None,
        dtype=np.float32,
        **settings,
    ):
        model_config = dataclasses.replace(MODEL, dropout=dropout, **(model or {}))
        config = make_config(tmp_path / name, model=model_config, **settings)
        data = Sequences()
        loader = loader or tt.DataLoader(
            data, batch_size=4, shuffle=shuffle, generator=tt.Generator(5) if shuffle else None
        )
        if held_out is None and evaluate:
            held_out = tt.DataLoader(data, batch_size=4)
        model = tt.GPT(model_config, generator=tt.Generator(0)).to(dtype)
        more = {} if loss_fn is None else {"loss_fn": loss_fn}
        return DistributedTrainer(model, config, loader, held_out, resume, **more)

    return build
