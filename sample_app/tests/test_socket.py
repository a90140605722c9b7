"""The WebSocket, in one process."""

from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect


def wait_for(socket: WebSocketTestSession, key: str) -> Any:
    while key not in (message := socket.receive_json()):
        pass
    return message[key]


def test_a_page_gets_all_that_it_shows_and_then_each_change(client: TestClient) -> None:
    client.get("/")
    with client.websocket_connect("/ws") as socket:
        message = socket.receive_json()
        assert message["about"] == client.get("/api/about").json()
        assert message["visitors"] == 1
        stored = client.post("/api/entries", json={"name": "Ada", "message": "<b>Hi</b>"}).json()
        assert wait_for(socket, "entries") == [stored]
        assert stored["author"] == message["you"]


def test_a_second_page_sees_what_was_there_and_both_are_counted(client: TestClient) -> None:
    stored = client.post("/api/entries", json={"name": "Ada", "message": "Before"}).json()
    with client.websocket_connect("/ws") as first, client.websocket_connect("/ws") as second:
        assert wait_for(second, "entries")[-1] == stored
        while wait_for(first, "visitors") != 2:
            pass
    with client.websocket_connect("/ws") as third:
        while wait_for(third, "visitors") != 1:
            pass


@pytest.mark.parametrize("origin", ["https://evil.example", "http://testserver.evil", "null"])
def test_a_page_of_another_site_is_refused(client: TestClient, origin: str) -> None:
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        client.websocket_connect("/ws", headers={"origin": origin}),
    ):
        pass
    assert refused.value.code == 1008


def test_a_page_of_this_site_is_welcome(client: TestClient) -> None:
    with client.websocket_connect("/ws", headers={"origin": "https://testserver"}) as socket:
        assert wait_for(socket, "visitors") >= 1


def test_what_a_page_says_is_ignored(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        socket.send_text("hello")
        socket.send_bytes(b"\x00")
        assert wait_for(socket, "visitors") >= 1
