"""What holds for all tests."""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Matrices here are small: more threads would only wait for each other, for minutes on a busy machine."""
    with threadpool_limits(1):
        yield
