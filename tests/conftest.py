"""Fixtures shared by every test: one thread, a device option, the optional real data."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device on which device-aware tests run")
    parser.addoption("--slow", action="store_true", help="also run tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords:
            if config.getoption("--slow"):
                item.add_marker(pytest.mark.timeout(7200), append=False)
            else:
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def injected(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Notes in the report which fault a test injected, and how often."""

    def note(fault: str, times: int) -> None:
        record_property("fault", fault)
        record_property("injected", times)

    return note


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data sets (shared/data) are not on this machine")
    return SHARED_DATA
