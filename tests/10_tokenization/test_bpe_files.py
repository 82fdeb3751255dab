"""Module 10: byte-pair encodings in files: our own, foreign ones, and GPT-2's."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.tokenization.words import token_name

property_test = settings(deadline=None, derandomize=True, max_examples=150)
BYTES = [bytes([value]) for value in range(256)]


# ---- files


@property_test
@given(st.text(st.sampled_from("aab \né"), min_size=1, max_size=30), st.text())
def test_a_saved_tokenizer_is_loaded_as_it_was(tmp_path_factory, corpus, text):
    path = tmp_path_factory.mktemp("tokenizer") / "bpe.json"
    tokenizer = tt.BPETokenizer.train(corpus, 270, ["<pad>", "<end>", "Ā"])  # named like the byte 0
    tokenizer.save(path)
    loaded = tt.BPETokenizer.load(str(path))
    assert (loaded.vocab, loaded.merges) == (tokenizer.vocab, tokenizer.merges)
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.special_tokens == tokenizer.special_tokens


def test_the_file_is_readable_json(tmp_path):
    tt.BPETokenizer.train("the the the", 261).save(tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text(encoding="ascii"))
    assert content["type"] == "bpe"
    assert content["vocab"][:2] == [{"special": "<pad>"}, {"special": "<end>"}]
    assert content["vocab"][258:] == ["he", "the", "Ġthe"]
    assert content["merges"] == ["h e", "t he", "Ġ the"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'{"type": "bpe"}',
        b'{"type": "bpe", "vocab": ["a"], "merges": []}',
        b'{"type": "bpe", "vocab": [{"special": "<end>"}], "merges": []}',
        b'{"type": "bpe", "vocab": [" "], "merges": []}',
        b'{"type": "bpe", "vocab": [{"name": "x"}], "merges": []}',
        b'{"type": "bpe", "vocab": [], "merges": ["a b c"]}',
        b'{"type": "bpe", "vocab": [3], "merges": [4]}',
        b'{"type": "char", "alphabet": ["a"]}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}}}',
        b"\x80\x04\x95\xff",
    ],
)
def test_a_foreign_file_is_refused_by_name(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.json is not a BPE tokenizer"):
        tt.BPETokenizer.load(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tt.BPETokenizer.load(tmp_path / "nowhere.json")


# ---- GPT-2's files


def write_gpt2(folder, vocab=None, merges="#version: 0.2\nĠ t\nh e\nĠt he\n"):
    """A small tokenizer in GPT-2's files, with its order: bytes by name, merges, the end of a text last."""
    names = [*sorted(map(token_name, BYTES)), "Ġt", "he", "Ġthe", "<|endoftext|>"]
    vocab = json.dumps({name: i for i, name in enumerate(names)}) if vocab is None else vocab
    (folder / "vocab.json").write_text(vocab, encoding="utf-8")
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    return names


def test_gpt2s_files_are_read(tmp_path):
    names = write_gpt2(tmp_path)
    tokenizer = tt.BPETokenizer.from_gpt2(tmp_path)
    assert tokenizer.vocab_size == 260
    assert tokenizer.special_tokens == {"<|endoftext|>": 259}
    assert tokenizer.pad_id == tokenizer.end_id == 259
    assert tokenizer.merges == [(b" ", b"t"), (b"h", b"e"), (b" t", b"he")]
    assert [names[i] for i in tokenizer.encode("the the then\n", add_end=True)] == [
        "t", "he", "Ġthe", "Ġthe", "n", "Ċ", "<|endoftext|>",
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("the 日", add_end=True)) == "the 日"
    tokenizer.save(tmp_path / "saved.json")
    assert tt.BPETokenizer.load(tmp_path / "saved.json").vocab == tokenizer.vocab


@pytest.mark.parametrize(
    "files",
    [
        {"vocab": "["},
        {"vocab": "[]"},
        {"vocab": "{}"},
        {"vocab": '{"a": 0}'},
        {"vocab": '{"a": 0, "b": null}'},
        {"vocab": json.dumps({**{token_name(byte): i for i, byte in enumerate(BYTES)}, "<|endoftext|>": 300})},
        {"merges": ""},
        {"merges": "#version: 0.2\na b c\n"},
        {"merges": "#version: 0.2\nx y\n"},
        {"merges": "#version: 0.2\n日 本\n"},
    ],
    ids=["torn", "list", "empty", "bytes", "null", "gap", "no merges", "three", "unknown", "no bytes"],
)
def test_other_files_than_gpt2s_are_refused_by_name(files, tmp_path):
    write_gpt2(tmp_path, **files)
    with pytest.raises(ValueError, match=f"{tmp_path.name} has no vocab.json and merges.txt of GPT-2's kind"):
        tt.BPETokenizer.from_gpt2(tmp_path)


def test_a_folder_without_them_is_missing_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vocab\.json"):
        tt.BPETokenizer.from_gpt2(tmp_path)
