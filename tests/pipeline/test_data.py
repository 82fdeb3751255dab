"""Module 20: text becomes batches of one form, no token is lost unsaid, and ranks get what the configuration says."""

import dataclasses
import logging
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.pipeline import Config, DataConfig, TrainingConfig
from tinytorch.pipeline.data import create_data_loaders, load_token_sequences, load_tokenizer

MODEL = tt.GPTConfig(vocab_size=60, n_positions=64, n_embd=8, n_layer=1, n_head=2)
RNG = np.random.default_rng(0)
SEQUENCES = [RNG.integers(2, 60, n) for n in RNG.integers(2, 33, 60)]


class Rank(NamedTuple):
    """What the loaders need to know of `tt.distributed.Ranks`."""

    rank: int
    world_size: int
    is_distributed: bool = True


def config(batch_size=4, *, model=MODEL, seed=42, **data):
    data = {"max_seq_length": 32, "num_workers": 0, **data}
    return Config(model, TrainingConfig(batch_size=batch_size), DataConfig(**data), seed=seed)


def loaders(dataset=SEQUENCES, val_dataset=None, ranks=None, **settings):
    return create_data_loaders(dataset, val_dataset, config(**settings), ranks)


def one_pass(loader):
    """Batches as dicts of arrays."""
    return [{name: x.numpy() for name, x in batch.items()} for batch in loader]


def sequences_in(batches):
    """The sequences of batches, packed or padded, as tuples."""
    found = []
    for batch in batches:
        documents = batch.get("documents", np.zeros_like(batch["input_ids"]))
        for ids, real, document in zip(batch["input_ids"], batch["attention_mask"], documents):
            found += [tuple(ids[real & (document == i)].tolist()) for i in np.unique(document[real])]
    return Counter(found)


def as_counted(sequences):
    return Counter(tuple(ids.tolist()) for ids in sequences)


# ---- batches


@pytest.mark.parametrize(
    "data",
    [{}, {"packing": True}, {"bucket_by_length": True}, {"max_tokens_per_batch": 64}, {"shuffle_data": False}],
    ids=str,
)
def test_every_sequence_comes_once_per_pass_in_the_one_form_of_a_batch(data):
    loader, _ = loaders(**data)
    for _ in range(2):
        batches = one_pass(loader)
        assert len(batches) == len(loader)
        assert sequences_in(batches) == as_counted(SEQUENCES)
        for batch in batches:
            ids, labels, real = batch["input_ids"], batch["labels"], batch["attention_mask"]
            assert ids.dtype == labels.dtype == np.int64 and real.dtype == bool
            assert ids.shape == labels.shape == real.shape and len(ids) <= 4
            assert (labels == np.where(real, ids, -100)).all()  # not shifted: the loss does that, once
            assert ("documents" in batch) == ("packing" in data)


def test_packed_rows_are_full_and_keep_the_documents_apart():
    loader, _ = loaders(packing=True)
    batches = one_pass(loader)
    assert {batch["input_ids"].shape[1] for batch in batches} == {32}
    places = sum(batch["input_ids"].size for batch in batches)
    assert sum(map(len, SEQUENCES)) / places > 0.9


def test_batches_of_like_length_hold_less_padding():
    def padding(**data):
        batches = one_pass(loaders(**data)[0])
        return 1 - np.concatenate([batch["attention_mask"].ravel() for batch in batches]).mean()

    assert padding(bucket_by_length=True) < 0.6 * padding()


def test_a_budget_of_tokens_holds_beside_the_number_of_rows():
    sizes = [batch["input_ids"].shape for batch in one_pass(loaders(batch_size=8, max_tokens_per_batch=64)[0])]
    assert max(rows * columns for rows, columns in sizes) <= 64
    assert max(rows for rows, _ in sizes) == 8
    rows = {batch["input_ids"].shape[0] for batch in one_pass(loaders(packing=True, max_tokens_per_batch=64)[0])}
    assert max(rows) == 2


@pytest.mark.parametrize("data", [{}, {"bucket_by_length": True}, {"packing": True}])
def test_the_order_depends_on_the_seed_alone(data):
    def orders(seed):
        loader, _ = loaders(seed=seed, **data)
        return [str(one_pass(loader)) for _ in range(2)]

    first, second = orders(1)
    tt.manual_seed(3)
    assert orders(1) == [first, second]
    assert first != second and first != orders(2)[0]


def test_without_shuffling_sequences_come_in_order():
    loader, _ = loaders(shuffle_data=False, batch_size=1)
    assert [batch["input_ids"][0].tolist() for batch in one_pass(loader)] == [ids.tolist() for ids in SEQUENCES]


def test_batches_prepared_ahead_are_the_same():
    plain, ahead = loaders()[0], loaders(num_workers=3)[0]
    assert (plain.prefetch, ahead.prefetch) == (0, 3)
    assert str(one_pass(plain)) == str(one_pass(ahead))


def test_the_padding_is_the_models():
    model = tt.MambaConfig.tiny(vocab_size=60, pad_token_id=5)
    loader, _ = loaders([[1, 2], [1, 2, 3]], model=model, shuffle_data=False)
    assert one_pass(loader)[0]["input_ids"].tolist() == [[1, 2, 5], [1, 2, 3]]


def test_validation_is_not_shuffled_and_may_be_missing():
    _, val = loaders(val_dataset=SEQUENCES[:6])
    first, second = one_pass(val), one_pass(val)
    assert str(first) == str(second)
    assert first[0]["input_ids"][0, : len(SEQUENCES[0])].tolist() == SEQUENCES[0].tolist()
    assert loaders(val_dataset=None)[1] is None and loaders(val_dataset=[])[1] is None


# ---- too long, too short


def test_what_is_cut_off_is_said_once_with_how_many(caplog):
    long = [np.arange(2, 50), np.arange(2, 34), np.arange(2, 58), np.arange(2, 5)]
    loader, _ = loaders(long)
    batches = one_pass(loader), one_pass(loader)
    assert sequences_in(batches[0]) == as_counted([ids[:32] for ids in long])
    (record,) = caplog.records
    assert record.name == "tinytorch" and record.levelno == logging.WARNING
    assert record.getMessage() == (
        "2 of 4 training sequences are longer than max_seq_length=32 and lose their end; data.packing=True keeps it."
    )


def test_packing_cuts_into_pieces_and_loses_nothing(caplog):
    loader, _ = loaders([np.arange(2, 50), np.arange(2, 58)], packing=True)
    pieces = [range(2, 34), range(34, 50), range(2, 34), range(34, 58)]
    assert sequences_in(one_pass(loader)) == Counter(map(tuple, pieces))
    assert not caplog.records


@pytest.mark.parametrize("packing", [False, True])
def test_rows_with_nothing_to_predict_are_left_out_and_counted(packing, caplog):
    samples = [[1], [1, 2], {"input_ids": [1, 2], "labels": [1, -100]}, [3] * 33]
    loader, _ = loaders(samples, packing=packing, batch_size=1, max_seq_length=2)
    targets = []
    for batch in one_pass(loader):
        same = np.diff(batch["documents"]) == 0 if packing else True
        targets.append((same & (batch["labels"][:, 1:] != -100)).sum())
    assert min(targets) > 0 and sum(targets) == (17 if packing else 2)
    assert "have nothing to predict and are left out" in caplog.text


def test_without_anything_to_predict_there_is_no_loader():
    with pytest.raises(ValueError, match="The training data need at least one sequence of 2 tokens or more"):
        loaders([[1], [2]])
    with pytest.raises(ValueError, match=r"The validation data need .* none of 1 is"):
        loaders(val_dataset=[[1]])
    with pytest.raises(ValueError, match="The training data need"):
        loaders([])


def test_a_sequence_beyond_the_budget_is_refused():
    with pytest.raises(ValueError, match="Sample 0 has 32 tokens, but max_tokens=30 is the most"):
        loaders([np.arange(2, 50)], max_tokens_per_batch=30)


# ---- many ranks


@pytest.mark.parametrize("data", [{}, {"packing": True}, {"bucket_by_length": True}, {"max_tokens_per_batch": 64}])
def test_ranks_share_nothing_and_together_have_everything(data):
    dealt = [loaders(ranks=Rank(rank, 2), **data)[0] for rank in range(2)]
    for epoch in range(2):
        for loader in dealt:
            loader.batch_sampler.set_epoch(epoch)
        batches = [one_pass(loader) for loader in dealt]
        assert len(batches[0]) == len(batches[1])
        padding = dealt[0].batch_sampler.padding
        seen = sequences_in(batches[0]) + sequences_in(batches[1])
        assert seen.keys() == as_counted(SEQUENCES).keys()
        assert padding or seen == as_counted(SEQUENCES)


def test_ranks_see_another_order_in_every_epoch():
    loader, _ = loaders(ranks=Rank(0, 2))
    first = str(one_pass(loader))
    assert str(one_pass(loader)) == first  # a function of the epoch, not of how often it was asked for
    loader.batch_sampler.set_epoch(1)
    assert str(one_pass(loader)) != first


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_in_validation_no_batch_comes_twice_and_none_is_missing(ranks):
    alone = one_pass(loaders(val_dataset=SEQUENCES[:9])[1])
    dealt = [one_pass(loaders(val_dataset=SEQUENCES[:9], ranks=Rank(rank, ranks))[1]) for rank in range(ranks)]
    assert sorted(str(batch) for part in dealt for batch in part) == sorted(map(str, alone))
    assert [len(part) for part in dealt] == [len(alone[rank::ranks]) for rank in range(ranks)]


def test_one_rank_alone_is_as_without_ranks_and_only_the_first_warns(caplog):
    alone = loaders(ranks=Rank(0, 1, is_distributed=False))[0]
    assert str(one_pass(alone)) == str(one_pass(loaders()[0]))
    for rank in range(3):
        loaders([np.arange(2, 50)] * 4, ranks=Rank(rank, 3))
    assert len(caplog.records) == 1


# ---- training on it


def test_a_resumed_training_gets_the_same_batches(tmp_path):
    def trainer(folder):
        tt.manual_seed(0)
        model, seen = tt.GPT(MODEL), []
        loader, _ = loaders(bucket_by_length=True)

        def loss_fn(model, batch):
            seen.append(batch["input_ids"].tolist())
            logits, labels = model(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
            return tt.cross_entropy(logits.flatten(0, 1), labels.flatten()), (labels != -100).sum().item()

        optimizer = tt.AdamW(model.parameters(), lr=1e-3)
        return tt.Trainer(model, optimizer, loader, loss_fn, checkpoints=tt.Checkpoints(tmp_path / folder)), seen

    (whole, all_batches), (stopped, before) = trainer("a"), trainer("b")
    whole.fit(20)  # a pass has 15
    stopped.fit(7)
    resumed, after = trainer("b")
    resumed.resume()
    resumed.fit(20)
    assert before + after == all_batches
    assert resumed.history["loss"] == whole.history["loss"]


# ---- text


TEXTS = [f"document {i}\nin {i} lines, öfter" for i in range(20)]


@pytest.fixture
def tokenizer():
    return tt.CharTokenizer.from_text("".join(TEXTS))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    for i, text in enumerate(TEXTS):
        file = folder / ("more" if i % 2 else "") / f"{i:02}.txt"
        file.write_text(text, encoding="utf-8")
    (folder / "notes.md").write_text("not read", encoding="utf-8")
    return folder


def texts_of(tokenizer, sequences):
    assert all(ids[-1] == tokenizer.end_id and ids.dtype == np.int64 for ids in sequences)
    return [tokenizer.decode(ids) for ids in sequences]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_folder_is_read_and_split_by_documents(folder, tokenizer, size):
    settings = {"dataset_path": folder, "preprocessing_batch_size": size, "train_split": 0.8, "val_split": 0.2}
    train, val = load_token_sequences(config(**settings), tokenizer)
    assert (len(train), len(val)) == (16, 4)
    assert sorted(texts_of(tokenizer, train) + texts_of(tokenizer, val)) == sorted(TEXTS)


def test_a_file_holds_documents_between_blank_lines(tmp_path, tokenizer):
    path = tmp_path / "text.txt"
    path.write_text("\n\n" + "\n \n\n".join(TEXTS) + "\n\n", encoding="utf-8")
    train, val = load_token_sequences(config(dataset_path=path), tokenizer)
    assert sorted(texts_of(tokenizer, train) + texts_of(tokenizer, val)) == sorted(TEXTS)
    assert len(val) == 2


def test_the_split_depends_on_the_seed_alone_and_keeps_the_order(folder, tokenizer):
    def split(seed):
        return texts_of(tokenizer, load_token_sequences(config(dataset_path=folder, seed=seed), tokenizer)[1])

    chosen = split(1)
    tt.rand(3)
    assert split(1) == chosen != split(2)
    train, _ = load_token_sequences(config(dataset_path=folder), tokenizer)
    order = [text for i in (0, 1) for text in TEXTS[i::2]]  # the folder's own files, then those of the one below
    read = texts_of(tokenizer, train)
    assert read == [text for text in order if text in read]


@pytest.mark.parametrize(("share", "held_out"), [(0.001, 1), (0.1, 2), (0.5, 10), (0, 0)])
def test_at_least_one_document_is_held_out_unless_none_is_wanted(folder, tokenizer, share, held_out):
    settings = config(dataset_path=folder, train_split=1 - share, val_split=share)
    train, val = load_token_sequences(settings, tokenizer)
    assert (len(train), len(val)) == (20 - held_out, held_out)


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_the_tokenizer_comes_from_its_file(folder, tmp_path, tokenizer, kind):
    model = dataclasses.replace(MODEL, vocab_size=300)
    saved = tokenizer if kind == "characters" else tt.BPETokenizer.train(TEXTS, 290)
    saved.save(tmp_path / "tokenizer.json")
    settings = config(model=model, dataset_path=folder, tokenizer_path=tmp_path / "tokenizer.json")
    for ours, theirs in zip(load_token_sequences(settings), load_token_sequences(settings, saved)):
        assert [ids.tolist() for ids in ours] == [ids.tolist() for ids in theirs]


def test_how_far_it_is_is_logged(folder, tokenizer, caplog):
    with caplog.at_level(logging.INFO, "tinytorch"):
        load_token_sequences(config(dataset_path=folder, preprocessing_batch_size=8), tokenizer)
    counts = [8, 16, 20]
    assert [record.args[0] for record in caplog.records] == counts
    assert caplog.messages[-1] == f"Tokenised 20 documents, {sum(len(text) + 1 for text in TEXTS)} tokens."


# ---- text that cannot be


def test_paths_that_lead_nowhere_are_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"needs data.dataset_path in the configuration, but it is not set"):
        load_token_sequences(config(), tokenizer)
    with pytest.raises(ValueError, match=r"needs data.tokenizer_path in the configuration"):
        load_token_sequences(config(dataset_path=tmp_path))
    with pytest.raises(FileNotFoundError, match=r"data.dataset_path is .*missing, but nothing is there"):
        load_token_sequences(config(dataset_path=tmp_path / "missing"), tokenizer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.txt is empty. Remove it, or put text into it"),
        (b" \n\n ", r"a\.txt is empty"),
        (b"\xff\xfe", r"a\.txt needs to be text in UTF-8, but invalid start byte at byte 0"),
    ],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_files_without_text_are_refused_by_name(tmp_path, tokenizer, content, message, as_folder):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_token_sequences(config(dataset_path=tmp_path if as_folder else tmp_path / "a.txt"), tokenizer)


def test_text_that_does_not_suffice_is_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"needs at least one \.txt file, but has none"):
        load_token_sequences(config(dataset_path=tmp_path), tokenizer)
    (tmp_path / "a.txt").write_text(TEXTS[0], encoding="utf-8")
    with pytest.raises(ValueError, match=r"val_split=0.1 of the documents leaves none to train on, as there are 1"):
        load_token_sequences(config(dataset_path=tmp_path), tokenizer)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder, tokenizer):
    small = dataclasses.replace(MODEL, vocab_size=5)
    with pytest.raises(ValueError, match=f"vocab_size of at least {tokenizer.vocab_size}, .* but got 5"):
        load_token_sequences(config(model=small, dataset_path=folder), tokenizer)


@pytest.mark.parametrize("content", ["{", "[]", '{"type": "other"}', "{}"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "t.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"t\.json is not a tokenizer: .* Save one with tokenizer.save"):
        load_tokenizer(tmp_path / "t.json")
