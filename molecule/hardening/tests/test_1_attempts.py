"""From inside an app that was taken over: what an intruder tries is denied, and can be done without the sandbox."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hardening import TRIED, Outcome, Tried
from hosts import APP, Site, look

METADATA = ["169.254.169.254", "fd00:ec2::254"]
# An address that is given to examples; like METADATA it leads to the host's own loopback interface.
ELSEWHERE = "198.51.100.1"
PORT = 8169
SETUID_PROGRAM = "/usr/local/bin/slipway-id"
LEFT = "left-by-another"
SHARED_MEMORY = 0x5117
# What a machine has and a bare container lacks, and what others have left lying about. The kernel's own default for low
# ports is 1024; the container engine's is 0.
STAGE = f"""
mkdir -p /etc/cron.d /etc/modules-load.d /var/spool/cron/crontabs /run/slipway-stand-in
[ -e /etc/ssh/ssh_host_ed25519_key ] || echo key | install -D -m 600 /dev/stdin /etc/ssh/ssh_host_ed25519_key
install -m 4755 /usr/bin/id {SETUID_PROGRAM}
for directory in /tmp /dev/shm; do echo left >$directory/{LEFT} && chmod 644 $directory/{LEFT}; done
python3 -c 'import ctypes; assert ctypes.CDLL(None).shmget({SHARED_MEMORY}, 4096, 0o1666) >= 0'
sysctl -q -w net.ipv4.ip_unprivileged_port_start=1024 net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0
ip address add {METADATA[0]}/32 dev lo
ip address add {METADATA[1]}/128 dev lo nodad
ip address add {ELSEWHERE}/32 dev lo
systemd-run --quiet --unit=slipway-stand-in python3 -m http.server --bind :: --directory /run/slipway-stand-in {PORT}
for _ in $(seq 100); do ss -Hltn 'sport = {PORT}' | grep -q . && exit; sleep 0.1; done; exit 1
"""
STRIKE = f"""
systemctl stop slipway-stand-in
ip address del {METADATA[0]}/32 dev lo
ip address del {METADATA[1]}/128 dev lo
ip address del {ELSEWHERE}/32 dev lo
python3 -c 'import ctypes; libc = ctypes.CDLL(None); libc.shmctl(libc.shmget({SHARED_MEMORY}, 0, 0), 0, None)'
rm -r {SETUID_PROGRAM} /tmp/{LEFT} /dev/shm/{LEFT} /run/slipway-stand-in
"""
# What an app is denied by network: local alone, and what is open to an app with all switches on, by which of them.
ALLOWED = {"Reach another machine"}
COSTS = {
    "Reach a metadata service": "metadata",
    "Reach a metadata service over IPv6": "metadata",
    "Have memory that is both written and run": "jit",
    "Have memory run that was written": "jit",
    "Run a program that it has written, wherever it can": "jit",
    "Load a library that it has written, wherever it can": "jit",
}


@pytest.fixture(scope="module")
def stage(host: Any) -> Iterator[None]:
    """What the attempts need around them; no packet leaves the host."""
    host.check_output("sh -ec %s", STAGE)
    yield
    host.check_output("sh -ec %s", STRIKE)


def scene(host: Any, app: str) -> dict[str, Any]:
    """The scene as attempts.py takes it."""
    own, victim = look(host, app), look(host)
    first = host.check_output(f"head -n 1 /proc/{victim['master']}/maps")
    return {
        "app": app,
        "slot": own["slot"],
        "master": int(own["master"]),
        "victim": APP,
        "victim_slot": victim["slot"],
        "victim_master": int(victim["master"]),
        "victim_address": int(first.partition("-")[0], 16),
        "setuid_program": SETUID_PROGRAM,
        "left": LEFT,
        "shared_memory": SHARED_MEMORY,
        "metadata": METADATA,
        "elsewhere": ELSEWHERE,
        "port": PORT,
    }


def unsandboxed(host: Any, user: str) -> dict[str, Outcome]:
    """What comes of the attempts in a unit that has nothing but a user."""
    where = scene(host, "probe")
    release = f"/srv/slipway/probe/slots/{where['slot']}/release"
    said = host.check_output(
        "systemd-run --quiet --wait --pipe --collect --property=User=%s %s %s %s",
        user,
        f"{release}/.venv/bin/python",
        f"{release}/src/attempts.py",
        json.dumps(where),
    )
    outcomes: dict[str, Outcome] = json.loads(said)
    return outcomes


def from_inside(host: Any, container: str, app: str) -> dict[str, Outcome]:
    """What comes of them in a worker of an app."""
    certificate = host.file(f"/etc/slipway/certificates/{app}/fullchain.pem").content_string
    answer = Site(container, certificate, f"{app}.example").request("POST", "/", json=scene(host, app))
    assert answer.status_code == 200, answer.text
    outcomes: dict[str, Outcome] = answer.json()
    return outcomes


@pytest.mark.usefixtures("stage")
def test_what_an_intruder_tries_is_denied(host: Any, container: str) -> None:
    as_root, as_user = unsandboxed(host, "root"), unsandboxed(host, "slipway-probe")
    probe, hermit, lax = (from_inside(host, container, app) for app in ("probe", "hermit", "lax"))
    for what, outcome in as_root.items():
        TRIED.append(Tried(what, outcome, as_user[what], probe[what], hermit[what], lax[what], allowed=what in ALLOWED))
    assert len(TRIED) >= 35
    failed = [row for row in TRIED if not row.passed]
    assert not failed, "\n".join(map(str, failed))
    opened = {row.what for row in TRIED if "got" in row.lax and not row.allowed}
    assert opened == set(COSTS), "a switch opens what it is for and nothing else"
