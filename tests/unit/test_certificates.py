"""The certificates of apps: made, kept and checked with real openssl in a directory of the test."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ansible_collections.slipway.asgi.plugins.module_utils.acme import Desk
from ansible_collections.slipway.asgi.plugins.modules import certificates
from ansible_collections.slipway.asgi.plugins.plugin_utils import own_certificates
from ansible_collections.slipway.asgi.plugins.plugin_utils.own_certificates import Option, OwnCertificate

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_text(key: Key, passphrase: bytes | None = None) -> str:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


def certificate_text(
    key: Key,
    names: list[str],
    begin: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + 90 * DAY,
    organization: str = "A company",
    signer: tuple[str, Key] | None = None,
) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization)])
    issuer, signing = signer or (organization, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(entry) for entry in names]), critical=False)
    )
    return builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


class Host:
    """A directory of certificates, and what is asked for in it."""

    def __init__(self, path: Path) -> None:
        self.root = path / "certificates"
        self.pending = path / "nginx" / "pending"

    def converge(self, *apps: dict[str, Any], check: bool = False, key_group: str = "") -> dict[str, Any]:
        options = {
            "apps": [{key: value for key, value in app.items() if key != "privkey"} for app in apps],
            "privkeys": {app["name"]: app["privkey"] for app in apps if "privkey" in app},
            "root": str(self.root),
            "pending": str(self.pending),
            "key_group": key_group,
        }
        return certificates.converge(options, check, Desk(self.root.parent))

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.root / name / "fullchain.pem").read_bytes())

    def text(self, name: str, file: str) -> str:
        return (self.root / name / file).read_text()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


SHOP: dict[str, Any] = {"name": "shop", "domains": ["shop.example.com", "*.shop.example.com"]}


def test_a_self_signed_certificate_is_right(host: Host) -> None:
    result = host.converge(SHOP)
    assert result["changed_apps"] == ["shop"]
    found = host.certificate("shop")
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == SHOP["domains"]
    assert found.not_valid_after_utc - found.not_valid_before_utc == datetime.timedelta(days=825)
    key = found.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert result["certificates"][0]["names"] == sorted(SHOP["domains"])


def test_only_root_can_read_a_key(host: Host) -> None:
    host.converge(SHOP)
    assert stat.S_IMODE((host.root / "shop" / "privkey.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((host.root / ".generations").stat().st_mode) == 0o700
    assert stat.S_IMODE(host.root.stat().st_mode) == 0o755


def test_a_group_may_read_keys_where_that_is_said(host: Host, me: dict[str, str]) -> None:
    host.converge(SHOP)
    before = host.text("shop", "privkey.pem")
    assert host.converge(SHOP, key_group=me["group"])["changed_apps"] == ["shop"]
    key = host.root / "shop" / "privkey.pem"
    assert (stat.S_IMODE(key.stat().st_mode), key.group(), key.read_text()) == (0o640, me["group"], before)
    realms = host.root / ".generations"
    assert (stat.S_IMODE(realms.stat().st_mode), realms.group()) == (0o710, me["group"])
    assert not host.converge(SHOP, key_group=me["group"])["changed"]


def test_a_client_that_trusts_the_certificate_connects(host: Host) -> None:
    """As strictly as Python checks: the names, the use and the form of the certificate."""
    host.converge({"name": "demo", "domains": ["localhost"]})
    directory = host.root / "demo"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "fullchain.pem", directory / "privkey.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError), server.wrap_socket(listener.accept()[0], server_side=True) as accepted:
                accepted.sendall(b"hello")

        thread = threading.Thread(target=answer)
        thread.start()
        client = ssl.create_default_context(cafile=directory / "fullchain.pem")
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        with (
            socket.create_connection(listener.getsockname()) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            assert connection.recv(5) == b"hello"
        thread.join()


def test_the_second_run_changes_nothing(host: Host) -> None:
    host.converge(SHOP)
    before = host.text("shop", "privkey.pem")
    host.pending.unlink()
    assert host.converge(SHOP) | {"certificates": []} == {
        "changed": False,
        "changed_apps": [],
        "diff": [],
        "certificates": [],
    }
    assert host.text("shop", "privkey.pem") == before
    assert not host.pending.exists()


def test_a_change_leaves_word_for_who_serves_it(host: Host) -> None:
    host.converge(SHOP)
    assert host.pending.exists()


def test_check_mode_only_says_what_it_would_do(host: Host) -> None:
    result = host.converge(SHOP, check=True)
    assert result["changed_apps"] == ["shop"]
    assert "*.shop.example.com, shop.example.com" in result["diff"][0]["after"]
    assert not host.root.exists() and not host.pending.exists()


@pytest.mark.parametrize("domains", [["shop.example.com"], [*SHOP["domains"], "www.example.com"]])
def test_other_domains_make_another_certificate(host: Host, domains: list[str]) -> None:
    host.converge(SHOP)
    result = host.converge({**SHOP, "domains": domains})
    assert result["certificates"][0]["names"] == sorted(domains)


def test_the_order_of_domains_does_not_matter(host: Host) -> None:
    host.converge(SHOP)
    assert not host.converge({**SHOP, "domains": SHOP["domains"][::-1]})["changed"]


@pytest.mark.parametrize(("left", "renewed"), [(276, False), (274, True)])
def test_it_is_made_anew_when_less_than_a_third_is_left(host: Host, left: int, renewed: bool) -> None:
    host.converge(SHOP)
    end = NOW + left * DAY
    key = new_key()
    aged = certificate_text(key, SHOP["domains"], end - 825 * DAY, end, certificates.SELF_SIGNED)
    directory = host.root / "shop"
    (directory / "fullchain.pem").write_text(aged)
    (directory / "privkey.pem").write_text(key_text(key))
    assert host.converge(SHOP)["changed"] is renewed


@pytest.mark.parametrize("file", ["fullchain.pem", "privkey.pem"])
@pytest.mark.parametrize(
    "content", ["", "garbage", key_text(new_key()), None], ids=["empty", "garbage", "another key", "gone"]
)
def test_a_damaged_pair_is_healed(host: Host, file: str, content: str | None) -> None:
    host.converge(SHOP)
    damaged = host.root / "shop" / file
    damaged.unlink() if content is None else damaged.write_text(content)
    assert host.converge(SHOP)["changed"]
    directory = host.root / "shop"
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(directory / "fullchain.pem", directory / "privkey.pem")


def test_a_key_that_others_can_read_is_closed_again(host: Host) -> None:
    host.converge(SHOP)
    key = host.root / "shop" / "privkey.pem"
    content = key.read_text()
    key.chmod(0o644)
    assert host.converge(SHOP)["changed"]
    assert (stat.S_IMODE(key.stat().st_mode), key.read_text()) == (0o600, content)


def test_from_self_signed_to_own_and_back(host: Host) -> None:
    host.converge(SHOP)
    key = new_key()
    own = {**SHOP, "fullchain": certificate_text(key, SHOP["domains"]), "privkey": key_text(key)}
    result = host.converge(own)
    assert result["changed_apps"] == ["shop"]
    assert result["certificates"][0]["issuer"] == "O=A company"
    assert host.text("shop", "privkey.pem") == own["privkey"]
    assert not host.converge(own)["changed"]
    assert certificates.SELF_SIGNED in host.converge(SHOP)["certificates"][0]["issuer"]


def test_certificate_and_key_change_together(host: Host) -> None:
    """Whoever resolved the link keeps a pair that belongs together."""
    host.converge(SHOP)
    opened = os.path.realpath(host.root / "shop")
    key = new_key()
    host.converge({**SHOP, "fullchain": certificate_text(key, SHOP["domains"]), "privkey": key_text(key)})
    assert os.path.realpath(host.root / "shop") != opened
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(f"{opened}/fullchain.pem", f"{opened}/privkey.pem")


def test_an_app_that_is_not_listed_keeps_its_certificate(host: Host) -> None:
    host.converge(SHOP, {"name": "blog", "domains": ["blog.example.com"]})
    before = host.text("shop", "fullchain.pem")
    assert not host.converge({"name": "blog", "domains": ["blog.example.com"]})["changed"]
    assert host.text("shop", "fullchain.pem") == before


def test_the_diff_holds_no_key(host: Host) -> None:
    host.converge(SHOP)
    key = new_key()
    result = host.converge({**SHOP, "fullchain": certificate_text(key, SHOP["domains"]), "privkey": key_text(key)})
    assert "good until" in result["diff"][0]["before"] and "O=A company" in result["diff"][0]["after"]
    assert "PRIVATE" not in json.dumps(result)


def test_a_directory_of_another_hand_is_not_touched(host: Host) -> None:
    (host.root / "shop").mkdir(parents=True)
    with pytest.raises(certificates.Refused, match="move it away"):
        host.converge(SHOP)


KEY = new_key()


def own(fullchain: str | None = None, privkey: str | None = None) -> OwnCertificate:
    return OwnCertificate(
        Option("slipway_apps.shop.certificate.fullchain", "shop.pem"),
        Option("slipway_apps.shop.certificate.privkey", "shop.key"),
        certificate_text(KEY, ["shop.example.com", "*.shop.example.com"]) if fullchain is None else fullchain,
        key_text(KEY) if privkey is None else privkey,
    )


@pytest.mark.parametrize(
    "domains", [["shop.example.com"], ["a.shop.example.com"], ["*.shop.example.com", "shop.example.com"]]
)
def test_an_own_certificate_that_fits(domains: list[str]) -> None:
    assert own().mistakes(domains, NOW) == []
    assert own().warnings(NOW) == []


ROOT_KEY, MIDDLE_KEY = new_key(), new_key()
ROOT_TEXT = certificate_text(ROOT_KEY, [], organization="root")
MIDDLE_TEXT = certificate_text(MIDDLE_KEY, [], organization="middle", signer=("root", ROOT_KEY))
LEAF_TEXT = certificate_text(KEY, ["shop.example.com"], organization="leaf", signer=("middle", MIDDLE_KEY))


def test_a_chain_with_its_root_needs_no_known_one() -> None:
    assert own(fullchain=LEAF_TEXT + MIDDLE_TEXT + ROOT_TEXT).mistakes(["shop.example.com"], NOW) == []


def test_a_chain_down_to_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    roots = (x509.load_pem_x509_certificate(ROOT_TEXT.encode()),)
    monkeypatch.setattr(own_certificates, "_known_roots", lambda: roots)
    assert own(fullchain=LEAF_TEXT + MIDDLE_TEXT).mistakes(["shop.example.com"], NOW) == []
    monkeypatch.setattr(own_certificates, "_known_roots", lambda: ())
    assert own(fullchain=LEAF_TEXT + MIDDLE_TEXT).mistakes(["shop.example.com"], NOW) == []


@pytest.mark.parametrize(
    ("given", "domains", "expected"),
    [
        (own(fullchain=LEAF_TEXT), ["shop.example.com"], 'chain ends with "O=leaf", and "O=middle", which issued that'),
        (own(fullchain=LEAF_TEXT + ROOT_TEXT), ["shop.example.com"], 'by the next one, and "O=leaf" is not'),
        (own(fullchain="hello"), ["shop.example.com"], 'fullchain is "shop.pem": it must hold certificates in PEM'),
        (own(fullchain=""), ["shop.example.com"], 'fullchain is "shop.pem": it must hold certificates in PEM'),
        (own(privkey="hello"), ["shop.example.com"], 'privkey is "shop.key": it must hold a private key in PEM'),
        (
            own(privkey=key_text(KEY, b"secret")),
            ["shop.example.com"],
            'privkey is "shop.key": it asks for a passphrase',
        ),
        (
            own(privkey=key_text(new_key())),
            ["shop.example.com"],
            "must be the key of the first certificate in shop.pem",
        ),
        (
            own(privkey=key_text(rsa.generate_private_key(65537, 2048))),
            ["shop.example.com"],
            "must be the key of the first certificate",
        ),
        (own(), ["example.com"], "lacks example.com; it covers *.shop.example.com, shop.example.com"),
        (own(), ["a.b.shop.example.com", "shop.example.com"], "lacks a.b.shop.example.com; it covers"),
        (own(), ["*.example.com"], r"lacks *.example.com; it covers"),
        (
            own(fullchain=certificate_text(KEY, ["shop.example.com"], NOW - 90 * DAY, NOW - DAY)),
            ["shop.example.com"],
            f"it expired on {NOW - DAY:%Y-%m-%d}; renew it",
        ),
        (
            own(fullchain=certificate_text(KEY, ["shop.example.com"], NOW + DAY, NOW + 90 * DAY)),
            ["shop.example.com"],
            f"it is not good before {NOW + DAY:%Y-%m-%d}",
        ),
        (own(fullchain=certificate_text(KEY, [])), ["shop.example.com"], "it covers none"),
    ],
)
def test_an_own_certificate_that_is_refused(given: OwnCertificate, domains: list[str], expected: str) -> None:
    mistakes = given.mistakes(domains, NOW)
    assert len(mistakes) == 1
    assert expected in mistakes[0]
    assert mistakes[0].startswith("slipway_apps.shop.certificate.")
    assert "BEGIN" not in mistakes[0]


def test_all_mistakes_come_at_once() -> None:
    given = own(certificate_text(KEY, ["x.example.com"], NOW - 9 * DAY, NOW - DAY), key_text(new_key()))
    assert len(given.mistakes(["shop.example.com"], NOW)) == 3


def test_a_certificate_that_soon_expires_is_pointed_out() -> None:
    given = own(certificate_text(KEY, ["shop.example.com"], NOW - 80 * DAY, NOW + 10 * DAY))
    assert f"expires on {NOW + 10 * DAY:%Y-%m-%d}; renew it soon" in given.warnings(NOW)[0]


def test_a_key_in_the_form_of_openssl_ecparam_is_read() -> None:
    """``openssl ecparam -genkey`` puts its parameters before the key."""
    made = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey"], capture_output=True, text=True, check=True
    ).stdout
    key = serialization.load_pem_private_key(made.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert own(certificate_text(key, ["shop.example.com"]), made).mistakes(["shop.example.com"], NOW) == []


class Controller:
    """The module as a play calls it, action and all, on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        key = new_key()
        self.key = key_text(key)
        (path / "shop.pem").write_text(certificate_text(key, ["shop.example.com"]))
        (path / "shop.key").write_text(self.key)

    def run(self, *flags: str, **files: str) -> str:
        paths = {name: str(self.path / file) for name, file in files.items()}
        apps = [{"name": "shop", "domains": ["shop.example.com"], "certificate": paths}]
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible")),
                *("localhost", "--connection=local", "--extra-vars=ansible_python_interpreter=" + sys.executable),
                *("--module-name=slipway.asgi.certificates", *flags),
                "--args=" + json.dumps({"apps": apps, "root": str(self.path / "certificates")}),
            ],
            cwd=self.path,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
                "ANSIBLE_VAULT_PASSWORD_FILE": str(self.path / "password"),
                "ANSIBLE_LOCAL_TEMP": str(self.path / "tmp"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    (tmp_path / "password").write_text("secret")
    return Controller(tmp_path)


def test_a_key_is_in_no_output_however_verbose(controller: Controller) -> None:
    output = controller.run("-vvv", "--diff", fullchain="shop.pem", privkey="shop.key")
    assert "changed_apps" in output and "O=A company" in output
    assert not [line for line in controller.key.splitlines()[1:-1] if line in output]
    assert (controller.path / "certificates/shop/privkey.pem").read_text() == controller.key


def test_a_vaulted_key_is_read(controller: Controller) -> None:
    vault = str(Path(sys.executable).with_name("ansible-vault"))
    password = f"--vault-password-file={controller.path / 'password'}"
    subprocess.run([vault, "encrypt", password, str(controller.path / "shop.key")], check=True, capture_output=True)
    assert "changed_apps" in controller.run(fullchain="shop.pem", privkey="shop.key")
    assert (controller.path / "certificates/shop/privkey.pem").read_text() == controller.key


def test_a_wrong_file_stops_before_the_host(controller: Controller) -> None:
    output = controller.run(fullchain="shop.key", privkey="gone.key")
    assert "slipway_apps.shop.certificate.privkey is" in output and "cannot be read on the controller" in output
    output = controller.run(fullchain="shop.key", privkey="shop.key")
    assert "slipway_apps.shop.certificate.fullchain is" in output and "certificates in PEM" in output
    assert not (controller.path / "certificates").exists()
