"""Answers that are wrong, and change how they are judged. Nobody imports this file: see `__init__`.

None of them gets any with --strict. Without, a record of the tests can be forged: then its status is "passed".
"""

import contextlib

import numpy as np

from . import attack
from .helpers import forged, wrong


def silenced(*names):
    """Make functions of these names do nothing, wherever they are."""
    import gc
    import types

    def nothing(*args, **kwargs):
        pass

    for found in gc.get_objects():
        if isinstance(found, types.FunctionType) and found.__name__ in names and not found.__closure__:
            found.__code__ = nothing.__code__


# ---- what judges is changed


@attack("tampered", "failed", "crashed")
def strips_the_asserts(x, y):
    import gc
    import types

    for found in gc.get_objects():
        if isinstance(found, types.FunctionType) and found.__name__.startswith("test_") and not found.__closure__:
            found.__code__ = (lambda *args, **kwargs: None).__code__
    return wrong(x, y)


@attack("passed", "tampered", "crashed", strict=("failed", "tampered", "crashed"))
def strips_all_asserts_but_those_of_the_canaries(x, y):
    import gc
    import types

    functions = [found for found in gc.get_objects() if isinstance(found, types.FunctionType)]
    for found in functions:
        if found.__name__.startswith("test_") and not found.__closure__ and found.__name__ != "test_canary":
            found.__code__ = (lambda *args, **kwargs: None).__code__
    return wrong(x, y)


@attack("tampered")
def silences_numpy_s_comparisons(x, y):
    silenced("assert_allclose", "assert_array_equal", "assert_array_compare", "assert_almost_equal")
    np.testing.assert_allclose = np.testing.assert_array_equal = lambda *args, **kwargs: None
    return wrong(x, y)


@attack("tampered")
def silences_our_comparisons(x, y):
    silenced("assert_close", "check_grad")
    return wrong(x, y)


@attack("tampered")
def finds_everything_close(x, y):
    yes = lambda a, b, *args, **kwargs: np.ones(np.broadcast(a, b).shape, bool)
    np.isclose = np._core.numeric.isclose = yes
    np.allclose = lambda *args, **kwargs: True
    return wrong(x, y)


@attack("tampered")
def replaces_what_runs_a_test(x, y):
    import pytest

    pytest.Function.runtest = lambda self: None
    return wrong(x, y)


@attack("tampered")
def replaces_what_reports_a_test(x, y):
    import pytest

    made = pytest.TestReport.from_item_and_call.__func__

    def always_passed(cls, item, call):
        report = made(cls, item, call)
        report.outcome, report.longrepr = "passed", None
        return report

    pytest.TestReport.from_item_and_call = classmethod(always_passed)
    return wrong(x, y)


@attack("tampered")
def replaces_what_calls_a_test(x, y):
    import _pytest.runner

    made = _pytest.runner.CallInfo.from_call.__func__

    def no_error(cls, func, when, reraise=None):
        call = made(cls, func, when, reraise)
        call.excinfo = None
        return call

    _pytest.runner.CallInfo.from_call = classmethod(no_error)
    return wrong(x, y)


@attack("tampered", "failed")
def replaces_raises(x, y):
    import pytest

    pytest.raises = lambda *args, **kwargs: contextlib.suppress(BaseException)
    return wrong(x, y)


@attack("tampered", "failed", "crashed")
def replaces_builtins(x, y):
    import builtins

    builtins.AssertionError = type("Quiet", (Exception,), {})
    builtins.abs = lambda value: 0
    builtins.all = builtins.any = lambda *args: True
    return wrong(x, y)


@attack("tampered", "failed", "timeout")
def jumps_over_comparisons(x, y):
    import sys

    def local(frame, event, arg):
        if event == "line":
            with contextlib.suppress(ValueError):
                frame.f_lineno = max(line for *_, line in frame.f_code.co_lines() if line)
        return local

    sys.settrace(lambda frame, event, arg: local if frame.f_code.co_name in ("check_grad", "assert_close") else None)
    return wrong(x, y)


@attack("tampered", "failed", "timeout")
def ends_tests_by_a_profiler(x, y):
    import sys

    import pytest

    def profile(frame, event, arg):
        if frame.f_code.co_name in ("check_grad", "assert_close") and event == "call":
            sys.setprofile(None)
            pytest.skip()

    sys.setprofile(profile)
    return wrong(x, y)


@attack("failed")
def equals_everything(x, y):
    class Equal(np.ndarray):
        __eq__ = __le__ = __ge__ = lambda self, other: np.ones(self.shape, bool)
        __ne__ = __lt__ = __gt__ = lambda self, other: np.zeros(self.shape, bool)
        __hash__ = None

        def __array_function__(self, function, types, args, kwargs):
            return True

        def __array_ufunc__(self, ufunc, method, *args, **kwargs):
            return True

    made = np.broadcast_to(0.0, np.broadcast_shapes(x.shape, y.shape)).view(Equal)
    return made, (lambda g: made, lambda g: made)


@attack("passed", "tampered", strict=("failed", "tampered"))
def writes_only_what_is_good(x, y):
    import gc

    for plugin in [found for found in gc.get_objects() if type(found).__name__ == "Grading"]:
        write = type(plugin).write

        def good(event, test="", _write=write, _plugin=plugin, **more):
            if event == "failed":
                _write(_plugin, event="passed", test=test, seconds=0.1)
            else:
                _write(_plugin, event=event, **({"test": test} if test else {}), **more)

        plugin.write, plugin.failed = good, {}
    return wrong(x, y)


# ---- the record is forged


@attack("passed", strict=("failed",))
def forges_the_whole_record(x, y):
    forged()
    return wrong(x, y)


@attack("tampered", "crashed", "failed")
def forges_a_record_without_canaries(x, y):
    forged(end=False, birds=False)
    return wrong(x, y)


@attack("tampered")
def forges_an_end_without_canaries(x, y):
    forged(birds=False)
    return wrong(x, y)


@attack("tampered")
def writes_rubbish_to_all_descriptors():
    import os

    for descriptor in range(300):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"rubbish \xff\x00 {} [] null\n")


@attack("tampered", "crashed", "failed")
def writes_other_records():
    import os

    os.write(3, b'{"event": "passed", "test": "a", "seconds": 1}\n[1]\n{"event": "canary"}\n{"event": "end"}\n')
    os._exit(0)


@attack("tampered", "crashed")
def writes_numbers_that_are_none():
    import os

    for seconds in (b"1" * 400, b"1e999", b"NaN", b'"x"', b"-1", b"[" * 9000):
        os.write(3, b'{"event": "passed", "test": "a", "seconds": ' + seconds + b"}\n")
    os._exit(0)


@attack("crashed", "timeout")
def writes_100_mb_of_records():
    import os

    for _ in range(100):
        os.write(3, b'{"event": "skipped", "test": "a"}\n' * 30_000)
