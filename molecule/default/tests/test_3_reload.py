"""A changed gunicorn.conf.py goes to the running server by SIGHUP, and what is broken never gets there."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import APP, Site, database_away, database_back, look, play, wait_until


def test_workers_changed_in_a_group_layer_reload_the_same_master(
    host: Any, site: Site, container: str, tmp_path: Path
) -> None:
    before = look(host)
    layer = tmp_path / "hosts.yml"
    layer.write_text(
        yaml.safe_dump(
            {"more": {"hosts": {container: None}, "vars": {"slipway_app_overrides_more": {APP: {"workers": 3}}}}}
        )
    )
    print(play(container, inventories=(layer,)))
    after = look(host)
    assert after["unit"] == before["unit"]
    assert after["master"] == before["master"]
    wait_until(lambda: len(look(host)["workers"]) == 3, 60, "three workers")
    wait_until(lambda: not look(host)["workers"] & before["workers"], 60, "all workers are new")
    assert site.is_up()
    print(play(container))
    wait_until(lambda: len(look(host)["workers"]) == 2, 60, "two workers again")
    assert look(host)["master"] == before["master"]


def refused(host: Any, site: Site, live: dict[str, Any]) -> str:
    """Ask for a reload that must not happen, and return what the journal says of it."""
    asked = host.run(f"systemctl reload {live['unit']}")
    assert asked.rc != 0
    assert look(host) == live
    assert site.is_up()
    check = live["unit"].replace("@", "-check@")
    return str(host.check_output(f"journalctl --unit={check} --lines=15 --output=cat --no-pager"))


@pytest.mark.parametrize("broken", ["workers = (", "workers = 'many'", "worker_class = 'no_such.Worker'"])
def test_a_broken_configuration_is_refused(host: Any, site: Site, live: dict[str, Any], broken: str) -> None:
    path = f"/etc/slipway/{APP}/{live['slot']}/gunicorn.conf.py"
    host.check_output(f'cp {path} /root/kept && echo "{broken}" >> {path}')
    try:
        assert "gunicorn.conf.py" in refused(host, site, live) or "no_such" in refused(host, site, live)
    finally:
        host.check_output(f"mv /root/kept {path}")


def test_a_broken_import_is_refused(host: Any, site: Site, live: dict[str, Any]) -> None:
    path = f"/srv/slipway/{APP}/live/release/src/guestbook/about.py"
    host.check_output(f"cp {path} /root/kept && echo 'import no_such_module' >> {path}")
    try:
        assert "no_such_module" in refused(host, site, live)
    finally:
        host.check_output(f"mv /root/kept {path}")


def test_a_lifespan_that_raises_is_refused(host: Any, site: Site, live: dict[str, Any]) -> None:
    database_away(host)
    try:
        asked = host.run(f"systemctl reload {live['unit']}")
        assert asked.rc != 0
        assert look(host) == live
        assert site.get("/health").status_code == 200
    finally:
        database_back(host)
    wait_until(site.is_up, 30, "ready again with the database back")
    host.check_output(f"systemctl reload {live['unit']}")
    wait_until(site.is_up, 30, "up after a reload that is accepted")
