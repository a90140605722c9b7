"""Private sources: a repository over SSH and over HTTPS, and a package index, all on the host itself.

Nothing of what opens them may be seen anywhere: not in what a run says with -vvv, not in a process list, on no disk.
"""

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploying import TINY_APP
from hosts import APP, Site, inside, play
from packing import wheel

TOKEN, PASSWORD = 'canary-token "#\\ $%', 'canary-password "#\\ $%'
# What site.yml has to install for the app.
PACKAGE = "hello"
HOME = "/srv/sources"
SSH = f"ssh://git@localhost:2222{HOME}/web/git/shop.git"
HTTPS = "https://localhost:8843/git/shop.git"
INDEX = "https://localhost:8843/simple/"
# Servers that only these tests need: sshd on a port of its own, and one more site of the nginx that is there.
SETUP = f"""
apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends openssh-server git
useradd --system --shell /bin/sh --password '*' git
mkdir -p {HOME}/web/git {HOME}/web/simple /run/sshd && cd {HOME}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=Test of sources" \
    -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
    -keyout web.key -out web.csr 2>/dev/null
printf 'subjectAltName=DNS:localhost\\n' >web.ext
openssl x509 -req -in web.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile web.ext -out web.crt 2>/dev/null
ssh-keygen -q -t ed25519 -N "" -C "" -f hostkey
ssh-keygen -q -t ed25519 -N "" -C "" -f deploy && install -m 644 deploy.pub authorized
cat >sshd.conf <<'EOF'
Port 2222
ListenAddress 127.0.0.1
HostKey {HOME}/hostkey
PidFile {HOME}/sshd.pid
AuthorizedKeysFile {HOME}/authorized
AuthenticationMethods publickey
UsePAM no
EOF
/usr/sbin/sshd -f {HOME}/sshd.conf
cat >/etc/nginx/conf.d/sources.conf <<'EOF'
server {{
    listen 127.0.0.1:8843 ssl;
    server_name localhost;
    ssl_certificate {HOME}/web.crt;
    ssl_certificate_key {HOME}/web.key;
    root {HOME}/web;
    default_type text/html;
    auth_basic private;
    location /git/ {{ auth_basic_user_file {HOME}/git.users; }}
    location /simple/ {{ auth_basic_user_file {HOME}/simple.users; }}
}}
EOF
systemctl reload nginx
chown git: {HOME}/web/git
"""
# Looks at all processes over and over, and says who had a canary in its command line or its environment.
WATCH = """
import glob, select, sys
canaries, found = [line.strip().encode() for line in open("/srv/sources/canaries")], set()
while not select.select([sys.stdin], [], [], 0.02)[0]:
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            text = open(path, "rb").read()
        except OSError:
            continue
        if any(canary in text for canary in canaries):
            found.add(text)
print(len(found), *found)
"""
PROJECT = f"""
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = []
[project.optional-dependencies]
private = ["acme"]
[tool.uv]
package = false
[[tool.uv.index]]
url = "{INDEX.rstrip("/")}"
default = true
"""


class Sources:
    """The servers on the host, and an app that is deployed from them."""

    def __init__(self, container: str, directory: Path, site: Site) -> None:
        self.container = container
        self.directory = directory
        self.site = site
        self.said = ""
        self.inside(SETUP)
        for name, login in {"git": f"x-access-token:{{PLAIN}}{TOKEN}", "simple": f"deploy:{{PLAIN}}{PASSWORD}"}.items():
            self.inside(f"cat >{HOME}/{name}.users", f"{login}\n")
        self.key = self.inside(f"cat {HOME}/deploy")
        # A key of its own has no word in common with another.
        self.canaries = ["canary-token", "canary-password", self.key.splitlines()[2]]
        self.inside(f"cat >{HOME}/canaries", "\n".join(self.canaries))
        self.authority = directory / "sources.crt"
        self.authority.write_text(self.inside(f"cat {HOME}/ca.crt"))
        self.pinned = self.add_package()

    def inside(self, script: str, given: str | bytes = "") -> str:
        """Run a script on the host as root."""
        return inside(self.container, script, given)

    def add_package(self) -> str:
        """Put a wheel into the index, and return the line of requirements that pins it."""
        name, content = wheel("acme", "1.0", {"acme.py": "NAME = b'acme'\n"})
        directory, digest = f"{HOME}/web/simple/acme", hashlib.sha256(content).hexdigest()
        self.inside(f"mkdir {directory} && cat >{directory}/{name}", content)
        self.inside(f"cat >{directory}/index.html", f'<!DOCTYPE html><a href="{name}#sha256={digest}">{name}</a>')
        return f"acme==1.0 --hash=sha256:{digest}\n"

    def commit(self, version: str, locked_by_uv: bool) -> None:
        """Put another version of the app into the repository."""
        files = {"main.py": "import acme\n" + TINY_APP.format(f"b'{version} with ' + acme.NAME")}
        files |= {"pyproject.toml": PROJECT} if locked_by_uv else {"requirements.txt": self.pinned}
        work = f"{HOME}/work-{version}"
        self.inside(f"install -d -o git {work}")
        for name, text in files.items():
            self.inside(f"cat >{work}/{name}", text)
        if locked_by_uv:
            escaped = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
            netrc = f'machine localhost login deploy password "{escaped}"\n'
            self.inside(
                f"cd {work} && cat >/root/netrc && NETRC=/root/netrc SSL_CERT_FILE={HOME}/ca.crt "
                "/opt/slipway/uv/bin/uv lock --quiet --no-cache --python /usr/bin/python3; rm /root/netrc",
                netrc,
            )
        git = "git -c user.name=x -c user.email=x@example.com -c init.defaultBranch=main"
        bare = f"{HOME}/web/git/shop.git"
        script = f"""
            [ -d {bare} ] || {git} init -q --bare {bare}
            export GIT_DIR={bare} GIT_WORK_TREE={work}; cd {work}
            {git} add --all; {git} commit -qm {version}; {git} tag {version}; {git} update-server-info
        """
        self.inside("su git -s /bin/sh -c 'sh -e'", script)

    def new_host_key(self) -> str:
        """Let the SSH server have another key, and return the line of known_hosts for it."""
        self.inside(
            f"cd {HOME} && rm hostkey hostkey.pub && ssh-keygen -q -t ed25519 -N '' -C '' -f hostkey && "
            f"kill $(cat sshd.pid) && sleep 0.2 && /usr/sbin/sshd -f {HOME}/sshd.conf"
        )
        return f"[localhost]:2222 {self.inside(f'cat {HOME}/hostkey.pub')}"

    def deploy(self, playbook: str = "deploy", **options: Any) -> str:
        """Run a playbook with these options of the app, and return what it says with -vvv."""
        certificates = "query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt')"
        variables = {
            "host_ca_files": f"{{{{ {certificates} + ['{self.authority}'] }}}}",
            "slipway_app_overrides_sources": {
                APP: {"build": "", "migrate": "", "entrypoint": "main:app", "ready_path": "/", **options}
            },
            "vault_key": self.key,
            "vault_token": TOKEN,
            "vault_password": PASSWORD,
        }
        layer = self.directory / "sources.yml"
        layer.write_text(yaml.safe_dump({"sources": {"hosts": {self.container: variables}}}))
        said = ""
        try:
            said = play(self.container, "-vvv", "--diff", inventories=(layer,), playbook=playbook)
        except AssertionError as error:
            said = str(error)
            raise
        finally:
            self.said += said
        return said

    def refused(self, **options: Any) -> str:
        """Deploy what must be refused, and return why it was."""
        with pytest.raises(AssertionError) as refused:
            self.deploy(**options)
        return str(refused.value)


INDEX_OPTION = {"url": INDEX, "username": "deploy", "password": "{{ vault_password }}"}


@pytest.fixture(scope="module")
def sources(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    container = str(host.backend.get_hostname())
    certificate = host.file(f"/etc/slipway/certificates/{APP}/fullchain.pem").content_string
    made = Sources(container, tmp_path_factory.mktemp("sources"), Site(container, certificate))
    yield made
    made.inside(
        f"kill $(cat {HOME}/sshd.pid); rm /etc/nginx/conf.d/sources.conf; systemctl reload nginx; "
        f"rm -rf /etc/slipway/known_hosts {HOME}; userdel git; dpkg --purge {PACKAGE}"
    )


@contextlib.contextmanager
def watched(container: str) -> Iterator[None]:
    """Insist that meanwhile no process has a canary in its command line or its environment."""
    command = ["docker", "exec", "-i", container, "python3", "-c", WATCH]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
        yield
        assert watch.communicate("\n", timeout=20)[0] == "0\n"


def test_private_sources(sources: Sources) -> None:
    sources.commit("v1", locked_by_uv=True)
    over_ssh = {"git": SSH, "key": "{{ vault_key }}"}
    private = {"index": INDEX_OPTION, "packages": [PACKAGE], "extras": ["private"]}
    with watched(sources.container):
        # What only site.yml may install is missed before anything that serves changes.
        said = sources.refused(source={**over_ssh, "version": "v1"}, **private)
        assert f"package {PACKAGE} is not installed on this host; playbooks/site.yml installs" in said
        # The authority of the index is unknown as yet, and the key of the SSH server was seen for the first time.
        sources.deploy("site", source={**over_ssh, "version": "v1"}, **private)
        assert sources.site.get("/").text == "v1 with acme"
        # Another key of the server is refused, until it is named.
        sources.commit("v2", locked_by_uv=True)
        line = sources.new_host_key()
        said = sources.refused(source={**over_ssh, "version": "v2"}, **private)
        assert "Host key verification failed" in said and "/etc/slipway/known_hosts" in said
        assert sources.site.get("/").text == "v1 with acme"
        sources.deploy(source={**over_ssh, "version": "v2", "host_key": line}, **private)
        assert sources.site.get("/").text == "v2 with acme"
        # By HTTPS and from hashed requirements.
        sources.commit("v3", locked_by_uv=False)
        sources.deploy(source={"git": HTTPS, "version": "v3", "token": "{{ vault_token }}"}, index=INDEX_OPTION)
        assert sources.site.get("/").text == "v3 with acme"
        said = sources.refused(source={"git": HTTPS, "version": "v2", "token": "{{ vault_token }}-wrong"})
        assert "Authentication failed" in said
        assert sources.site.get("/").text == "v3 with acme"


def test_nothing_of_what_opens_them_is_seen(sources: Sources) -> None:
    assert "plugins/modules/release.py" in sources.said
    shown = [canary for canary in sources.canaries if canary in sources.said or json.dumps(canary) in sources.said]
    assert not shown
    journal = f"journalctl --no-pager --output=export >/run/journal; grep -c -F -f {HOME}/canaries /run/journal || true"
    assert sources.inside(journal) == "0\n"
    sources.inside("rm /run/journal")
    places = "/etc /opt /root /run /srv /tmp /var"
    found = sources.inside(f"grep -r -l -s --exclude-dir=sources -F -f {HOME}/canaries {places} || true")
    assert found == ""


@pytest.mark.usefixtures("sources")
def test_only_root_may_write_what_is_known_of_servers(host: Any) -> None:
    known = host.file("/etc/slipway/known_hosts")
    assert (known.user, known.group) == ("root", "root") and known.mode & 0o022 == 0
    assert "[localhost]:2222 ssh-ed25519" in known.content_string
