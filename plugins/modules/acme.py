#!/usr/bin/python
"""Certificates issued by a CA that speaks ACME, and renewed by a timer on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: acme
short_description: Have certificates issued by a CA that speaks ACME
description:
  - Lays down on the host what each app wants of its CA, and lets C(slipway-acme.service) see to it, as its timer does
    twice a day. What was issued is then served in place of what was.
  - Before the CA is asked, the challenge's path of every domain is fetched as the CA would fetch it. A domain that
    cannot be reached is left out and named, and the app goes on with the certificate that it has; the timer tries again
    by itself. No domain that is served today is given up for that.
  - If the CA refuses, the task fails after all apps were seen to, and every app goes on with what it has.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  apps:
    description: The apps whose certificates are issued by a CA.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The app's name.
        type: str
        required: true
      domains:
        description: The names that the certificate shall be for; a wildcard is proved in DNS only.
        type: list
        elements: str
        required: true
      certificate:
        description:
          - Who issues it, as the role C(slipway.asgi.certificates) takes it, with C(issuer), C(email), C(key_type),
            C(profile), C(precheck), C(dns) and C(eab). An app without an C(issuer) is left alone.
          - In place of a secret in it stands where that is, such as C(slipway_apps.shop.certificate.eab.hmac_key).
        type: dict
  renew:
    description: The apps whose certificates are renewed now, whatever time is left.
    type: list
    elements: str
    default: []
  root:
    description: The directory of the certificates.
    type: path
    default: /etc/slipway/certificates
attributes:
  check_mode:
    support: full
    description: Says for which apps the CA would be asked.
  diff_mode:
    support: full
    description: Shows issuer, names, end and fingerprint of each certificate before and after; never a key.
"""

EXAMPLES = r"""
- name: Have the certificates issued by Let's Encrypt
  slipway.asgi.acme:
    apps:
      - name: shop
        domains: [shop.example.com, www.shop.example.com]
        certificate: {issuer: letsencrypt, email: ops@example.com}
"""

RETURN = r"""
changed_apps:
  description: The apps whose certificate changed.
  returned: always
  type: list
  elements: str
  sample: [shop]
waiting:
  description: What keeps a domain from being asked for, a line each.
  returned: always
  type: list
  elements: str
  sample: ["shop: DNS knows no address of www.shop.example.com"]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.asgi.plugins.module_utils.acme import Desk, Outcome, Wish
from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, lies_at, write
from ansible_collections.slipway.asgi.plugins.module_utils.host import Failed, run
from ansible_collections.slipway.asgi.plugins.module_utils.realms import Pair, Realm, Refused, inspect

SERVICE = "slipway-acme.service"


def main() -> None:
    """Run the module."""
    text = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "apps": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "domains": {"type": "list", "elements": "str", "required": True},
                    "server": {"type": "str", "required": True},
                    "email": text,
                    "key_type": {"type": "str", "choices": ["ecdsa", "rsa"], "default": "ecdsa", "no_log": False},
                    "profile": text,
                    "dns": text,
                    "propagation_seconds": {"type": "int", "default": 30},
                    "precheck": {"type": "bool", "default": True},
                    "eab_kid": text,
                },
            },
            "credentials": {"type": "dict", "default": {}, "no_log": True},
            "eab_hmac_keys": {"type": "dict", "default": {}, "no_log": True},
            "renew": {"type": "list", "elements": "str", "default": []},
            "root": {"type": "path", "default": "/etc/slipway/certificates"},
        },
        supports_check_mode=True,
    )
    try:
        result = converge(module.params, module.check_mode, Desk())
    except (Refused, Failed, OSError, LookupError) as error:
        module.fail_json(msg=str(error))
    if result["failed_apps"]:
        module.fail_json(msg=told(result), **result)
    if result["waiting"]:
        module.warn(
            "\n  - ".join(
                [
                    "These names cannot be proved yet, and their CA was not asked. "
                    "Each site goes on with the certificate that it has; the host tries again by itself, twice a day.",
                    *result["waiting"],
                ]
            )
        )
    module.exit_json(**result)


def told(result: Mapping[str, Any]) -> str:
    """What a user reads of the apps that failed."""
    lines = [f"{name}: {message}" for name, messages in result["failed_apps"].items() for message in messages]
    return "\n  - ".join(
        [
            "No new certificate was issued for these apps, which go on with what they have. "
            "Run this again when it is mended; the host tries by itself twice a day.",
            *lines,
        ]
    )


def converge(options: Mapping[str, Any], check: bool, desk: Desk) -> dict[str, Any]:
    """Lay down the wishes, and let the host's own service see to them where something is left to do.

    Args:
        options: the module's options.
        check: say only what would change.
        desk: where wishes and what came of them lie.

    Returns:
        The module's result, with ``failed_apps``: why, by the app's name.

    Raises:
        Failed: the service could not be started.
    """
    root = Path(options["root"])
    wishes = [
        Wish(**{**app, "domains": tuple(app["domains"])}, eab_hmac_key=options["eab_hmac_keys"].get(app["name"], ""))
        for app in options["apps"]
    ]
    before = {wish.name: Realm(root, wish.name).pair() for wish in wishes}
    changed = False
    for wish in wishes:
        for file, path in _files(wish, options["credentials"], desk):
            if not lies_at(file, path):
                changed = True
                if not check:
                    write(file, path)
        if wish.name in options["renew"] and not check:
            desk.renewal(wish.name).touch(0o640)
    undone = [wish for wish in wishes if not _is_done(wish, desk, root) or wish.name in options["renew"]]
    if check:
        return {
            "changed": changed or bool(undone),
            "changed_apps": [wish.name for wish in undone],
            "waiting": [],
            "failed_apps": {},
            "diff": [_diff(root, wish.name, before[wish.name], _announcement(wish)) for wish in undone],
        }
    failed: dict[str, list[str]] = {}
    waiting = []
    if undone:
        trouble = _start(desk)
        outcomes = desk.outcomes()
        for wish in undone:
            outcome = outcomes.get(wish.name, Outcome("failed", (trouble or "it was not seen to",)))
            waiting += [f"{wish.name}: {message}" for message in outcome.messages if outcome.state == "waiting"]
            if outcome.state == "failed":
                failed[wish.name] = list(outcome.messages)
            elif outcome.state == "good" and not _is_done(wish, desk, root):
                failed[wish.name] = [f"its new certificate could not be taken up: {trouble}"]
    after = {wish.name: Realm(root, wish.name).pair() for wish in wishes}
    renewed = [name for name in after if after[name] != before[name]]
    return {
        "changed": changed or bool(renewed),
        "changed_apps": renewed,
        "waiting": waiting,
        "failed_apps": failed,
        "diff": [_diff(root, name, before[name], _description(after[name])) for name in renewed],
    }


def _start(desk: Desk) -> str:
    """Run the service to its end; what it says of itself where that is not a success."""
    desk.report.unlink(missing_ok=True)
    try:
        run(["systemctl", "--quiet", "start", SERVICE])
    except Failed:
        invocation = run(["systemctl", "show", "--property=InvocationID", "--value", SERVICE]).strip()
        return run(["journalctl", "--quiet", "--output=cat", f"_SYSTEMD_INVOCATION_ID={invocation}"]).strip()
    return ""


def _is_done(wish: Wish, desk: Desk, root: Path) -> bool:
    """Whether what is wished for was issued, is served, and is not asked for anew."""
    held = desk.lineage(wish.name)
    if held is None or not held.suits(wish) or held.names != set(wish.domains) or desk.is_forced(wish.name):
        return False
    pair, served = Pair.at(desk.live(wish.name)), Realm(root, wish.name).pair()
    return pair is not None and served is not None and pair.privkey == served.privkey


def _files(wish: Wish, credentials: Mapping[str, Any], desk: Desk) -> list[tuple[File, Path]]:
    """What certbot's user reads, and no other: the wish, and what its DNS plugin needs."""
    files = [(File("", wish.text().encode(), 0o640, desk.owner, desk.group), desk.wish(wish.name))]
    if wish.dns:
        lines = [f"dns_{wish.dns}_{name} = {_word(value)}\n" for name, value in credentials[wish.name].items()]
        content = "".join(lines).encode()
        files.append((File("", content, 0o640, desk.owner, desk.group), desk.credentials(wish.name)))
    return files


def _word(value: str) -> str:
    """A value as ConfigObj reads it; it knows no escapes, but three kinds of quotes."""
    for quote in ('"', "'", "'''", '"""'):
        if quote not in value and not value.endswith(quote[0]):
            return f"{quote}{value}{quote}"
    raise Refused("a value that holds quotes of every kind cannot be written for certbot")


def _diff(root: Path, name: str, before: Pair | None, after: str) -> dict[str, str]:
    header = str(root / name)
    return {"before_header": header, "after_header": header, "before": _description(before), "after": after}


def _announcement(wish: Wish) -> str:
    return f"issuer: what {wish.server} decides\nnames: {', '.join(sorted(wish.domains))}\n"


def _description(pair: Pair | None) -> str:
    try:
        return str(inspect(pair.fullchain)) if pair else ""
    except Refused:
        return "unreadable\n"


if __name__ == "__main__":
    main()
