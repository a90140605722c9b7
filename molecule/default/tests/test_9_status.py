"""The table of playbooks/status.yml, on hosts that serve."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploying import TINY_APP, Deploys, beside
from hosts import APP, Site, database_away, database_back, look, play, wait_until

# What is left of a terminal of 80 columns.
WIDTH = 76


@dataclasses.dataclass
class Status:
    """What the playbook said.

    Attributes:
        well: whether it succeeded.
        output: all that it printed.
    """

    well: bool
    output: str

    @property
    def table(self) -> list[str]:
        """The lines of the one table."""
        (found,) = re.findall(r"msg: \|-\n((?: {4}.*\n|\n)+)", self.output)
        return [line[4:] for line in found.rstrip().splitlines()]

    @property
    def problems(self) -> str:
        """What is amiss, each on a line."""
        return re.sub(r"\n {6}(?=\S)", " ", "\n".join(self.table))

    def row(self, app: str) -> list[str]:
        """The cells of an app."""
        (line,) = [line for line in self.table if line.startswith(f"  {app} ")]
        return line.split()


def status(container: str, *arguments: str, inventories: tuple[Path, ...] = ()) -> Status:
    """Run the playbook."""
    try:
        return Status(True, play(container, *arguments, inventories=inventories, playbook="status"))
    except AssertionError as failed:
        return Status(False, str(failed))


@pytest.fixture(scope="module", autouse=True)
def _the_scenarios_own_app_is_live(deploys: Deploys) -> None:
    deploys.deploy()


@pytest.mark.parametrize("arguments", [(), ("--check", "--diff")])
def test_all_is_well(host: Any, container: str, arguments: tuple[str, ...]) -> None:
    found = status(container, *arguments)
    print(found.output)
    assert found.well
    assert re.search(r"ok=\d+ +changed=0 ", found.output)
    assert found.table[-1] == "All is well: 1 app on 1 host."
    assert max(map(len, found.table)) <= WIDTH
    _, ready, release, slot, _, workers, memory, requests, errors, days = found.row(APP)
    live = look(host)
    assert release == host.check_output(f"basename $(readlink /srv/slipway/{APP}/live/release)")
    assert (ready, slot, workers) == ("yes", live["slot"], "2/2")
    resident = host.check_output(f"ps -o rss= -p {live['master']} -p {' -p '.join(live['workers'])}").split()
    assert 10 < int(memory.removesuffix("M")) <= sum(map(int, resident)) / 1024
    assert re.fullmatch("[0-9,]+", requests) and re.fullmatch("[0-9,]+", errors)
    assert int(days.removesuffix("d")) > 800, "Slipway's own certificate"


def test_what_is_amiss(host: Any, site: Site, container: str, live: dict[str, Any]) -> None:
    sizing = f"/run/slipway/{APP}-{live['slot']}/sizing"
    maintenance = f"/etc/nginx/slipway/maintenance/{APP}"
    kept = host.file(sizing).content_string
    database_away(host)
    try:
        said = json.dumps({**json.loads(kept), "workers": 4})
        host.check_output(f"echo '{said}' >{sizing} && touch /run/reboot-required {maintenance}")
        host.check_output("systemctl stop nginx")
        found = status(container)
    finally:
        database_back(host)
        host.check_output(f"rm -f /run/reboot-required {maintenance} && systemctl start nginx")
        host.check_output(f"printf %%s %s >{sizing}", kept)
    print(found.output)
    assert not found.well
    assert "! nginx is inactive" in found.problems
    assert re.search(r"! reboot pending since 2\d{3}-", found.problems)
    assert '! NOT READY: status 503: {"status":"not ready"' in found.problems
    assert "! 2 of 4 workers" in found.problems
    assert re.search(r"! under maintenance since 2\d{3}-", found.problems)
    assert (found.row(APP)[1], found.row(APP)[5]) == ("NO", "2/4")
    assert found.table[-1] == "5 problems on 1 of 1 host."
    assert max(map(len, found.table)) <= WIDTH
    wait_until(site.is_up, 30, "up again")


def test_a_lost_link(host: Any, container: str) -> None:
    link = f"/srv/slipway/{APP}/live"
    kept = host.check_output(f"readlink {link} && rm {link}")
    try:
        found = status(container)
    finally:
        host.check_output(f"ln -s {kept} {link}")
    assert not found.well
    assert "! NOT LIVE: the link live is lost; playbooks/deploy.yml puts it back" in found.problems


@pytest.mark.only("debian-13")
def test_several_apps_and_what_they_answered(host: Any, container: str, tmp_path: Path) -> None:
    source = tmp_path / "tally"
    source.mkdir()
    (source / "requirements.txt").write_text("# Nothing, with --hash=\n")
    (source / "main.py").write_text(TINY_APP.format(b"one"))
    tally = {
        "domains": ["tally.example"],
        "source": {"path": str(source)},
        "entrypoint": "main:app",
        "drain_seconds": 1,
    }
    play(container, inventories=(beside(container, tmp_path, tally=tally),))
    try:
        certificate = host.file("/etc/slipway/certificates/tally/fullchain.pem").content_string
        asked = Site(container, certificate, "tally.example")
        assert [asked.get("/").status_code for _ in range(7)] == [200] * 7
        unit = look(host, "tally")["unit"]
        host.check_output(f"systemctl stop {unit.replace('.service', '.socket')} {unit}")
        assert [asked.get("/").status_code for _ in range(3)] == [502] * 3
        # Its socket would start it at the first question.
        host.check_output(f"systemctl start {unit.replace('.service', '.socket')}")
        inventories = (beside(container, tmp_path, tally=tally, unborn={}),)

        def counted() -> bool:
            return status(container, inventories=inventories).row("tally")[7:9] == ["10", "3"]

        wait_until(counted, 60, "ten requests are counted, and that three of them failed")
        found = status(container, inventories=inventories)
        print(found.output)
        assert not found.well
        assert host.run(f"systemctl is-active {unit}").stdout.strip() == "inactive"
        assert (found.row(APP)[1], found.row("tally")[1]) == ("yes", "NO")
        assert found.row("unborn") == ["unborn", "NO", *["-"] * 5, "0", "0", "-"]
        assert f"! NOT READY: {unit} is inactive" in found.problems
        assert "! 3 of 10 requests failed" in found.problems
        assert "! NOT DEPLOYED; playbooks/site.yml brings it" in found.problems
        assert found.table[-1] == "3 problems on 1 of 1 host."
        assert max(map(len, found.table)) <= WIDTH

        alone = status(container, "-e", f"app={APP}", inventories=inventories)
        assert alone.well and alone.table[-1] == "All is well: 1 app on 1 host."
        said = "! it is not in the inventory; playbooks/remove.yml -e app=tally takes it away"
        assert said in status(container).problems
        refused = status(container, "-e", "app=nope")
        assert not refused.well
        assert '! NOT KNOWN: app is "nope": the apps of this host are guestbook' in refused.problems
    finally:
        play(container, "-e", "app=tally", "-e", "remove_data=true", playbook="remove")
    assert status(container).well


@pytest.mark.only("debian-13")
def test_one_table_for_all_hosts(container: str, tmp_path: Path) -> None:
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    layer = tmp_path / "away.yml"
    layer.write_text(yaml.safe_dump({"slipway": {"hosts": {"slipway-default-away": away}}}))
    found = status(container, "--limit", f"{container},slipway-default-away", inventories=(layer,))
    print(found.output)
    assert not found.well
    hosts = {line.split(":")[0] for line in found.table if line.startswith("slipway-")}
    assert hosts == {container, "slipway-default-away"}
    assert "! NOT REACHED: " in found.problems
    assert found.table[-1] == "1 problem on 1 of 2 hosts."
