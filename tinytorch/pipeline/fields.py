"""Dataclasses of settings that say by name which value cannot be."""

import dataclasses
import difflib
import os
import sys
import typing


def build(cls, given, where):
    """A dataclass from a dict of its fields, or a ValueError that names the field that it does not have, or lacks."""
    given, fields = require_table(where, given), dataclasses.fields(cls)
    names = [field.name for field in fields]
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Its fields are {', '.join(names)}."
            raise ValueError(f"{where} has no field {name!r}. {hint}")
    missing = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING and f.name not in given]
    if missing:
        raise ValueError(f"{where} needs {', '.join(missing)}, but it is left out.")
    require_types_of(cls, given)
    return cls(**given)


def require_table(where, value):
    if not isinstance(value, dict):
        raise ValueError(f"{where} needs to be a table of fields, but got {value!r}.")
    return value


def require_types(config):
    require_types_of(type(config), {f.name: getattr(config, f.name) for f in dataclasses.fields(config)})


def require_types_of(cls, values):
    """Raise ValueError where a value is not of the type that the field of its name has in the dataclass `cls`."""
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        types = typing.get_args(hints[name]) or (hints[name],)
        allowed = (*types, int) if float in types else types
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in types):
            wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
            raise ValueError(f"{cls.__name__} needs {name} to be {wanted}, but got {value!r}.")
        largest = sys.float_info.max if float in types else 2**63 - 1  # what a machine's numbers hold
        if isinstance(value, int) and abs(value) > largest:
            bits = value.bit_length()
            raise ValueError(
                f"{cls.__name__} needs {name} to be at most {largest:.3g}, but got an integer of {bits} bits."
            )


def flat(described, prefix=""):
    """{"section.field": value} of a dict of dicts."""
    found = {}
    for name, value in described.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def require_field(config, name, condition, wanted):
    """Raise ValueError unless the condition on the field `name` holds."""
    if not condition:
        raise ValueError(f"{type(config).__name__} needs {name} to be {wanted}, but got {getattr(config, name)!r}.")


def as_text(config, *names):
    """Turn paths into the text that a file can hold."""
    for name in names:
        if isinstance(getattr(config, name), os.PathLike):
            object.__setattr__(config, name, os.fspath(getattr(config, name)))
