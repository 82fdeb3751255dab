"""Settings in files: JSON, TOML, or YAML where PyYAML is installed; written whole or not at all."""

import importlib
import importlib.util
import json
import tomllib
from pathlib import Path

from ..training.files import write_whole


def write(path, described):
    """Write a dict of values and of further dicts to `path`, in the form that its suffix names."""
    encode, _ = _form_of(path)
    write_whole(path, encode(described).encode())


def read(path):
    """The dict in a file. Raises ValueError, with the path, where its text is not of the form that its suffix names."""
    _, decode = _form_of(path)
    try:
        return decode(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # also UnicodeDecodeError, and what json and tomllib raise
        raise ValueError(f"{path} is not readable as {Path(path).suffix[1:].upper()}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is no configuration: its tables are too deep in each other.") from error


def _form_of(path):
    """(to text, from text) for the suffix of a path."""
    forms = {
        ".json": (_to_json, _from_json),
        ".toml": (_to_toml, tomllib.loads),
        ".yaml": (_to_yaml, _from_yaml),
        ".yml": (_to_yaml, _from_yaml),
    }
    suffix = Path(path).suffix.lower()
    if suffix not in forms:
        raise ValueError(f"A configuration needs a file that ends in {', '.join(forms)}, but got {str(path)!r}.")
    return forms[suffix]


def _to_json(described):
    return json.dumps(described, indent=2) + "\n"


def _from_json(text):
    return json.loads(text, object_pairs_hook=_without_repeats)


def _without_repeats(pairs):
    """A dict of (name, value), or a ValueError for a name that comes twice: nobody could say which was meant."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice.")
    return table


def _to_toml(described, section=""):
    """The plain values first, then one [section] for each dict. TOML has no None: such a field is left out."""
    plain = {name: value for name, value in described.items() if value is not None and not isinstance(value, dict)}
    lines = [f"{name} = {_toml_value(value)}" for name, value in plain.items()]
    text = "".join(f"{line}\n" for line in lines)
    for name, inner in described.items():
        if isinstance(inner, dict):
            full = f"{section}.{name}" if section else name
            text += f"\n[{full}]\n{_to_toml(inner, full)}"
    return text


def _toml_value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # JSON's escapes are TOML's, but for the one control character that JSON lets through
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(float(value)) if isinstance(value, float) else repr(int(value))


def _yaml():
    if importlib.util.find_spec("yaml") is None:
        raise ImportError("A .yaml configuration needs PyYAML (pip install pyyaml). Or write .toml or .json instead.")
    return importlib.import_module("yaml")


def _to_yaml(described):
    return _yaml().safe_dump(described, sort_keys=False, allow_unicode=True)


def _from_yaml(text):
    yaml = _yaml()
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
