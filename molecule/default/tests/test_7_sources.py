"""Private sources: a repository over SSH and over HTTPS, and a package index, all on the host itself.

Nothing of what opens them may be seen anywhere: not in what a run says with -vvv, not in a process list, on no disk.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hosts import Site, play
from sourcing import HOME, HTTPS, INDEX_OPTION, PACKAGE, SSH, Sources, watched


@pytest.fixture(scope="module")
def sources(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    made = Sources(tmp_path_factory.mktemp("sources"), site)
    yield made
    made.take_away()
    made.inside(f"dpkg --purge {PACKAGE}")
    play(site.container)


def test_private_sources(sources: Sources) -> None:
    sources.commit("v1", locked_by_uv=True)
    over_ssh = {"git": SSH, "key": "{{ vault_key }}"}
    private = {"index": INDEX_OPTION, "packages": [PACKAGE], "extras": ["private"]}
    with watched(sources.container):
        # What only site.yml may install is missed before anything that serves changes.
        said = sources.refused(source={**over_ssh, "version": "v1"}, **private)
        assert f"package {PACKAGE} is not installed on this host; playbooks/site.yml installs" in said
        # The authority of the index is unknown as yet, and the key of the SSH server was seen for the first time.
        sources.deploy("site", source={**over_ssh, "version": "v1"}, **private)
        assert sources.site.get("/").text == "v1 with acme"
        # Another key of the server is refused, until it is named.
        sources.commit("v2", locked_by_uv=True)
        line = sources.new_host_key()
        said = sources.refused(source={**over_ssh, "version": "v2"}, **private)
        assert "Host key verification failed" in said and "/etc/slipway/known_hosts" in said
        assert sources.site.get("/").text == "v1 with acme"
        sources.deploy(source={**over_ssh, "version": "v2", "host_key": line}, **private)
        assert sources.site.get("/").text == "v2 with acme"
        # By HTTPS and from hashed requirements.
        sources.commit("v3", locked_by_uv=False)
        sources.deploy(source={"git": HTTPS, "version": "v3", "token": "{{ vault_token }}"}, index=INDEX_OPTION)
        assert sources.site.get("/").text == "v3 with acme"
        said = sources.refused(source={"git": HTTPS, "version": "v2", "token": "{{ vault_token }}-wrong"})
        assert "Authentication failed" in said
        assert sources.site.get("/").text == "v3 with acme"


def test_nothing_of_what_opens_them_is_seen(sources: Sources) -> None:
    assert "plugins/modules/release.py" in sources.said
    shown = [canary for canary in sources.canaries if canary in sources.said or json.dumps(canary) in sources.said]
    assert not shown
    journal = f"journalctl --no-pager --output=export >/run/journal; grep -c -F -f {HOME}/canaries /run/journal || true"
    assert sources.inside(journal) == "0\n"
    sources.inside("rm /run/journal")
    places = "/etc /opt /root /run /srv /tmp /var"
    found = sources.inside(f"grep -r -l -s --exclude-dir=sources -F -f {HOME}/canaries {places} || true")
    assert found == ""


@pytest.mark.usefixtures("sources")
def test_only_root_may_write_what_is_known_of_servers(host: Any) -> None:
    known = host.file("/etc/slipway/known_hosts")
    assert (known.user, known.group) == ("root", "root") and known.mode & 0o022 == 0
    assert "[localhost]:2222 ssh-ed25519" in known.content_string
