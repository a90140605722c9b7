"""The apps that others wrote, and the table of what was shown of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import ROOT
from visiting import FRAMEWORKS, ROWS, App, table


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was shown."""
    terminalreporter.section("apps")
    if ROWS:
        for line in table():
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def apps(host: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, App]:
    """Each app by its name."""
    inventory = yaml.safe_load((ROOT / "molecule/apps/inventory.yml").read_text())
    entries = inventory["slipway"]["vars"]["slipway_apps"]
    directory: Path = tmp_path_factory.mktemp("apps")
    return {name: App(host, name, entries[name], directory) for name in FRAMEWORKS}
