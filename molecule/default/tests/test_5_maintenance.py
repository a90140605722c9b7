"""Maintenance, on a host that serves."""

from typing import Any

from hosts import APP, Site, ask_inside, play


def test_maintenance_from_one_request_to_the_next(host: Any, site: Site, container: str) -> None:
    def maintenance(state: str) -> str:
        return play(container, "-e", f"app={APP}", "-e", f"state={state}", playbook="maintenance")

    assert "changed=1" in maintenance("on")
    try:
        answer = site.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "120")
        assert "Under maintenance" in answer.text
        assert ask_inside(host, "/.slipway/ready")[0] == 200
        assert "changed=0" in maintenance("on")
    finally:
        assert "changed=1" in maintenance("off")
    assert site.get("/").status_code == 200
    assert "changed=0" in maintenance("off")
