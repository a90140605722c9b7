"""Deploys of each app, while it has visitors."""

import pytest
from visiting import App

# By the name of the app, a page and what stands on it since the visits.
PAGES = {
    "ara": ("/api/v1/labels", "nightly"),
    "users": ("/api/users/1", "Ada Lovelace"),
    "httpbin": ("/anything", "httpbin.example"),
    "ledger": ("/api/dummy/", "first entry"),
}
# Fewer have shown nothing.
LEAST = 200


@pytest.mark.parametrize("name", PAGES)
def test_a_changed_source_and_the_way_back(apps: dict[str, App], name: str) -> None:
    app = apps[name]
    before = app.release()
    with app.row("a deploy of a changed source, and a rollback") as row:
        with app.visited(*PAGES[name]) as seen:
            app.play(source=app.changed())
            assert app.release() != before
            app.play("rollback")
            assert app.release() == before
        failed = {what: count for what, count in seen.items() if what != "200"}
        row.note = f"{seen.total()} requests, {sum(failed.values())} failed"
        assert seen["200"] >= LEAST, failed
        # What the others lose is counted in molecule/servers.
        assert app.server != "gunicorn" or not failed, failed


@pytest.mark.parametrize("name", PAGES)
def test_it_has_nothing_to_complain_of(apps: dict[str, App], name: str) -> None:
    with apps[name].row("no restart, and no error in its journal"):
        apps[name].is_quiet()
