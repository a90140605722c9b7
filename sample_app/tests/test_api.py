"""The JSON API."""

import pytest
from starlette.testclient import TestClient

from guestbook.about import COLOUR, VERSION

ENTRY = {"name": "Ada", "message": "Hello"}


def test_an_entry_is_stored_and_listed_first(client: TestClient) -> None:
    stored = client.post("/api/entries", json={"name": "  Ada ", "message": "Zwei\nZeilen ü 🚢"})
    assert stored.status_code == 201
    assert stored.json()["name"] == "Ada"
    assert stored.json()["message"] == "Zwei\nZeilen ü 🚢"
    assert stored.json()["created_at"].endswith("Z")
    assert client.get("/api/entries?limit=1").json() == [stored.json()]


def test_entries_come_in_pages(client: TestClient) -> None:
    ids = [client.post("/api/entries", json=ENTRY).json()["id"] for _ in range(3)]
    page = client.get("/api/entries", params={"limit": 2, "before": ids[2]}).json()
    assert [entry["id"] for entry in page] == [ids[1], ids[0]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "Ada"},
        {"name": "", "message": "x"},
        {"name": "Ada", "message": " \n "},
        {"name": "a" * 41, "message": "x"},
        {"name": "Ada", "message": "x" * 281},
        {"name": "A\x00da", "message": "x"},
        {"name": "Ada", "message": "\x1b[31m"},
        {"name": "Ada", "message": "x", "release": "mine"},
        {"name": 5, "message": "x"},
        ["Ada"],
    ],
)
def test_what_is_not_an_entry_is_refused(client: TestClient, body: object) -> None:
    before = client.get("/api/entries").json()
    assert client.post("/api/entries", json=body).status_code == 422
    assert client.get("/api/entries").json() == before


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "before=0"])
def test_pages_have_limits(client: TestClient, query: str) -> None:
    assert client.get(f"/api/entries?{query}").status_code == 422


def test_a_visitor_is_known_again_and_cannot_be_posed_as(client: TestClient) -> None:
    first, second = (client.post("/api/entries", json=ENTRY).json()["author"] for _ in range(2))
    assert first == second
    cookie = client.cookies["visitor"]
    client.cookies.clear()
    assert client.post("/api/entries", json=ENTRY).json()["author"] != first

    client.cookies.clear()
    forged = client.post("/api/entries", json=ENTRY, headers={"cookie": f"visitor={cookie}0"})
    assert forged.json()["author"] != first
    assert "httponly" in forged.headers["set-cookie"].lower()


def test_about_names_version_and_worker(client: TestClient) -> None:
    about = client.get("/api/about").json()
    assert about.keys() == {"version", "colour", "release", "slot", "greeting", "pid"}
    assert (about["version"], about["colour"]) == (VERSION, COLOUR)


def test_client_is_what_the_app_sees(client: TestClient) -> None:
    assert client.get("/api/client").json() == {
        "address": "testclient",
        "scheme": "http",
        "host": "testserver",
    }


def test_echo_returns_the_body(client: TestClient) -> None:
    body = bytes(range(256)) * 100
    assert client.post("/api/echo", content=body).content == body


def test_a_request_id_is_taken_made_and_never_trusted_blindly(client: TestClient) -> None:
    def answered(offered: str) -> str:
        return client.get("/health", headers={"x-request-id": offered}).headers["x-request-id"]

    assert answered("abc-123") == "abc-123"
    assert answered('"}, evil') != '"}, evil'
    assert len(answered("a" * 65)) == 32
    assert client.get("/no/such/page").headers["x-request-id"]
