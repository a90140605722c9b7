"""A host with its user's own nginx, site, tables and SSH: they go on, with Slipway and without."""

import httpx
import pytest
from deploying import kill_all
from hosts import start, wait_until
from removing import Host

pytestmark = pytest.mark.only("own")

OWN_TABLE = """\
#!/usr/sbin/nft -f
flush ruleset
table inet mine {
    chain input {
        type filter hook input priority filter
        tcp dport 25 drop
    }
}
"""
OWN_SITE = """\
server {
    listen 80;
    server_name own.example;
    return 200 "my own";
}
"""
# A package of the user's that needs one that Slipway brings.
OWN_PACKAGE = (
    "Package: mine\nVersion: 1\nArchitecture: all\nMaintainer: me <me@own.example>\nDescription: x\nDepends: git\n"
)


def own(removal: Host) -> str:
    """What the user's own site says."""
    address = f"http://127.0.0.1:{removal.site.port(80)}/"
    return httpx.get(address, headers={"Host": "own.example"}, trust_env=False, timeout=20).text


def tables(removal: Host) -> set[str]:
    """The names of all tables."""
    return {line.split()[-1] for line in removal.host.check_output("nft list tables").splitlines()}


@pytest.fixture(scope="module", autouse=True)
def _own(removal: Host) -> None:
    """What the user has before Slipway comes."""
    for path, text in {"/etc/nginx/sites-available/own": OWN_SITE, "/etc/nftables.conf": OWN_TABLE}.items():
        removal.host.check_output("mkdir -p $(dirname %s) && printf %%s %s >%s", path, text, path)
    removal.host.check_output(
        "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "
        "-o DPkg::Options::=--force-confold nginx nftables openssh-server >/dev/null 2>&1 && "
        "ln -s ../sites-available/own /etc/nginx/sites-enabled/own && "
        "systemctl enable --now nginx ssh && systemctl reload nginx && systemctl enable --now nftables"
    )


def test_what_is_the_users_own_survives(removal: Host) -> None:
    host = removal.host
    assert own(removal) == "my own"
    assert tables(removal) == {"mine"}
    before = removal.snapshot()
    removal.play()
    assert removal.site.is_up()
    assert own(removal) == "my own"
    for verb in ("reload", "restart"):
        host.check_output(f"systemctl {verb} nftables")
        # The job that follows is not waited for by systemctl.
        wait_until(lambda: tables(removal) == {"mine", "slipway"}, 10, f"both tables after a {verb}")
    asked = "sshd -T -C user=%s,host=localhost,addr=127.0.0.1"
    for user in ("root", "nobody"):
        assert "passwordauthentication no" in host.check_output(asked, user).splitlines()
    assert " changed=0 " in removal.play()

    host.check_output("mkdir -p /tmp/mine/DEBIAN && printf %%s %s >/tmp/mine/DEBIAN/control", OWN_PACKAGE)
    host.check_output("dpkg-deb --build /tmp/mine /tmp/mine.deb && dpkg --install /tmp/mine.deb")
    assert "something else needs them: git" in removal.remove("--check")
    assert removal.site.is_up()
    host.check_output("dpkg --purge mine")

    with start(removal.container, "-e", "everything=true", "-e", "remove_data=true", playbook="remove") as running:
        wait_until(lambda: not host.file("/srv/slipway").exists, 120, "the apps are gone")
        kill_all(running)
    assert own(removal) == "my own"
    assert "gone from this host" in removal.remove("-e", "remove_data=true")
    assert own(removal) == "my own"
    assert tables(removal) == {"mine"}
    assert "passwordauthentication yes" in host.check_output(asked, "nobody").splitlines()
    removal.insist_on(before)
