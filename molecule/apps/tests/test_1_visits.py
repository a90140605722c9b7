"""What visitors of each app do, over HTTPS and through nginx."""

import re
import socket
from typing import Any

import httpx
from hosts import wait_until
from visiting import App

PASSWORD = "of a test, and of 1 user"
LOGIN = "/admin/login/?next=/admin/"
LABELS = "/api/v1/labels"
ENTRIES = "/api/dummy/"


def log_in(client: httpx.Client, app: App, token: str | None) -> httpx.Response:
    """Send the form of Django's admin, as a browser does."""
    form = {"username": "admin", "password": PASSWORD, "next": "/admin/"}
    if token:
        form["csrfmiddlewaretoken"] = token
    return client.post(LOGIN, data=form, headers={"Origin": f"https://{app.site.domain}"})


def test_django(apps: dict[str, App]) -> None:
    app = apps["ara"]
    with app.client() as client:
        with app.row("a page, and its static files from nginx"):
            page = client.get("/")
            assert page.status_code == 200 and "<title>ara" in page.text
            paths = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
            assert paths
            for path in paths:
                file = client.get(path)
                # WhiteNoise, which is in the app as well, would send this.
                assert file.status_code == 200 and "Access-Control-Allow-Origin" not in file.headers, path
            style = client.get("/static/admin/css/base.css")
            assert style.status_code == 200 and style.headers["Content-Encoding"] in ("br", "gzip")
            assert style.headers["Cache-Control"] == "no-cache"
            again = client.get(style.url.path, headers={"If-None-Match": style.headers["ETag"]})
            assert again.status_code == 304
        with app.row("a user who was made in the sandbox logs in to the admin"):
            app.play(
                secret_environment={"DJANGO_SUPERUSER_PASSWORD": PASSWORD},
                after_switch="ara-manage createsuperuser --noinput --username admin --email admin@ara.example",
            )
            form = client.get(LOGIN)
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form.text)
            assert token, form.text
            refused = log_in(client, app, None)
            assert refused.status_code == 403 and "CSRF" in refused.text
            entered = log_in(client, app, token[1])
            assert (entered.status_code, entered.headers["Location"]) == (302, "/admin/")
            admin = client.get("/admin/")
            assert admin.status_code == 200 and 'action="/admin/logout/"' in admin.text
        with app.row("only who logs in may write"):
            label = {"name": "nightly"}
            assert client.post(LABELS, json=label).status_code in (401, 403)
            made = client.post(LABELS, json=label, auth=("admin", PASSWORD))
            assert made.status_code == 201, made.text
            assert [found["name"] for found in client.get(LABELS).json()["results"]] == ["nightly"]


def test_litestar(apps: dict[str, App]) -> None:
    app = apps["users"]
    with app.client() as client, app.row("JSON, kept in SQLite"):
        assert client.get("/schema/openapi.json").json()["info"]["title"] == "users"
        made = client.post("/api/users", json={"name": "Ada", "email": "ada@users.example"})
        assert made.status_code == 201, made.text
        user = f"/api/users/{made.json()['id']}"
        changed = client.patch(user, json={"name": "Ada Lovelace", "email": "ada@users.example"})
        assert changed.status_code == 200, changed.text
        assert client.get(user).json()["name"] == "Ada Lovelace"
        assert app.host.file(f"{app.state}/users.sqlite3").user == "slipway-users"


def test_flask(apps: dict[str, App]) -> None:
    app = apps["httpbin"]
    with app.client() as client, app.row("a page, a form, a stream, and who asked by which address"):
        page = client.get("/")
        assert page.status_code == 200 and "httpbin" in page.text
        said = client.post("/post", data={"colour": "green"}).json()
        assert said["form"] == {"colour": "green"}
        assert said["url"] == "https://httpbin.example/post"
        with socket.create_connection((httpx.URL(app.site.address).host, 443), 10) as connection:
            assert said["origin"] == connection.getsockname()[0]
        assert len(client.get("/stream/5").text.splitlines()) == 5


def selected(host: Any, query: str) -> str:
    """What PostgreSQL itself says."""
    command = "cd / && runuser --user postgres -- psql --dbname=ledger --tuples-only --no-align --command=%s"
    found: str = host.check_output(command, query)
    return found


def test_fastapi_with_postgresql(apps: dict[str, App]) -> None:
    app = apps["ledger"]
    with app.client() as client:
        with app.row("JSON, kept in PostgreSQL"):
            assert client.put(ENTRIES, json={"name": "first entry"}).status_code == 200
            # FastAPI answers before the session is closed, and so committed.
            wait_until(lambda: len(client.get(ENTRIES).json()) == 1, 10, "the row can be read")
            assert selected(app.host, "SELECT name FROM dummy_model") == "first entry"
            assert client.get("/api/health").status_code == 404
        with app.row("its database over a socket, with no password"):
            ask = "psql --host=/run/postgresql --dbname=ledger --no-password --tuples-only --no-align"
            query = "SELECT current_user, name FROM dummy_model"
            app.play(after_switch=f"{ask} --command='{query}' > \"$STATE_DIRECTORY/said\"")
            assert app.host.file(f"{app.state}/said").content_string == "slipway-ledger|first entry\n"
