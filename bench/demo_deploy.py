"""Deploy the demo's next version while load runs, and say each second what was served and what failed.

The next version is a copy of sample_app in .cache, with another VERSION and COLOUR than what is live. It is deployed as
any change is. The exit status is not 0 if the deploy failed, or a single request.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from load import Load

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "https://localhost:8443"
CERTIFICATE = ROOT / ".cache/demo.pem"
SOURCE = ROOT / ".cache/demo-app"
LOG = ROOT / ".cache/demo-deploy.log"
LAYER = {"slipway_app_overrides_demo_deploy": {"demo": {"source": {"path": "../../.cache/demo-app"}}}}
PLAYBOOK = ".venv/bin/ansible-playbook -i inventories/demo playbooks"
COLOURS = ("#0a7ea4", "#7c4dcc", "#1f8a5b", "#c2571a", "#b8327a")
CLIENTS, SOCKETS = 32, 8
# Without a pause the load would take the processors that the deploy needs, and show nothing more.
PACE = 0.1
BEFORE_SECONDS, AFTER_SECONDS = 2, 4


def ask() -> dict[str, str]:
    """Return what the demo says of the release that is live."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    about: dict[str, str] = httpx.get(f"{ADDRESS}/api/about", verify=context, trust_env=False).json()
    return about


def next_source(version: str, colour: str) -> tuple[str, str]:
    """Make the source of what comes after this version and colour, and return its own."""
    version = re.sub(r"\d+(?=\D*$)", lambda last: str(int(last[0]) + 1), version)
    colour = COLOURS[(COLOURS.index(colour) + 1) % len(COLOURS)] if colour in COLOURS else COLOURS[0]
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "sample_app", SOURCE, ignore=shutil.ignore_patterns(".*", "__pycache__", "dist", "state"))
    about = SOURCE / "guestbook/about.py"
    text = re.sub(r'(?m)^VERSION = ".*"$', f'VERSION = "{version}"', about.read_text())
    about.write_text(re.sub(r'(?m)^COLOUR = ".*"$', f'COLOUR = "{colour}"', text))
    return version, colour


@contextmanager
def deploying(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a deploy, all that it says in the log."""
    # Otherwise Ansible names a task only when its first result is there.
    environment = {**os.environ, "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "1"}
    with (
        LOG.open("wb") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as deploy,
    ):
        try:
            yield deploy
        finally:
            deploy.terminate()


def task() -> str:
    """Return the name of the task that the deploy is at."""
    names = re.findall(r"(?m)^TASK \[(?:\S+ : )?(?:\w+ \| )?(.+?)\] \**$", LOG.read_text())
    return names[-1] if names else "Ansible starts"


def main() -> int:
    """Run the load and the deploy, and return the exit status."""
    live = ask()
    version, colour = next_source(live["version"], live["colour"])
    command = [*f"{PLAYBOOK}/deploy.yml -e".split(), json.dumps(LAYER)]
    load = Load(ADDRESS, CERTIFICATE.read_text(), clients=CLIENTS, sockets=SOCKETS, pace=PACE)
    start = time.monotonic()

    def tell(doing: str) -> None:
        time.sleep(1)
        old = sum(count for (release, _), count in list(load.report.served.items()) if release == live["release"])
        new = load.report.served.total() - old
        print(
            f"{time.monotonic() - start:7.0f}  {load.report.requests:8}  {load.report.failed.total():6}  "
            f"{old:8}  {new:8}  {doing}".rstrip(),
            flush=True,
        )

    print(f"{ADDRESS} serves version {live['version']}. Open it, and watch {version} come, in another colour:")
    print(f"  {' '.join(command[:-1])} '{command[-1]}'")
    print(f"{CLIENTS} clients ask meanwhile, half of them for the version, and {SOCKETS} WebSockets are open.\n")
    print(f"seconds  requests  failed  {live['version']:>8}  {version:>8}  the deploy", flush=True)
    with load:
        for _ in range(BEFORE_SECONDS):
            tell("")
        with deploying(command) as deploy:
            while deploy.poll() is None:
                tell(task())
        for _ in range(AFTER_SECONDS):
            tell("done" if deploy.returncode == 0 else "FAILED")

    print(f"\n{load.report}\n")
    if deploy.returncode:
        said = LOG.read_text()
        reason = said[max(said.rfind("\nfailed: "), said.rfind("\nfatal: "), 0) :].strip()
        print(f"The deploy failed; what it said is in {LOG.relative_to(ROOT)}. At the end:\n\n{reason}")
    elif load.report.failed:
        print("Requests failed.")
    elif (now := ask())["colour"] != colour:
        print(f"The deploy went well, and yet {ADDRESS} serves version {now['version']}, in {now['colour']}.")
    else:
        print(f"An open page has turned over to {version} by itself. And back again:\n  {PLAYBOOK}/rollback.yml")
        return 0
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped.")
