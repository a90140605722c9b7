"""Several apps on a host, and one play over several hosts."""

import re
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from deploying import TINY_APP, Deploys, beside
from hosts import APP, exposure, look, play


class Blog:
    """A second app beside the scenario's own."""

    def __init__(self, deploys: Deploys, directory: Path) -> None:
        self.deploys = deploys
        self.source = directory / "blog"
        self.source.mkdir()
        (self.source / "requirements.txt").write_text("# Nothing, with --hash=\n")
        blog = {
            "domains": ["blog.example"],
            "source": {"path": str(self.source)},
            "entrypoint": "main:app",
            "drain_seconds": 1,
            "sandbox": {"network": "local", "jit": True, "processes": True, "writable": ["/srv/media"]},
            "after_switch": 'echo switched >> "$STATE_DIRECTORY/hooks"; touch /srv/media/here',
            "after_rollback": 'echo back >> "$STATE_DIRECTORY/hooks"',
        }
        self.layer = beside(deploys.site.container, directory, blog=blog)

    def play(self, playbook: str, *arguments: str, text: str = "") -> str:
        """Run a playbook with the second app in the inventory, which then serves this text."""
        if text:
            (self.source / "main.py").write_text(TINY_APP.format(text.encode()))
        inventories = (self.layer, self.deploys.layer())
        return play(self.deploys.site.container, *arguments, inventories=inventories, playbook=playbook)

    def text(self) -> str:
        """What it serves."""
        # Only the names of the first app are in the certificate that is trusted elsewhere.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with httpx.Client(verify=context, trust_env=False) as client:
            return client.get(
                f"https://127.0.0.1:{self.deploys.site.port(443)}/",
                headers={"Host": "blog.example"},
                extensions={"sni_hostname": "blog.example"},
            ).text


@pytest.mark.only("debian-13")
def test_an_app_comes_and_goes_beside_another(deploys: Deploys, tmp_path: Path) -> None:
    host, blog = deploys.host, Blog(deploys, tmp_path)
    deploys.deploy()
    before = look(host)
    with pytest.raises(AssertionError, match=r"sandbox\.writable has /srv/media: there is no such directory"):
        blog.play("site", text="one")
    host.check_output("install -d -o slipway-blog /srv/media")
    blog.play("site", text="one")
    assert blog.text() == "one"
    assert host.file("/srv/media/here").user == "slipway-blog"
    assert exposure(host, "slipway-blog@blue.service") <= 0.9
    blog.play("deploy", "-e", "app=blog", text="two")
    assert blog.text() == "two"
    assert "rollback" in blog.play("releases", "-e", "app=blog")
    blog.play("rollback", "-e", "app=blog")
    assert blog.text() == "one"
    hooks = host.file("/var/lib/slipway/blog/hooks").content_string
    assert hooks.split() == ["switched", "switched", "back"]
    assert deploys.deploy().count("is live here, but not in the inventory") == 1
    assert "its data stays" in blog.play("remove", "-e", "app=blog")
    assert host.file("/var/lib/slipway/blog/hooks").exists
    with pytest.raises(httpx.ConnectError):
        blog.text()
    assert not host.run("ls /etc/systemd/system /run/slipway | grep blog").stdout
    assert not host.run("ls -d /srv/slipway/blog /etc/slipway/blog").stdout
    assert host.check_output("systemctl --failed --quiet --no-legend") == ""
    assert look(host) == before


@pytest.mark.only("debian-13")
def test_a_failure_on_one_host_stops_the_rest(deploys: Deploys, tmp_path: Path) -> None:
    layer = tmp_path / "broken.yml"
    options: dict[str, Any] = {APP: {**deploys.options, "entrypoint": "guestbook.main:nothing", "ready_seconds": 10}}
    first, rest = deploys.site.container, "slipway-default-rest"
    # The rest is the same host by another name.
    hosts = {rest: {"ansible_host": first}}
    layer.write_text(yaml.safe_dump({"debian": {"hosts": hosts, "vars": {"slipway_app_overrides_test": options}}}))
    before = deploys.footprint()
    arguments = ("--limit", f"{first},{rest}", "-e", "slipway_serial=1")
    with pytest.raises(AssertionError) as refused:
        play(first, *arguments, inventories=(layer,), playbook="deploy")
    said = str(refused.value)
    assert re.search(rf"{first} .* failed=1 ", said)
    assert not re.search(rf"(?m)^(ok|changed|included|fatal).*{rest}", said)
    assert deploys.footprint() == before
