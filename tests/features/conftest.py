import pytest

from tests.features.processes import Child


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test():
    yield
    Child.kill_all()
