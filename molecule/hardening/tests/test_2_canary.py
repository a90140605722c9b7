"""Secrets from a vault reach the app, and are nowhere else: on the controller, on the host, or on the way.

What opens a repository over SSH is looked for by the scenario default, and what opens a DNS by edge.
"""

import hashlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import searching
from deploying import TINY_APP
from hardening import LOOKED, Looked
from hosts import APP, Site
from searching import Searched, forms
from sourcing import HOME, HTTPS, INDEX_OPTION, Sources, watched

CANARY = "canary"
MARKER = f"{CANARY}{secrets.token_hex(12)}"
# What has to be quoted somewhere on the way.
AWKWARD = '"#\\ $%'
# Answers with the digest of what the app was given.
MAIN = f"""
import hashlib, os, pathlib
GIVEN = pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"], "key").read_text() + os.environ["CANARY"]
{TINY_APP.format("hashlib.sha256(GIVEN.encode()).hexdigest().encode()")}
"""
# The one place: what systemd reads, and what it hands over.
PLACE = (f"/etc/slipway/{CANARY}/", f"/run/credentials/slipway-{CANARY}@")


class Canary:
    """An app whose secrets come from a vault, after deploys of all kinds.

    Attributes:
        sources: the servers that it came from.
        temporary: where the controller kept what it needed for a moment.
        given: the secrets that it has now.
    """

    def __init__(self, host: Any, container: str, directory: Path) -> None:
        self.container = container
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        certificate = host.file(f"/etc/slipway/certificates/{CANARY}/fullchain.pem").content_string
        self.sources = Sources(
            directory,
            Site(container, certificate, f"{CANARY}.example"),
            CANARY,
            token=f"{MARKER}-token {AWKWARD}",
            password=f"{MARKER}-password {AWKWARD}",
            environment={"ANSIBLE_LOCAL_TEMP": str(self.temporary), "TMPDIR": str(self.temporary)},
        )
        self.sources.inside(f"cat >{HOME}/canaries", MARKER)
        self.give("first")
        self.sources.commit("v1", main=MAIN)
        self.sources.commit("v2", main="raise RuntimeError('this release is broken')")
        private = {
            "index": INDEX_OPTION,
            "secrets": {"key": "{{ vault_key_of_the_app }}"},
            "secret_environment": {"CANARY": "{{ vault_environment }}"},
        }
        source = {"git": HTTPS, "version": "v1", "token": "{{ vault_token }}"}
        with watched(container, "nobody"):
            self.sources.deploy("site", source=source, **private)
            self.give("rotated")
            self.sources.deploy("deploy", "--check", source=source, **private)
            self.sources.deploy(source=source, **private)
            self.sources.refused(source={**source, "version": "v2"}, **private)
            self.sources.refused(source={**source, "version": "v2", "token": "{{ vault_token }}-wrong"}, **private)

    def give(self, what: str) -> None:
        """Let the vault hold other secrets."""
        self.given = [f"{MARKER}-{what} {AWKWARD}\nof two lines", f"{MARKER}-{what}-in-environment {AWKWARD}"]
        self.sources.lock_away(vault_key_of_the_app=self.given[0], vault_environment=self.given[1])

    def search(self, *arguments: str, user: str = "root") -> Searched:
        """Look on the host, with the arguments of searching.py."""
        program = Path(searching.__file__).read_text()
        command = ["docker", "exec", "-i", "--user", user, self.container, "python3", "-c", program, *arguments]
        return Searched(**json.loads(subprocess.check_output(command, input=MARKER, text=True)))


@pytest.fixture(scope="module")
def canary(host: Any, container: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    made = Canary(host, container, tmp_path_factory.mktemp("canary"))
    yield made
    made.sources.take_away()


def nowhere(where: str, *searches: Searched) -> None:
    """Insist that something was looked through, and that nothing was found."""
    places, size = sum(search.places for search in searches), sum(search.size for search in searches)
    found = [name for search in searches for name in search.found]
    LOOKED.append(Looked(where, places, size, len(found)))
    assert places and size
    assert not found


def test_secrets_arrive(canary: Canary) -> None:
    assert canary.sources.site.get("/").text == hashlib.sha256("".join(canary.given).encode()).hexdigest()


def test_a_search_finds_what_is_there(canary: Canary) -> None:
    planted = """
        mkdir /srv/planted && cd /srv/planted && read -r marker
        printf %s "$marker" >plain
        for before in '' 1 12; do printf %s "$before$marker after" | base64 --wrap=0 >base64-$before; done
        printf %s "$marker" | od -An -v -tx1 | tr -d ' \\n' >hexadecimal
        printf '{"a": "\\\\"%s\\\\""}' "$marker" | gzip >json.gz
    """
    canary.sources.inside(planted, f"{MARKER}\n")
    searched = canary.search("files", "/srv/planted")
    canary.sources.inside("rm -r /srv/planted")
    assert searched.places == len(searched.found) == 6


def test_what_the_controller_says(canary: Canary) -> None:
    said = Searched()
    said.add("-vvv --diff", canary.sources.said.encode(), forms(MARKER))
    assert "plugins/modules/release.py" in canary.sources.said
    nowhere("what the controller says with -vvv and --diff, of deploys that fail too", said)


def test_what_the_controller_leaves(canary: Canary) -> None:
    (canary.temporary / "control").write_text("so that there is something")
    nowhere("the controller's temporary files", searching.files([canary.temporary], forms(MARKER)))


def test_the_disk_outside_the_one_place(canary: Canary) -> None:
    searched = canary.search("files", "/")
    # The servers stand for other machines.
    found = [path for path in searched.found if not path.startswith(f"{HOME}/")]
    assert {place for place in PLACE for path in found if path.startswith(place)} == set(PLACE)
    searched.found = [path for path in found if not path.startswith(PLACE)]
    nowhere("the host's disk, outside the one place", searched)


@pytest.mark.parametrize("user", [f"slipway-{APP}", "www-data", "nobody"])
def test_the_one_place_for_others(canary: Canary, user: str) -> None:
    nowhere(f"the one place, as {user}", canary.search("files", "/etc", "/run", user=user))


def test_processes_for_others(canary: Canary) -> None:
    nowhere("/proc, as nobody", canary.search("files", "/proc", user="nobody"))


def test_the_journal(canary: Canary) -> None:
    nowhere("the journal, all fields", canary.search("output", "journalctl", "--all", "--no-pager", "--output=export"))


def test_systemctl_show(canary: Canary) -> None:
    units = [f"slipway-{CANARY}@{slot}.service" for slot in ("blue", "green")]
    nowhere(
        "systemctl show, of all units and of systemd itself; systemctl cat",
        canary.search("output", "systemctl", "show", "--all", "*", *units),
        canary.search("output", "systemctl", "show", "--all"),
        canary.search("output", "systemctl", "cat", *units),
    )
