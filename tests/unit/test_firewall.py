"""The firewall's rules: rendered as the role renders them, and taken by a real nft in a network of its own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_role_templates import ROLES, render

SBIN = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}


def rules(**variables: Any) -> str:
    entry = {"path": "firewall.nft", "template": "firewall.nft.j2"}
    return render("firewall", [entry], {}, **variables)["firewall.nft"]


def nft(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run nft where there is no other table, and nothing that could be lost."""
    apart = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net"]
    return subprocess.run([*apart, *arguments], capture_output=True, text=True, check=False, env=SBIN)


@pytest.mark.parametrize(
    "own",
    [
        [],
        ["ip saddr 10.0.0.0/8 tcp dport 5432 accept", "ip6 saddr 2001:db8::/32 udp dport { 53, 853 } accept # DNS"],
        ['iifname "docker0" accept', "tcp dport 22 ip saddr != 203.0.113.7 drop", 'log prefix "seen: " counter'],
    ],
)
def test_nft_takes_the_rules_once_and_again(own: list[str], tmp_path: Path) -> None:
    path = tmp_path / "firewall.nft"
    path.write_text(rules(firewall_rules=own))
    load = f"nft -f {path}"
    # A table of the user's own stays.
    other = "nft add table inet mine"
    listed = nft("sh", "-ec", f"nft --check --file {path}; {other}; {load}; {load}; nft list ruleset")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.count("table inet slipway") == listed.stdout.count("table inet mine") == 1
    assert listed.stdout.count("policy drop") == 1


def test_own_rules_come_before_those_for_ssh() -> None:
    text = rules(firewall_rules=["tcp dport 22 ip saddr 10.0.0.0/8 accept"])
    assert text.index("ct state vmap") < text.index("10.0.0.0/8") < text.index("goto ssh")


def test_what_nft_does_not_take_is_shown_with_the_variable_to_look_at(tmp_path: Path) -> None:
    variables = yaml.safe_load((ROLES / "firewall/vars/main.yml").read_text())
    path = tmp_path / "etc/slipway/firewall.nft"
    path.parent.mkdir(parents=True)
    path.write_text(rules(firewall_rules=["tcp dport https accept", "tcp port 25 accept"]))
    command = variables["__firewall_validate"].replace("{root}", str(tmp_path)).replace("/usr/sbin/nft", "nft")
    found = nft("sh", "-c", command)
    assert found.returncode == 1
    assert re.search(r"(?s)syntax error.*tcp port 25 accept.*firewall_rules", found.stderr + found.stdout)


@pytest.mark.parametrize(
    ("variables", "ports"),
    [
        ({}, "22"),
        ({"ansible_port": 2222}, "22, 2222"),
        ({"ansible_port": "2222", "firewall_ssh_port": 22}, "22"),
        ({"firewall_ssh_port": "2200"}, "2200"),
    ],
)
def test_ssh_is_let_in_where_it_listens_and_where_ansible_connects(variables: dict[str, Any], ports: str) -> None:
    assert f"tcp dport {{ {ports} }} goto ssh" in rules(**variables)
