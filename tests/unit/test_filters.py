"""The filters: what systemd reads of an environment file, and what a run tells its reader."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.slipway.asgi.plugins.filter.environment_file import environment_file
from ansible_collections.slipway.asgi.plugins.filter.release_lines import release_lines
from ansible_collections.slipway.asgi.plugins.filter.status_lines import WIDTH, status_lines
from ansible_collections.slipway.asgi.plugins.filter.summary import summary

VALUES = {
    "EMPTY": "",
    "PLAIN": "EUR",
    "LEADING": "  two  words",
    "TRAILING": "two  words  ",
    "DOUBLE": 'say "hi"',
    "SINGLE": "it's",
    "BACKSLASH": "C:\\new\\",
    "DOLLAR": "$5 ${HOME} $$",
    "BACKTICK": "`id`",
    "PERCENT": "50%off %n %%",
    "COMMENT": "#no comment ; none",
    "EQUALS": "a=b=c",
    "GLOB": "* ? [a] {b,c} ~ !",
    "JSON": '{"a": ["b\\n", "\\\\"]}',
    "URL": "postgresql://shop:p%40ss@db.example.com/shop?sslmode=require&x='y'",
    "TAB": "a\tb",
    "ACCENTS": "Grüße, 日本 🚢",
    "NUMBER": 8080,
    "LINES": '-----BEGIN KEY-----\nA="b"\n# no comment\n\tc\\\r\n\n',
}


def parse(text: str) -> dict[str, str]:
    """An environment file, read by the rules of systemd.exec(5), EnvironmentFile=, as far as double quotes go.

    Between them, a backslash is taken away before any of ``"\\`$`` and stays before all else.
    """
    entry = r'(\w+)="((?:[^"\\]|\\.)*)"\n'
    assert re.fullmatch(f"({entry})*", text, re.DOTALL), "the quotes end too soon"
    return {name: re.sub(r'\\(["\\`$])', r"\1", quoted) for name, quoted in re.findall(entry, text, re.DOTALL)}


def systemd_reads(path: Path, name: str, value: str) -> bool:
    """Whether systemd's own parser finds a value; it reads os-release with the one that it has for EnvironmentFile=."""
    # In single quotes, the condition's own language takes a backslash away before any character.
    quoted = "".join(f"\\{character}" if character in "\\'" else character for character in value)
    done = subprocess.run(
        ["systemd-analyze", "condition", f"ConditionOSRelease='{name}={quoted.replace('%', '%%')}'"],
        env={**os.environ, "SYSTEMD_OS_RELEASE": str(path)},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


class TestEnvironmentFile:
    def test_is_sorted_lines_with_only_what_must_be_escaped(self) -> None:
        assert environment_file({"B": 'a"b\\c`d$e', "A": "it's 50% #1"}) == 'A="it\'s 50% #1"\nB="a\\"b\\\\c\\`d\\$e"\n'
        assert environment_file({}) == ""

    @pytest.mark.parametrize("name", VALUES)
    def test_systemd_reads_back_what_was_written(self, name: str, tmp_path: Path) -> None:
        written = environment_file(VALUES)
        value = str(VALUES[name])
        assert parse(written)[name] == value
        # The real parser, where there is one and its condition can say the value.
        if shutil.which("systemd-analyze") and value.lstrip() == value != "" and value.isprintable():
            path = tmp_path / "environment"
            path.write_text(written)
            assert systemd_reads(path, name, value)
            assert not systemd_reads(path, name, f"{value}x")

    def test_templates_find_it(self) -> None:
        text = trust_as_template("{{ {'A': 'b'} | slipway.asgi.environment_file }}")
        assert Templar(DataLoader(), {}).template(text) == 'A="b"\n'


class TestSummary:
    @staticmethod
    def app(**plan: Any) -> dict[str, Any]:
        found = {"slot": "blue", "live": "r1", "live_slot": "blue", "switch": [], "reload": [], "tidy": [], **plan}
        return {"name": "shop", "domains": ["shop.example.com", "www.example.com"], "release": "r2", "plan": found}

    @staticmethod
    def result(timings: dict[str, float], item: str = "shop", **answer: Any) -> dict[str, Any]:
        done = {"item": item, "release": "r2", "slot": "green", "timings": timings, **answer}
        return {"results": [done]}

    def line(self, app: dict[str, Any], *results: dict[str, Any], port: int = 443) -> str:
        (entry,) = summary([app], results, port)
        assert entry["name"] == "shop"
        return str(entry["line"])

    def test_nothing_to_do(self) -> None:
        line = "shop: https://shop.example.com serves release r1 from slot blue, unchanged"
        assert self.line(self.app()) == line
        assert self.line(self.app(), {}, {"results": []}, {"skipped": True, "results": [{"skipped": True}]}) == line

    def test_a_deploy_names_its_steps_and_how_long_they_took(self) -> None:
        app = self.app(switch=["release r1 is live"], slot="green")
        built = self.result({"build": 4.26}, release="r1", slot="blue")
        live = self.result({"stage": 0.31, "probe": 1.42, "switch": 0.001, "verify": 0.06})
        other = self.result({"build": 99.0}, item="blog")
        (entry,) = summary([app], [built, other, live], 8443)
        assert entry == {
            "name": "shop",
            "release": "r2",
            "slot": "green",
            "timings": {"build": 4.26, "stage": 0.31, "probe": 1.42, "switch": 0.001, "verify": 0.06},
            "line": "shop: https://shop.example.com:8443 serves release r2 from slot green, 6.1 s "
            "(build 4.3, stage 0.3, probe 1.4, verify 0.1)",
        }

    def test_what_took_no_time_is_not_named(self) -> None:
        line = self.line(self.app(tidy=["a switch was not finished"]), self.result({"tidy": 0.04}))
        assert line.endswith(" serves release r2 from slot green, 0.0 s")

    def test_a_check_says_what_would_be(self) -> None:
        switch = self.app(switch=["release r1 is live"], slot="green")
        assert self.line(switch).endswith(" would serve release r2 from slot green")
        assert self.line(switch, self.result({})).endswith(" would serve release r2 from slot green")
        assert self.line(self.app(reload=["x"])).endswith(" would reload release r1 in slot blue")

    def test_a_rollback_needs_no_plan(self) -> None:
        app = {"name": "shop", "domains": ["shop.example.com"]}
        result = self.result({"stage": 0.2, "probe": 1.0}, reasons=["going back to release r2"])
        assert self.line(app, result).endswith(" serves release r2 from slot green, 1.2 s (stage 0.2, probe 1.0)")
        result = self.result({}, reasons=["going back to release r2"])
        assert self.line(app, result).endswith(" would change: going back to release r2")

    def test_each_app_has_a_line(self) -> None:
        blog = {**self.app(), "name": "blog", "domains": ["blog.example.com"]}
        lines = [entry["line"].split()[0] for entry in summary(iter([self.app(), blog]), iter([]))]
        assert lines == ["shop:", "blog:"]

    def test_templates_find_it(self) -> None:
        text = trust_as_template("{{ apps.values() | slipway.asgi.summary([], 443) | map(attribute='line') | first }}")
        line = Templar(DataLoader(), {"apps": {"shop": self.app()}}).template(text)
        assert line == "shop: https://shop.example.com serves release r1 from slot blue, unchanged"


class TestReleaseLines:
    APP: ClassVar[dict[str, Any]] = {
        "name": "shop",
        "slot": "green",
        "release": "r2",
        "since": 1795245060,
        "previous": "r1",
        "releases": [
            {"id": "r3", "built": 1795245600, "commit": "", "python": "x"},
            {"id": "r2", "built": 1795245000, "version": "v1.4.2", "commit": "8c0ffee1d2b3a4", "python": "x"},
            {"id": "r1", "built": 1795158600, "commit": "1f3c5a7b9d0e2f", "python": "x"},
        ],
    }

    def test_each_release_has_a_line(self) -> None:
        assert release_lines([self.APP]) == [
            "shop: release r2 is live in slot green since 2026-11-21 07:11",
            "  r3  2026-11-21 07:20",
            "* r2  2026-11-21 07:10  v1.4.2 8c0ffee1d2  live",
            "  r1  2026-11-20 07:10  1f3c5a7b9d  rollback",
        ]

    def test_an_app_that_never_went_live(self) -> None:
        app = {**self.APP, "slot": None, "release": None, "since": None, "previous": None, "releases": []}
        assert release_lines([app]) == ["shop: nothing is live"]

    def test_a_bare_host(self) -> None:
        assert release_lines([]) == ["no apps are on this host"]


class TestStatusLines:
    SHOP: ClassVar[dict[str, Any]] = {
        "name": "shop",
        "slot": "green",
        "release": "3f9a1c20b7de",
        "since": time.time() - 86400,
        "ready": True,
        "workers": 4,
        "workers_meant": 4,
        "memory": 192937984,
        "requests": 2060,
        "errors": 3,
        "certificate_days": 73,
        "problems": [],
    }
    NEW: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(SHOP),
        "name": "blog",
        "ready": False,
        "problems": ["NOT DEPLOYED"],
    }
    DISK: ClassVar[dict[str, Any]] = {"size": 42949672960, "free": 25333065318, "percent": 41}
    WELL: ClassVar[dict[str, Any]] = {
        "apps": [SHOP],
        "disk": DISK,
        "requests": {"seconds": 300, "whole": True},
        "problems": [],
        "amiss": 0,
    }

    def test_all_is_well(self) -> None:
        when = f"{datetime.datetime.fromtimestamp(self.SHOP['since'], datetime.UTC):%m-%d}"
        assert status_lines({"web1": self.WELL, "web2": {**self.WELL, "apps": []}}) == [
            "app    ready release      slot  since workers memory requests 5xx cert",
            "web1: disk 41 % of 40G full",
            f"  shop yes   3f9a1c20b7de green {when}     4/4   184M    2,060   3  73d",
            "web2: disk 41 % of 40G full",
            "",
            "Times are in UTC; requests, and 5xx among them, are of the last 5 minutes.",
            "All is well: 1 app on 2 hosts.",
        ]

    def test_what_is_amiss_stands_beneath_what_it_concerns(self) -> None:
        shop = {**self.SHOP, "ready": False, "workers": 2, "problems": ["NOT READY: no answer", "2 of 4 workers"]}
        bad = {**self.WELL, "apps": [self.NEW, shop], "problems": ["nginx is failed"], "amiss": 4}
        lines = status_lines({"web": bad, "web2": self.WELL})
        assert [line[:26].rstrip() for line in lines[1:8]] == [
            "web: disk 41 % of 40G full",
            "    ! nginx is failed",
            "  blog NO    -",
            "    ! NOT DEPLOYED",
            "  shop NO    3f9a1c20b7de",
            "    ! NOT READY: no answer",
            "    ! 2 of 4 workers",
        ]
        assert " 2/4 " in lines[5]
        assert lines[3].split() == ["blog", "NO", *["-"] * 8]
        assert lines[-1] == "4 problems on 1 of 2 hosts."

    def test_hosts_that_have_not_said_how_they_are(self) -> None:
        away = {"unreachable": True, "msg": "Task failed: Connection refused"}
        lines = status_lines({"web1": away, "web2": {"failed": True, "msg": "systemctl failed"}, "web3": self.WELL})
        assert lines[1:5] == [
            "web1",
            "    ! NOT REACHED: Connection refused",
            "web2",
            "    ! NOT KNOWN: systemctl failed",
        ]
        assert lines[-1] == "2 problems on 2 of 3 hosts."

    @pytest.mark.parametrize(
        ("requests", "said"),
        [
            (None, "web1: disk 41 % of 40G full; requests are not logged"),
            ({"seconds": 48, "whole": False}, "web1: disk 41 % of 40G full; requests of the last 48 s alone"),
        ],
    )
    def test_requests_that_are_not_all_known(self, requests: Any, said: str) -> None:
        assert status_lines({"web1": {**self.WELL, "requests": requests}})[1] == said

    def test_it_fits_a_terminal(self) -> None:
        page = f"status 502: <html>\n{'<p>The upstream is away.</p> ' * 20}</html>"
        shop = {**self.SHOP, "name": "guest-book", "ready": False, "requests": 12060, "problems": [page, "x" * 500]}
        lines = status_lines({"web1.example.com": {**self.WELL, "apps": [shop, self.NEW], "amiss": 2}})
        assert max(map(len, lines)) <= WIDTH
        assert "[...]" in lines[-6]
        # And what is beneath the first line of a problem is not mistaken for another.
        assert [line[:6] for line in lines if "upstream" in line] == ["    ! ", *["      "] * 3]

    def test_numbers_as_a_reader_wants_them(self) -> None:
        app = {**self.SHOP, "since": 1700000000, "memory": 3 * 2**30 + 2**29, "workers_meant": None, "requests": 0}
        _, _, line, *_ = status_lines({"web1": {**self.WELL, "apps": [app]}})
        assert line.split()[4:8] == ["2023-11", "4", "3.5G", "0"]
        app["since"] = time.time() - 60
        when = f"{datetime.datetime.fromtimestamp(app['since'], datetime.UTC):%H:%M}"
        _, _, line, *_ = status_lines({"web1": {**self.WELL, "apps": [app]}})
        assert line.split()[4] == when

    def test_a_bare_inventory(self) -> None:
        assert status_lines({})[-1] == "All is well: 0 apps on 0 hosts."
