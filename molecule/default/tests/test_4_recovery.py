"""The site comes back by itself."""

import subprocess
import time
from typing import Any

from hosts import APP, Site, database_away, database_back, wait_until


def restart(container: str) -> None:
    subprocess.run(["docker", "restart", "--time", "30", container], check=True, stdout=subprocess.DEVNULL)


def test_a_restart_of_the_host(host: Any, site: Site, container: str) -> None:
    restart(container)
    started = time.monotonic()
    wait_until(site.is_up, 60, "up by itself after a restart")
    print(f"{container}: up {time.monotonic() - started:.1f} s after its restart")
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""


def test_a_database_that_is_away_at_boot_and_back_after_a_minute(host: Any, site: Site, container: str) -> None:
    database_away(host)
    try:
        restart(container)
        time.sleep(60)
        assert not site.is_up()
        unit = host.check_output(f"basename $(readlink /srv/slipway/{APP}/live)")
        tries = host.check_output(f"systemctl show --property=NRestarts --value slipway-{APP}@{unit}.service")
        assert int(tries) > 5
    finally:
        database_back(host)
    started = time.monotonic()
    wait_until(site.is_up, 30, "up by itself once the database is back")
    print(f"{container}: up {time.monotonic() - started:.1f} s after its database was back, {tries} tries before")
