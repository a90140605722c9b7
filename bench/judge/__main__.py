"""Lets outside judges judge a host that site.yml has made, and writes their verdicts into docs/judges.md."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from . import slow, wire

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "bench/judge"
WORK = ROOT / ".cache/judge"
PAGE = ROOT / "docs/judges.md"
CONTAINER, NAME = "slipway-judge", "shop.judge.test"
CERTIFICATE = f"""\
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 60 -subj "/CN=Root of the judges" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout root.key -out root.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={NAME} -keyout privkey.pem -out leaf.csr
printf '%s\\n' subjectAltName=DNS:{NAME},DNS:{wire.NAME} basicConstraints=critical,CA:FALSE \
  keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth authorityKeyIdentifier=keyid >leaf.ext
openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 60 -extfile leaf.ext \
  -out leaf.pem
cat leaf.pem root.pem >fullchain.pem
"""
OBSERVATORY_SCORE = 130
# What gixy finds and is as it shall be, by its check and what it says, with the reason.
EXCEPTIONS = {
    ("hash_without_default", "Missing default value in geo $slipway_"): (
        "Without a default, `geo` gives what is meant here: nothing. With one, nginx would warn of a duplicate where a "
        "list of the user's holds `0.0.0.0/0` or `::/0`."
    ),
    ("ssl_ecdh_curve", "X25519MLKEM768"): (
        "Only where the distribution's OpenSSL knows this group is it named: `curves` in "
        "[vars/main.yml](../roles/nginx/vars/main.yml), and a test for each distribution."
    ),
    ("try_files_is_evil_too", "without open_file_cache"): (
        "A cache of open files would go on serving the release before after the link `live` has moved. What is served "
        "so are challenges of CAs, and what pages of the release before still ask for."
    ),
}
INTRODUCTION = """\
# What outside judges say

`make judge` wrote this. It makes a host with the sample app by `playbooks/site.yml`, with nothing but defaults, as
[its inventory](../bench/judge/inventory.yml) says, asks judges from outside, and removes it. All of them ask 127.0.0.1;
nothing but packages comes from elsewhere. The host was RELEASE.

| judge | what | verdict | it says |
| --- | --- | --- | --- |
"""
NOTES = """
- The certificate is one of an authority's made for this, good for 60 days. The self-signed one of a first run is good
  for 825, which Mozilla's guidelines do not like.
- sslyze judges by version 5.7 of these guidelines and knows no hybrid groups: that X25519MLKEM768 is offered as well,
  as version 6.0 wants it, it does not see.
- What lacks of the Observatory's points: `hsts: preload` and a place on the browsers' list are 5, and `integrity`
  attributes are 5, which guard against foreign hosts; the page loads from none.
- nginx holds a slow body for as long as a byte comes each 30 s. The app gets none of it before it is whole, and
  `limits: {connections: 50}` bounds how many one client has.

## What gixy finds, and why it stays

| check | severity | finding | why |
| --- | --- | --- | --- |
"""
REQUESTS = """
## The requests

Refused means: answered with 400 to 499, 501 or 505, or by the end of the connection, and unseen by the app. What is
not refused reached the app as one request, with the site's own name, one length and no `Transfer-Encoding`; what was
hidden in a body was never taken for a request.

| kind | request | answer | the app saw |
| --- | --- | --- | --- |
"""


@dataclasses.dataclass
class Verdict:
    """One row of the table."""

    judge: str
    judged: str
    said: str
    passed: bool


def tell(what: str) -> None:
    """Say what comes next."""
    print(f"judge: {what}", flush=True)


def play(*arguments: str) -> None:
    """Run playbooks against the host, and show what they say only if they fail."""
    command: list[str | Path] = [ROOT / ".venv/bin/ansible-playbook", "-i", HERE / "inventory.yml", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\njudge: the host could not be made")


def port(inside: int) -> int:
    """The port on this machine behind which a port of the host lies."""
    shown = subprocess.check_output(["docker", "port", CONTAINER, f"{inside}/tcp"], text=True)
    return int(shown.split()[0].rpartition(":")[2])


def version(package: str) -> str:
    """A judge's name and its version."""
    pinned = re.findall(r"^([\w-]+)==(\S+)", (HERE / "requirements.in").read_text(), re.MULTILINE)
    pinned += json.loads((HERE / "package.json").read_text())["dependencies"].items()
    return f"{package.rpartition('/')[2]} {dict(pinned)[package]}"


# --- judges


def sslyze(profile: str) -> Verdict:
    """Mozilla's guidelines, by what the host accepts of TLS."""
    target = f"{NAME}:{port(443)}{{127.0.0.1}}"
    command: list[str | Path] = [
        WORK / "venv/bin/sslyze",
        f"--mozilla_config={profile}",
        f"--certinfo_ca_file={WORK}/root.pem",
        target,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    verdict = done.stdout.rpartition("for more details.")[2].split()
    said = " ".join(verdict[1:]).removeprefix("OK - ") if done.returncode == 0 else done.stdout + done.stderr
    return Verdict(
        version("sslyze"),
        f"Mozilla's guidelines, {profile}, with `slipway_tls_profile: {profile}`",
        said,
        done.returncode == 0 and verdict[-1:] == ["Compliant."],
    )


def observatory() -> Verdict:
    """What MDN says of the sample app's page."""
    command: list[str | Path] = [
        "node",
        HERE / "observatory.mjs",
        WORK / "npm/node_modules",
        NAME,
        str(port(80)),
        str(port(443)),
    ]
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": f"{WORK}/root.pem"}
    found = json.loads(subprocess.check_output(command, env=environment))
    scan, tests = found["scan"], found["tests"]
    bad = [f"{name}: {test['result']}" for name, test in tests.items() if not test["pass"] or test["scoreModifier"] < 0]
    short = {
        "strict-transport-security": "HSTS not preloaded",
        "subresource-integrity": "no integrity attributes on scripts of the app's own address",
    }
    less = [f"{why} (5 less)" for name, why in short.items() if tests[name]["scoreModifier"] == 0]
    return Verdict(
        version("@mdn/mdn-http-observatory"),
        "the sample app's page",
        f"{scan['grade']} {scan['score']}; " + "; ".join(bad + less),
        not bad and scan["score"] >= OBSERVATORY_SCORE,
    )


def gixy() -> tuple[Verdict, list[str]]:
    """What a reader of nginx's configuration says, and the rows of what is right all the same."""
    shown = subprocess.check_output(["docker", "exec", CONTAINER, "nginx", "-T"], stderr=subprocess.DEVNULL)
    (WORK / "nginx.conf").write_bytes(shown)
    command: list[str | Path] = [WORK / "venv/bin/gixy", "--format=json", "-ll", WORK / "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows, new = {}, []
    for finding in json.loads(done.stdout):
        check, reason = finding["plugin"], f"{finding['summary']} {finding['reason']}"
        for (excepted, part), why in EXCEPTIONS.items():
            if check == excepted and part in reason:
                rows[check] = f"| {check} | {finding['severity'].lower()} | {cell(finding['summary'])} | {why} |"
                break
        else:
            new.append(f"{check}: {finding['reason']}")
    said = "; ".join(new) or f"nothing at medium or above but what is explained below, of {len(rows)} kinds"
    return Verdict(version("gixy-ng"), "nginx's configuration", said, not new), sorted(rows.values())


def smuggling() -> tuple[list[Verdict], list[wire.Case]]:
    """What comes of requests that could be read in two ways."""
    groups = collections.defaultdict(list)
    asked = wire.ask(port(443))
    for case in asked:
        groups[case.group].append(case)
    verdicts = []
    for group, cases in groups.items():
        once = [case for case in cases if case.once and case.passed]
        refused = [case for case in cases if not case.once and case.passed]
        wrong = [f"{case.what} ({case.answer}, app saw {len(case.seen)})" for case in cases if not case.passed]
        said = f"{len(refused)} of {len(cases)} refused, unseen by the app"
        said += f"; {len(once)} read in the one way that is right" if once else ""
        said += f"; WRONG: {'; '.join(wrong)}" if wrong else ""
        verdicts.append(Verdict("raw requests", group, said, not wrong))
    return verdicts, asked


def slowness() -> list[Verdict]:
    """What others notice of slow clients, and how long these last."""
    report = slow.attack(port(443), (NAME, "/api/entries"), (WORK / "root.pem").read_text())
    reached = len(wire.seen(port(443)))
    failed = ", ".join(f"{count} {why}" for why, count in report.failed.items()) or "none"
    lives = "; ".join(
        f"{count} {kind}, "
        + (f"each closed after {max(report.lives[kind]):.0f} s" if report.lives[kind] else "all held")
        for kind, count in slow.KINDS.items()
    )
    others = f"{len(report.during)} served, {failed} failed; {slow.times(report.during)}"
    return [
        Verdict(
            f"{report.held} slow clients",
            "themselves",
            f"{lives}; {reached} reached the app",
            report.bounded and not reached,
        ),
        Verdict(
            f"{report.held} slow clients",
            "others meanwhile",
            f"{others} (before: {slow.times(report.before)})",
            report.harmless,
        ),
    ]


# --- the page


def cell(text: str) -> str:
    """A text as it may stand in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def page(verdicts: list[Verdict], explained: list[str], asked: list[wire.Case]) -> Iterator[str]:
    """The lines of docs/judges.md."""
    system = subprocess.check_output(["docker", "exec", CONTAINER, "sh", "-c", ". /etc/os-release; echo $PRETTY_NAME"])
    release = system.decode().strip().partition(" (")[0]
    yield from INTRODUCTION.replace("RELEASE", release).splitlines()
    for verdict in verdicts:
        sign = "passed" if verdict.passed else "**FAILED**"
        yield f"| {cell(verdict.judge)} | {cell(verdict.judged)} | {sign} | {cell(verdict.said)} |"
    yield from [*NOTES.splitlines(), *explained, *REQUESTS.splitlines()]
    for case in asked:
        right = f"it once: {case.once}" if case.once else "nothing"
        saw = right if case.passed else f"**{len(case.seen)} requests**"
        yield f"| {case.group} | {cell(case.what)} | {case.answer} | {saw} |"


def table(verdicts: list[Verdict]) -> Iterator[str]:
    """The verdicts for a terminal."""
    width = max(len(verdict.judge) for verdict in verdicts)
    for verdict in verdicts:
        judged = verdict.judged.replace("`", "")
        yield f"{verdict.judge:{width}}  {'passed' if verdict.passed else 'FAILED'}  {judged}: {verdict.said}"


def main() -> int:
    """Run all judges, and return the exit status."""
    parser = argparse.ArgumentParser(prog="make judge", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the host, and take the one that is there")
    parser.add_argument("--image", help="another one of scripts/testbed images, such as slipway/debian:12")
    options = parser.parse_args()
    image = ["-e", f"testbed_image={options.image}"] if options.image else []

    if not (WORK / "fullchain.pem").exists() or not options.keep:
        subprocess.run(
            ["sh", "-c", CERTIFICATE], cwd=WORK, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    try:
        tell("making the host, about a minute")
        play(*image, "molecule/shared/create.yml", "playbooks/site.yml")
        tell("asking the judges, and those who send strange requests")
        found, explained = gixy()
        verdicts = [sslyze("intermediate"), observatory(), found]
        requests, asked = smuggling()
        tell(f"{sum(slow.KINDS.values())} slow clients, about 40 s")
        verdicts += [*requests, *slowness()]
        tell("once more, with TLS 1.3 alone")
        play(*image, "-e", "slipway_tls_profile=modern", "playbooks/site.yml")
        verdicts.insert(1, sslyze("modern"))
        if not options.image:
            PAGE.write_text("\n".join(page(verdicts, explained, asked)) + "\n")
    finally:
        if not options.keep:
            play("molecule/shared/destroy.yml")
    print("", *table(verdicts), "", sep="\n")
    if not options.image:
        tell(f"this is in {PAGE.relative_to(ROOT)}, with each request and each exception")
    return 0 if all(verdict.passed for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
