"""What more apps cost a run that changes nothing."""

import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploying import TINY_APP
from edging import Edge
from hosts import play

APPS = 10
ROUNDS = 3
# A host with ten apps may take so much of the time of one with one.
RATIO = 2.0


@pytest.mark.only("debian-13")
@pytest.mark.soak
def test_ten_apps(edge: Edge, inventory: dict[str, Any], tmp_path: Path) -> None:
    with edge.row(f"a run without a change, {APPS} apps against one") as row:
        (tmp_path / "main.py").write_text(TINY_APP.format(b"here I am"))
        (tmp_path / "requirements.txt").write_text("# Nothing, with --hash=\n")
        apps = {
            f"tiny-{number}": {"domains": [f"tiny-{number}.edge.test"], "source": {"path": str(tmp_path)}}
            for number in range(APPS)
        }
        layers = {}
        for count in (1, APPS):
            layers[count] = tmp_path / f"{count}.yml"
            variables = {
                "slipway_apps": dict(list(apps.items())[:count]),
                "slipway_app_defaults": inventory["slipway"]["vars"]["slipway_app_defaults"]
                | {"certificate": {"issuer": "self-signed"}},
            }
            layers[count].write_text(yaml.safe_dump({"edge": {"hosts": {edge.container: variables}}}))
        play(edge.container, inventories=(layers[APPS],))
        took: dict[int, list[float]] = {1: [], APPS: []}
        for _ in range(ROUNDS):
            for count, layer in layers.items():
                # nginx's configuration is that of the apps of the run before.
                play(edge.container, inventories=(layer,))
                started = time.monotonic()
                output = play(edge.container, inventories=(layer,))
                took[count].append(time.monotonic() - started)
                assert " changed=0 " in output, output
        one, ten = (statistics.median(took[count]) for count in (1, APPS))
        row.note = f"{ten / one:.2f} times, {ten:.1f} s against {one:.1f} s"
        for name in apps:
            play(edge.container, "-e", f"app={name}", "-e", "remove_data=true", playbook="remove")
        edge.play()
        assert ten / one <= RATIO
