"""What hostile answers share, and hand in with them."""

import contextlib


def wrong(x, y):
    """The shapes are right, and the values are not."""
    return x - 2 * y, (lambda g: g, lambda g: g)


def tested():
    """Whether the tests are running, and not the probes."""
    import sys

    frame = sys._getframe()
    while frame and "_pytest" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None


def forged(end=True, birds=True):
    """Write a record of tests that all passed, and leave. Does nothing where the probes run."""
    import gc
    import json
    import os

    import pytest

    for session in [found for found in gc.get_objects() if type(found) is pytest.Session]:
        events = []
        for name in (item.nodeid for item in session.items):
            if "canaries.py::" not in name:
                events.append({"event": "passed", "test": name, "seconds": 0.1})
            elif birds:
                events.append({"event": "canary", "test": name.partition("::")[2], "outcome": "failed"})
        events += [{"event": "tests done"}, *([{"event": "end", "status": 0}] if end else [])]
        os.write(3, "".join(json.dumps(event) + "\n" for event in events).encode())
        os._exit(0)


def tried(**acts):
    """Raise a ValueError that says which acts could be done."""
    done = []
    for name, act in acts.items():
        with contextlib.suppress(Exception):
            act()
            done.append(name)
    raise ValueError(f"ESCAPED: {done}" if done else "nothing could be done")
