"""What a run fetches: apt, git and an index that break off in the middle, and a wheel that is not what was locked."""

import hashlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploying import HOME
from faulting import Faults, told
from hosts import ROOT, start, wait_until
from packing import wheel

WEB = "/srv/faults"
PORT = 8899
ADDRESS = f"http://127.0.0.1:{PORT}"
# What site.yml has to install for the app, and what the app requires of an index.
PACKAGE = "slipway-faults"
REQUIRED = "slipwayfaults"
# A repository with one package, of which half a megabyte is content that does not compress.
APT = f"""
mkdir -p {WEB}/web/apt {WEB}/deb/DEBIAN {WEB}/deb/usr/share/{PACKAGE} && cd {WEB}
cat >deb/DEBIAN/control <<'EOF'
Package: {PACKAGE}
Version: 1.0
Architecture: all
Maintainer: x <x@example.com>
Description: x
EOF
head -c 500000 /dev/urandom >deb/usr/share/{PACKAGE}/content
cd web/apt && dpkg-deb --build --root-owner-group {WEB}/deb package.deb >/dev/null
{{ cat {WEB}/deb/DEBIAN/control
   printf 'Filename: ./package.deb\\nSize: %s\\nSHA256: %s\\n' \
       $(stat -c %s package.deb) $(sha256sum package.deb | cut -d ' ' -f 1); }} >Packages
echo 'deb [trusted=yes] {ADDRESS}/apt ./' >/etc/apt/sources.list.d/faults.list
apt-get -qq update
"""
# Holds what apt wants, until its input ends; apt's locks are fcntl's, which the program flock does not know.
HOLD = """
import fcntl, sys
with open("/var/lib/dpkg/lock-frontend", "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
NUMBERS = itertools.count(1)


class Web:
    """A web server on the host that breaks off where it is told to.

    Args:
        faults: the host.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        faults.inside(f"mkdir -p {WEB}/web/simple/{REQUIRED} {WEB}/web/git")
        faults.inside(f"cat >{WEB}/breaking.py", (ROOT / "molecule/shared/breaking.py").read_text())
        faults.inside(
            f"systemd-run --quiet --collect --unit=faults-web python3 {WEB}/breaking.py {WEB}/web {PORT}; "
            f"for _ in $(seq 50); do ss -Hlt 'sport = :{PORT}' | grep -q . && exit; sleep 0.1; done; exit 1"
        )

    def breaks_off(self, pattern: str) -> None:
        """Break off in the middle of what matches, until it is healthy again."""
        self.faults.inside(f"cat >{WEB}/web/.cut", pattern)

    def is_healthy(self) -> None:
        """Break off no more."""
        self.faults.inside(f"rm -f {WEB}/web/.cut")

    def remove(self) -> None:
        """Take it away with all that it served."""
        self.faults.inside(
            f"systemctl stop faults-web; dpkg --purge {PACKAGE}; rm -rf {WEB} /etc/apt/sources.list.d/faults.list "
            f"/var/lib/apt/lists/127.0.0.1:{PORT}_*"
        )


@pytest.fixture(scope="module")
def web(faults: Faults) -> Iterator[Web]:
    made = Web(faults)
    yield made
    made.remove()


def held(faults: Faults) -> subprocess.Popen[str]:
    """Hold apt's lock, as a security upgrade does."""
    command = ["docker", "exec", "-i", faults.container, "python3", "-c", HOLD]
    holding = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holding.stdout is not None and holding.stdout.readline() == "held\n"
    return holding


def test_apt(faults: Faults, web: Web) -> None:
    faults.inside(APT)
    wanted = {"packages": [PACKAGE]}
    with (
        faults.fault("apt's lock is held", "fcntl on lock-frontend, not let go of; 3 seconds to wait") as first,
        held(faults),
    ):
        said = r"Could not get lock .{1,40} It is held by process \d+ \(\w+\)"
        first.said = faults.refused(said, "-e", "__host_lock_seconds=3", playbook="site", **wanted)
    with faults.fault("apt breaks off in the middle", "a server that sends half of a package") as second:
        web.breaks_off(r"\.deb$")
        try:
            second.said = faults.refused(r"Failed to fetch \S+\.deb", playbook="site", **wanted)
        finally:
            web.is_healthy()
    with faults.fault("apt's lock is held for a while", "fcntl on lock-frontend, until apt waits for it") as third:
        layer = faults.deploys.layer(**wanted)
        with held(faults) as holding, start(faults.container, inventories=(layer,)) as running:
            try:
                wait_until(lambda: faults.deploys.host.run("pgrep -x apt-get").rc == 0, 60, "apt-get runs")
                time.sleep(2)
            finally:
                holding.communicate()
                output, _ = running.communicate()
        assert running.returncode == 0, output
        third.said = told(output)
        try:
            faults.converges(first, second, third, playbook="site", **wanted)
        finally:
            del faults.deploys.options["packages"]


def pushed(faults: Faults, source: Path, version: str) -> str:
    """Put a source into a repository that the server has, under a tag, and return its address."""
    faults.inside(f"rm -rf {WEB}/work {WEB}/web/git/shop.git && mkdir {WEB}/work")
    subprocess.run(["docker", "cp", "--quiet", f"{source}/.", f"{faults.container}:{WEB}/work"], check=True)
    git = "git -c user.name=x -c user.email=x@example.com -c init.defaultBranch=main"
    faults.inside(f"""
        cd {WEB}/work
        {git} init -q
        {git} add --all
        {git} commit -qm x
        {git} tag {version}
        {git} clone -q --bare . {WEB}/web/git/shop.git
        cd {WEB}/web/git/shop.git
        # All in one pack, which is what breaks off.
        {git} gc -q
        {git} update-server-info
    """)
    return f"{ADDRESS}/git/shop.git"


def test_git(faults: Faults, web: Web) -> None:
    wanted = faults.deploys.release()
    version = wanted["environment"]["GREETING"].removeprefix("of ")
    address = pushed(faults, Path(wanted["source"]["path"]), version)
    wanted["source"] = {"git": address, "version": version}
    with faults.fault("git breaks off in the middle", "a server that sends half of a pack") as first:
        web.breaks_off(r"\.pack$")
        try:
            first.said = faults.refused(r"Unable to get pack file \S+\.pack", **wanted)
        finally:
            web.is_healthy()
    with faults.fault("git is not there", "an address at which nobody listens") as second:
        nowhere = address.replace(str(PORT), str(PORT - 1))
        said = r"Failed to connect to 127\.0\.0\.1 port \d+"
        second.said = faults.refused(said, **{**wanted, "source": {"git": nowhere, "version": version}})
        faults.converges(first, second, **wanted)


def package(version: str) -> tuple[str, bytes]:
    """A wheel of half a megabyte, which is another one each time."""
    files = {f"{REQUIRED}.py": "NAME = 'required'\n", f"{REQUIRED}.txt": os.urandom(250_000).hex()}
    return wheel(REQUIRED, version, files)


def test_the_package_index(faults: Faults, web: Web) -> None:
    version = f"1.{next(NUMBERS)}"
    (name, good), (_, tampered) = package(version), package(version)
    pin = f"{REQUIRED}=={version} --hash=sha256:{hashlib.sha256(good).hexdigest()}\n"
    index = f"{WEB}/web/simple/{REQUIRED}"
    faults.inside(f"cat >{index}/index.html", f'<!DOCTYPE html><a href="{name}">{name}</a>')

    def requires(source: Path) -> None:
        requirements = source / "requirements.txt"
        requirements.write_text(requirements.read_text() + pin)

    wanted = {**faults.deploys.release(requires), "index": {"url": f"{ADDRESS}/simple/"}}
    with faults.fault("a wheel that was tampered with", "other content under the name that is locked") as first:
        faults.inside(f"cat >{index}/{name}", tampered)
        first.said = faults.refused(rf"Hash mismatch for `{REQUIRED}=={version}`", **wanted)
    with faults.fault("the index breaks off in the middle", "a server that sends half of a wheel") as second:
        faults.inside(f"cat >{index}/{name}", good)
        web.breaks_off(r"\.whl$")
        try:
            second.said = faults.refused("end of file before message length reached", **wanted)
        finally:
            web.is_healthy()
        try:
            faults.converges(first, second, **wanted)
        finally:
            del faults.deploys.options["index"]
    said = faults.inside(f"{HOME}/live/release/.venv/bin/python -c 'import {REQUIRED} as it; print(it.NAME)'")
    assert said == "required\n"
