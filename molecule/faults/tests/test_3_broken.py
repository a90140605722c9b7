"""What somebody has broken on the host by hand: the next run says so and puts it right."""

import dataclasses

import pytest
from deploying import CONFIGURATION, HOME
from faulting import Faults, told
from hosts import APP, database_away, database_back, look

LIVE_SLOT = f"slot=$(basename $(readlink {HOME}/live))"


@dataclasses.dataclass(frozen=True)
class Harm:
    """Something that is broken.

    Attributes:
        how: the script that breaks it, where ``$slot`` is the live one.
        away: whether the site is away with it.
        unseen: whether there is nothing for a run to do about it.
    """

    how: str
    away: bool = False
    unseen: bool = False


HARM = {
    "the link live is missing": Harm(f"rm {HOME}/live", away=True),
    "the link live names nothing": Harm(f"ln -sfn slots/red {HOME}/live", away=True),
    "the live slot's link to its socket is missing": Harm(f"rm {HOME}/slots/$slot/socket", away=True),
    "the live slot's link to its release names nothing": Harm(f"ln -sfn nothing {HOME}/slots/$slot/release"),
    "the live slot's link to its configuration is missing": Harm(f"rm {CONFIGURATION}/$slot"),
    "the link previous names nothing": Harm(f"ln -sfn nothing {HOME}/previous"),
    "the history is garbage": Harm(f"echo garbage >{HOME}/history", unseen=True),
    "the note of a switch is garbage": Harm(f"echo garbage >{HOME}/switching"),
    "the release before is gone": Harm(f"release=$(readlink {HOME}/previous) && rm -r {HOME}/$release"),
    "the marker of the live release is gone": Harm(f"rm {HOME}/live/release/complete"),
    "a file of the live release is gone": Harm(f"rm {HOME}/live/release/src/guestbook/about.py"),
    "a file of the live release is cut off": Harm(f"truncate -s 9 {HOME}/live/release/src/guestbook/api.py"),
    "the live release is gone": Harm(f"cd {HOME}/slots/$slot && rm -r $(readlink release)"),
}
# What none of the others is in the way of is broken at once.
TOGETHER = (
    "the link previous names nothing",
    "the history is garbage",
    "the note of a switch is garbage",
)
LONG = ("the link live names nothing", "a file of the live release is cut off", "the live release is gone")
EVERY_DAY = [
    *((name,) for name in HARM if name not in TOGETHER + LONG),
    TOGETHER,
]
CASES = [
    *(pytest.param(names, id=", ".join(names)) for names in EVERY_DAY),
    *(pytest.param((name,), id=name, marks=pytest.mark.soak) for name in TOGETHER + LONG),
]


@pytest.fixture(scope="module", autouse=True)
def one_before(faults: Faults) -> None:
    """A release that was live before, and one that can be built again, whichever tests came first."""
    faults.deploys.deploy(**faults.deploys.release())


@pytest.mark.parametrize("names", CASES)
def test_links_markers_and_releases(faults: Faults, names: tuple[str, ...]) -> None:
    harms = [HARM[name] for name in names]
    before = faults.deploys.about()
    with faults.fault(", ".join(names), "by hand", away=any(harm.away for harm in harms)) as row:
        faults.inside("; ".join([LIVE_SLOT, *(harm.how for harm in harms)]))
        output = faults.converges(row)
        assert " changed=0 " not in output or all(harm.unseen for harm in harms), output
        assert faults.deploys.about()["release"] == before["release"]
        row.said = told(output)
        faults.serves(row)


# --- nginx


def test_nginx_edited_by_hand(faults: Faults) -> None:
    with faults.fault("nginx's configuration edited by hand", "a site with garbage, a file less, another entry") as row:
        faults.inside(
            f"cd /etc/nginx/slipway/current; echo 'garbage;' >>sites/{APP}.conf; rm snippets/tls.conf; "
            "echo '# by hand' >>/etc/nginx/nginx.conf"
        )
        row.said = told(faults.converges(row, playbook="site"))
        faults.inside("nginx -t -q; systemctl reload nginx")
        assert "by hand" not in faults.inside("cat /etc/nginx/nginx.conf")


def test_a_broken_file_of_the_users(faults: Faults) -> None:
    path = "/etc/nginx/conf.d/broken.conf"
    runs = "readlink /etc/nginx/slipway/current; systemctl show --property=MainPID nginx; pgrep nginx"
    with faults.fault("a broken file of the user's in conf.d", path) as row:
        before = faults.inside(runs)
        faults.inside(f"echo 'nonsense on;' >{path}")
        try:
            said = rf'unknown directive "nonsense" in {path}:1'
            row.said = faults.refused(said, playbook="site", max_body_size="2m")
            assert faults.inside(runs) == before
        finally:
            faults.inside(f"rm {path}")
        faults.converges(row, playbook="site", max_body_size="2m")


# --- units


@pytest.mark.parametrize("kind", ["socket", "service"])
def test_a_stopped_unit(faults: Faults, kind: str) -> None:
    with faults.fault(f"the live slot's {kind} is stopped", f"systemctl stop by hand: {kind}") as row:
        unit = look(faults.deploys.host)["unit"].replace(".service", f".{kind}")
        faults.inside(f"systemctl stop {unit}")
        row.said = told(faults.converges(row))
        # Else the next test would meet a slot that still drains.
        faults.deploys.drained()


# --- the host


def test_a_full_journal(faults: Faults, soak: bool) -> None:
    with faults.fault("the journal is full", "no room at /var/log/journal") as row:
        faults.inside(
            "mount -t tmpfs -o size=4m tmpfs /var/log/journal; dd if=/dev/zero of=/var/log/journal/full bs=4k "
            "2>/dev/null || true; systemctl restart systemd-journald.service; journalctl --flush || true"
        )
        try:
            if soak:
                faults.refused(r"Failed to find attribute .+nothing", entrypoint="guestbook.main:nothing")
            row.said = told(faults.converges(row, **faults.deploys.release()))
        finally:
            faults.inside("umount --lazy /var/log/journal; systemctl restart systemd-journald.service")


def test_the_database_is_away(faults: Faults) -> None:
    wanted = faults.deploys.release()
    with faults.fault("the database is away", "a directory in its place") as row:
        database_away(faults.deploys.host)
        try:
            said = "the migration failed, so the release does not go live; what served still does"
            row.said = faults.refused(said, **wanted)
        finally:
            database_back(faults.deploys.host)
        faults.converges(row, **wanted)
