"""The machine itself: its firewall, its updates, whom SSH lets in, and the way back from a change that locks out."""

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import Site, exposure, play, wait_until
from killing import KEEP_PAYLOADS, PAYLOADS, Payload

Reached = Callable[[int], bool]
# So many seconds the role gives a change to be confirmed.
CONFIRM_SECONDS = 30
PASSWORD = "no secret, this is only a test of SSH"


@pytest.fixture(scope="module")
def reached(host: Any, site: Site) -> Iterator[Reached]:
    """Whether a port of the host is reached from outside; a program listens on 9000."""

    def ask(port: int) -> bool:
        with socket.socket() as asking:
            asking.settimeout(2)
            return asking.connect_ex((site.address.removeprefix("https://"), port)) == 0

    unit = "[Service]\nExecStart=/usr/bin/python3 -m http.server 9000\n[Install]\nWantedBy=multi-user.target\n"
    host.check_output("printf %%s %s >/etc/systemd/system/listener.service && systemctl enable --now listener", unit)
    wait_until(lambda: host.run("ss -Htln sport = :9000").stdout != "", 30, "a program listens on 9000")
    yield ask
    host.check_output("systemctl disable --now listener && rm /etc/systemd/system/listener.service")


def table(host: Any) -> str:
    """Slipway's table as nft lists it, or nothing."""
    return str(host.run("nft --stateless --terse list table inet slipway").stdout)


def test_what_the_network_may_reach(host: Any, reached: Reached) -> None:
    assert (reached(80), reached(443), reached(9000)) == (True, True, False)
    listed = host.check_output("nft list ruleset")
    assert "policy drop" in listed
    for version in ("ip saddr", "ip6 saddr & ffff:ffff:ffff:ffff::"):
        assert re.search(rf"update @ssh_\S+ {{ {version} limit rate over 30/minute burst 60 packets }} drop", listed)


def test_the_firewall_is_in_force_before_the_network(host: Any) -> None:
    shown = host.check_output("systemctl show slipway-firewall --property=ActiveState,UnitFileState,Before")
    assert "ActiveState=active" in shown and "UnitFileState=enabled" in shown and "network-pre.target" in shown
    verified = host.run("systemd-analyze verify --man=no slipway-firewall.service")
    assert (verified.rc, verified.stdout, verified.stderr) == (0, "", "")
    assert exposure(host, "slipway-firewall.service") <= 2.0


def test_security_updates_are_installed_each_day(host: Any) -> None:
    settings = host.check_output("apt-config dump")
    for name in ("Update-Package-Lists", "Unattended-Upgrade"):
        assert f'APT::Periodic::{name} "1";' in settings
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in settings
    assert host.check_output("systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer").split() == ["enabled"] * 2
    origins = host.check_output("unattended-upgrade --dry-run --debug 2>&1 | grep '^Allowed origins are'")
    assert "Security" in origins


@pytest.mark.only("debian-13")
def test_own_rules_and_what_others_have_done_to_the_table(
    host: Any, container: str, reached: Reached, tmp_path: Path
) -> None:
    layer = tmp_path / "layer.yml"
    variables = {"firewall_rules": ["ip saddr 0.0.0.0/0 tcp dport 9000 accept"]}
    layer.write_text(yaml.safe_dump({"test": {"hosts": {container: variables}}}))
    play(container, inventories=(layer,), environment=KEEP_PAYLOADS)
    # What confirms a change is what makes it but for one word.
    payload = Payload(host, "config_set", "tcp dport 9000 accept")
    host.check_output("sed -i %s %s", 's/"confirmed": true/"confirmed": false/', payload.path)
    host.check_output(f"rm -rf {PAYLOADS}/*")
    assert reached(9000)
    host.check_output("nft add table inet mine && nft flush chain inet slipway input")
    play(container)
    assert (reached(443), reached(9000)) == (True, False)
    before = table(host)
    assert "table inet mine" in host.check_output("nft list tables")

    # The module alone is what there is when the controller is gone; then the power goes, too.
    assert payload.run()["unconfirmed"]
    assert reached(9000)
    assert exposure(host, "slipway-way-back-firewall.service") <= 2.0
    subprocess.run(["docker", "restart", "--time", "30", container], check=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: table(host) == before, 2 * CONFIRM_SECONDS + 60, "the change is undone")
    wait_until(lambda: not host.file("/var/lib/slipway/pending/firewall").exists, 30, "nothing is left to undo")
    assert not reached(9000)
    assert host.run("ls /etc/systemd/system | grep way-back").stdout == ""
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert " changed=0 " in play(container)
    host.check_output(f"rm {payload.path}")


@pytest.mark.only("debian-13")
def test_what_is_switched_off_is_taken_away(host: Any, container: str, reached: Reached) -> None:
    off = ("-e", '{"firewall_enabled": false, "host_updates": false}')
    play(container, *off)
    assert table(host) == ""
    assert reached(9000)
    assert not host.file("/etc/systemd/system/slipway-firewall.service").exists
    assert host.run("systemctl is-active slipway-firewall").stdout.strip() == "inactive"
    assert not host.package("unattended-upgrades").is_installed
    assert "Unattended-Upgrade" not in host.check_output("apt-config dump")
    assert " changed=0 " in play(container, *off)
    play(container)
    assert not reached(9000)
    assert host.package("unattended-upgrades").is_installed


class Ssh:
    """The host, as it is reached over SSH.

    Args:
        host: the host.
        site: its site.
        directory: where keys may lie.
    """

    def __init__(self, host: Any, site: Site, directory: Path) -> None:
        self.host, self.site, self.directory = host, site, directory
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        askpass = directory / "askpass"
        askpass.write_text(f"#!/bin/sh\necho '{PASSWORD}'\n")
        askpass.chmod(0o700)
        # Ansible knows nothing of it: it is ssh that finds the password.
        self.asked = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
        self.password = (
            "-o PreferredAuthentications=password -o PasswordAuthentication=yes -o NumberOfPasswordPrompts=1"
        )
        shared = f"-o ControlMaster=auto -o ControlPersist=60s -o ControlPath={directory}/by-password"
        self.by_password = {**self.asked, "ANSIBLE_SSH_ARGS": f"{self.password} {shared}"}
        self.known = f"-o UserKnownHostsFile={directory}/known -o StrictHostKeyChecking=accept-new"

    def play(self, environment: dict[str, str] | None = None, **variables: Any) -> str:
        """Run site.yml over SSH, with these variables."""
        connection = {
            "ansible_connection": "ssh",
            "ansible_host": self.site.address.removeprefix("https://"),
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": self.known,
        }
        layer = self.directory / "layer.yml"
        layer.write_text(yaml.safe_dump({"test": {"hosts": {self.site.container: {**connection, **variables}}}}))
        return play(self.site.container, inventories=(layer,), environment=environment)

    def undone(self, environment: dict[str, str] | None = None, **variables: Any) -> str:
        """Run site.yml with a change that must be undone, and return what was said of it."""
        with pytest.raises(AssertionError, match=f"no new connection within {CONFIRM_SECONDS} seconds") as refused:
            self.play(environment, **variables)
        return str(refused.value)

    def lets_in_by_password(self) -> bool:
        """Whether a client who has but the password is let in."""
        target = f"root@{self.site.address.removeprefix('https://')}"
        command = ["ssh", *self.password.split(), *self.known.split(), target, "true"]
        done = subprocess.run(command, env={**os.environ, **self.asked}, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or "Permission denied" in done.stderr, done.stderr
        return done.returncode == 0

    def asks_for(self, user: str) -> str:
        """Whether sshd lets a user in by a password, as it says itself."""
        shown = self.host.check_output(f"/usr/sbin/sshd -T -C user={user},host=localhost,addr=127.0.0.1")
        return next(line for line in shown.splitlines() if line.startswith("passwordauthentication ")).split()[1]


@pytest.fixture(scope="module")
def ssh(host: Any, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
    """An SSH server as a cloud's image has it."""
    found = Ssh(host, site, tmp_path_factory.mktemp("ssh"))
    host.check_output(
        "apt-get -qq update && apt-get -qq install --no-install-recommends openssh-server >/dev/null 2>&1 && "
        "install -d -m 700 /root/.ssh && echo %s >/root/.ssh/authorized_keys && echo %s | chpasswd && "
        "printf 'PermitRootLogin yes\\nPasswordAuthentication yes\\n' >/etc/ssh/sshd_config.d/50-cloud-init.conf && "
        "systemctl reload-or-restart ssh",
        found.key.with_suffix(".pub").read_text(),
        f"root:{PASSWORD}",
    )
    yield found
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq purge openssh-server >/dev/null 2>&1")
    host.check_output("rm -rf /root/.ssh")


@pytest.mark.only("debian-13")
def test_rules_that_lock_the_controller_out_are_undone(host: Any, ssh: Ssh) -> None:
    before = table(host)
    said = ssh.undone(firewall_rules=["tcp dport 22 drop"])
    assert "has undone it: /etc/slipway/firewall.nft" in said
    assert table(host) == before
    assert " changed=0 " in ssh.play()


@pytest.mark.only("debian-13")
def test_ssh_takes_keys_alone_unless_that_locks_the_controller_out(host: Any, ssh: Ssh) -> None:
    said = ssh.undone(ssh.by_password, host_ssh_keys_only=True)
    assert "10-slipway.conf" in said
    assert (ssh.asks_for("root"), ssh.asks_for("nobody")) == ("yes", "yes")
    assert ssh.lets_in_by_password()

    ssh.play(host_ssh_keys_only=True)
    assert (ssh.asks_for("root"), ssh.asks_for("nobody")) == ("no", "no")
    assert not ssh.lets_in_by_password()
    assert " changed=0 " in ssh.play(host_ssh_keys_only=True)

    ssh.play()
    assert not host.file("/etc/ssh/sshd_config.d/10-slipway.conf").exists
    assert (ssh.asks_for("root"), ssh.asks_for("nobody")) == ("yes", "yes")
