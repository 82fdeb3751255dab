"""What holds for all tests."""

import pytest
from threadpoolctl import threadpool_limits

APART = {"test_exercises.py", "test_jupyter.py", "test_probes.py"}  # long files whose tests share nothing
TOGETHER = {"test_hostile.py", "test_ranks.py", "test_integration_end_to_end.py"}  # shared memory


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Matrices here are small: more threads would only wait for each other, for minutes on a busy machine."""
    with threadpool_limits(1):
        yield


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config, items):
    """In one of several processes (`-n auto --dist loadgroup`), keep the tests of a file together.

    So what its fixtures made is made once; and what looks at all of the machine is not disturbed by what uses it.
    """
    if hasattr(config, "workerinput"):
        for item in items:
            if item.path.name not in APART:
                group = "the machine" if item.path.name in TOGETHER else str(item.path)
                item.add_marker(pytest.mark.xdist_group(group))
