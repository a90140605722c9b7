"""What the judges of `make judge` make of what they see."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from judge import slow, wire

SEEN: dict[str, Any] = {"path": "/once", "body": "", "headers": [["host", wire.NAME], ["x-forwarded-proto", "https"]]}


def case(answer: str, *seen: dict[str, Any], once: str = "") -> wire.Case:
    return wire.Case("", "", b"", once=once, answer=answer, seen=list(seen))


@pytest.mark.parametrize("answer", ["400", "421", "501", "505", wire.CLOSED, wire.RESET])
def test_what_is_refused_passes_only_unseen(answer: str) -> None:
    assert case(answer).passed
    assert not case(answer, SEEN).passed


@pytest.mark.parametrize("answer", ["200", "308", "500", "502", "400 200", "200 400", wire.SILENT])
def test_what_is_not_refused_does_not_pass(answer: str) -> None:
    assert not case(answer).passed


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/smuggled"},
        {"headers": []},
        {"headers": [["host", wire.NAME]]},
        {"headers": [["host", wire.NAME], ["x-forwarded-proto", "http"]]},
        {"headers": [["host", "evil.test"], ["x-forwarded-proto", "https"]]},
        {"headers": [*SEEN["headers"], ["host", wire.NAME]]},
        {"headers": [*SEEN["headers"], ["forwarded", "host=evil.test"]]},
        {"headers": [*SEEN["headers"], ["transfer-encoding", "chunked"]]},
        {"headers": [*SEEN["headers"], ["content_length", "5"]]},
        {"headers": [*SEEN["headers"], ["content-length", "5"]]},
    ],
)
def test_what_is_read_once_passes_only_if_it_is_read_well(change: dict[str, Any]) -> None:
    assert case("200", SEEN, once="so").passed
    assert not case("200", {**SEEN, **change}, once="so").passed
    assert not case("200", SEEN, SEEN, once="so").passed
    assert not case("200", once="so").passed
    assert not case("400", SEEN, once="so").passed


def test_numbers_are_written_as_hpack_writes_them() -> None:
    assert [wire.number(value, bits) for value, bits in ((10, 5), (1337, 5), (42, 8))] == [
        b"\x0a",
        b"\x1f\x9a\x0a",
        b"*",
    ]


def test_each_request_has_a_name_of_its_own() -> None:
    said = [(case.group, case.what) for case in wire.cases()]
    assert len(said) == len(set(said)) > 100


def test_slow_clients_pass_only_if_the_host_ends_them_and_others_are_served() -> None:
    held = sum(slow.KINDS.values())
    lives = {kind: [15.0] for kind in slow.KINDS}
    assert slow.Report(held=held, lives=lives).bounded
    assert not slow.Report(held=held - 1, lives=lives).bounded
    assert not slow.Report(held=held, lives={**lives, "silent": [40.0]}).bounded
    assert not slow.Report(held=held, lives={**lives, "silent": []}).bounded
    assert slow.Report(during=[0.02]).harmless
    assert not slow.Report(during=[0.02, 6.0]).harmless
    assert not slow.Report(during=[0.02], failed=Counter(["status 503"])).harmless
    assert not slow.Report().harmless
