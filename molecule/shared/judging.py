"""Runs on a host, with the collection's module_utils beside it, and says what nginx, systemd and an app make of
configurations. It reads JSON, as rendering.Configuration.sent() gives it, and answers in JSON:

python3 -m judging verdicts    of a list of configurations: for each what nginx says of it, and what systemd-analyze
                               does; nothing where they take it. It mounts what paths lead to, so that it wants a mount
                               namespace of its own, such as unshare --mount gives it.
python3 -m judging handed      of a list of apps: for each what the process of its real unit is handed, in base64.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, make_directory, write
from ansible_collections.slipway.asgi.plugins.module_utils.host import SLOTS, Layout, Systemd, run
from ansible_collections.slipway.asgi.plugins.module_utils.slots import UNITS, Slots

NGINX = Path("/etc/nginx/slipway/current")
CERTIFICATES = Path("/etc/slipway/certificates")
RELEASE = "r1"
# Seconds within which a process starts.
START = 60
# In the place of a release's Python. It says what it was handed, and that it has started; -I: the environment may hold
# anything.
APP = """#!/usr/bin/python3 -IB
import base64, json, os, signal, socket
from pathlib import Path

def told(path):
    return base64.b64encode(path.read_bytes()).decode()

directory = os.environ.get("CREDENTIALS_DIRECTORY")
credentials = {path.name: told(path) for path in Path(directory).iterdir()} if directory else {}
handed = {"environment": told(Path("/proc/self/environ")), "credentials": credentials}
state = Path(os.environ["STATE_DIRECTORY"])
(state / "new").write_text(json.dumps(handed))
(state / "new").rename(state / "handed")
if address := os.environ.get("NOTIFY_SOCKET"):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager:
        service_manager.sendto(b"READY=1", address.replace("@", "\\0", 1))
signal.pause()
"""


def verdicts(configurations: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What nginx and systemd-analyze say of each configuration."""
    pair = {name: next(CERTIFICATES.glob(f"*/{name}")).read_bytes() for name in ("fullchain.pem", "privkey.pem")}
    for path in (NGINX.resolve(), CERTIFICATES, Path("/srv/slipway")):
        run(["mount", "-t", "tmpfs", "tmpfs", str(path)])
    for name in {app["name"] for configuration in configurations for app in configuration["apps"]}:
        for file, content in pair.items():
            _put(CERTIFICATES / name / file, content)
        release = Layout(name).release(RELEASE)
        _put(release / ".venv/bin/python", APP.encode(), 0o755)
        _put(release / "src/nothing", b"")
        for slot in SLOTS:
            Layout(name).slot(slot).mkdir(parents=True)
            (Layout(name).slot(slot) / "release").symlink_to(f"../../releases/{RELEASE}")
    said = [{"nginx": _nginx(configuration["nginx"]), "systemd": ""} for configuration in configurations]
    for batch in _batches(configurations):
        if _systemd(batch.values()):
            for number, units in batch.items():
                said[number]["systemd"] = _systemd([units])
    return said


def _nginx(files: Mapping[str, str]) -> str:
    for path in NGINX.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, text in files.items():
        _put(NGINX / name, text.encode())
    return _said(["nginx", "-t", "-q"])


def _batches(configurations: Iterable[dict[str, Any]]) -> Iterator[dict[int, dict[str, bytes]]]:
    """Units of several configurations at once, by their number, as long as no two have the same name."""
    batch: dict[int, dict[str, bytes]] = {}
    for number, configuration in enumerate(configurations):
        units = {
            Layout(app["name"]).unit(slot, file["path"]): base64.b64decode(file["content"])
            for app in configuration["apps"]
            for file in app["files"]
            if file["path"] in UNITS
            for slot in SLOTS
        }
        # What is added to a unit, as a unit.
        drop_ins = f"[Unit]\nDescription=nginx\n[Service]\nExecStart=/usr/bin/true\n{configuration['drop_ins']}"
        units[f"nginx-{number}.service"] = drop_ins.encode()
        if any(set(units) & set(others) for others in batch.values()):
            yield batch
            batch = {}
        batch[number] = units
    yield batch


def _systemd(sets: Iterable[Mapping[str, bytes]]) -> str:
    with tempfile.TemporaryDirectory() as directory:
        paths = []
        for units in sets:
            for name, content in units.items():
                paths.append(Path(directory, name))
                _put(paths[-1], content)
        return _said(["systemd-analyze", "verify", "--man=no", *map(str, paths)])


def _said(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    status = f"status {done.returncode}" if done.returncode else ""
    return done.stdout.decode(errors="replace").strip() or status


def handed(apps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the process of each app's unit is handed, started as a deploy starts it, and removed again."""
    return [_handed(app) for app in apps]


def _handed(app: Mapping[str, Any]) -> dict[str, Any]:
    layout = Layout(app["name"])
    slots = Slots(layout, Systemd())
    assert not slots.is_there(data=True), f"{layout.name} is an app of this host"
    files = [File(file["path"], base64.b64decode(file["content"]), file["mode"]) for file in app["files"]]
    try:
        write(File("user", app["user"].encode()), layout.account)
        run(["systemd-sysusers", str(layout.account)])
        release = layout.release(RELEASE)
        write(File("python", APP.encode(), 0o755), release / ".venv/bin/python")
        make_directory(release / "src")
        # It looks at the units, and at what systemd says of them.
        service = layout.unit(slots.stage(RELEASE, files), "service")
        slots.systemd.start(service, START)
        # Of a server that does not say when it has started, systemd knows no more than that there is a process.
        end = time.monotonic() + START
        while not (layout.state / "handed").exists():
            assert time.monotonic() < end, f"{service} wrote nothing within {START} s"
            time.sleep(0.05)
        found: dict[str, Any] = json.loads((layout.state / "handed").read_text())
        return found
    finally:
        slots.remove(data=True)


def _put(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


if __name__ == "__main__":
    os.umask(0o022)
    json.dump({"verdicts": verdicts, "handed": handed}[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
