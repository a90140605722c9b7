"""Who else is there: another controller, a user who is not root, and a site that was there before."""

import ssl
from pathlib import Path

import httpx
import yaml
from faulting import Faults, told
from hosts import APP, play, start

BUSY = (f"another deploy of {APP} is at work on this host", "another run of Slipway is at work on this host")
USER, PASSWORD = "ops", "not a secret of any host"


def test_two_controllers_at_once(faults: Faults) -> None:
    # Both change the app and nginx.
    wanted = [{**faults.deploys.release(), "max_body_size": size} for size in ("3m", "4m")]
    with faults.fault("two controllers at once", "site.yml twice, with other releases and other sites") as row:
        running = [
            start(faults.container, inventories=(faults.deploys.layer(**options),), playbook="site")
            for options in wanted
        ]
        outputs = [" ".join(one.communicate()[0].split()) for one in running]
        refused = [output for one, output in zip(running, outputs, strict=True) if one.returncode != 0]
        for output in refused:
            assert any(words in output for words in BUSY), output
        assert len(refused) < len(running)
        said = faults.deploys.whole()
        assert said["greeting"] in [options["environment"]["GREETING"] for options in wanted]
        row.said = "one was refused, for the other was at work" if refused else "one waited for the other"
        faults.converges(row, playbook="site", **wanted[-1])


def test_a_user_with_sudo_and_a_password(faults: Faults, tmp_path: Path) -> None:
    layer = tmp_path / "user.yml"
    variables = {"ansible_user": USER, "ansible_become_password": PASSWORD}
    layer.write_text(yaml.safe_dump({"users": {"hosts": {faults.container: variables}}}))
    wanted = faults.deploys.release()
    with faults.fault("a user with sudo and a password", "no root, and sudo that asks") as row:
        faults.inside(f"useradd --create-home --shell /bin/sh --groups sudo {USER}; chpasswd", f"{USER}:{PASSWORD}\n")
        try:
            # The password is asked for.
            assert faults.deploys.host.run(f"su {USER} -c 'sudo --non-interactive true'").rc != 0
            output = play(faults.container, inventories=(faults.deploys.layer(), layer))
            assert " changed=0 " in output, output
            output = play(faults.container, inventories=(faults.deploys.layer(**wanted), layer), playbook="deploy")
            row.said = told(output)
            assert PASSWORD not in output
        finally:
            faults.inside(f"userdel --force --remove {USER} 2>/dev/null")
        faults.converges(row, **wanted)


def own_site(faults: Faults) -> tuple[str, ...]:
    """What the user's own site answers, over HTTP and over HTTPS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    answers = []
    with httpx.Client(verify=context, trust_env=False) as client:
        for scheme, port in (("http", 80), ("https", 443)):
            answer = client.get(
                f"{scheme}://127.0.0.1:{faults.deploys.site.port(port)}/",
                headers={"Host": "own.example"},
                extensions={"sni_hostname": "own.example"},
            )
            answers.append(f"{answer.status_code} {answer.headers.get('X-Own')} {answer.text.strip()}")
    return tuple(answers)


def test_a_site_of_the_users_own_survives(faults: Faults) -> None:
    with faults.fault("nginx with a site of the user's own", "installed before the first run") as row:
        expected = ("200 plain the site of the user", "200 secret the site of the user")
        assert own_site(faults) == expected
        faults.inside("nginx -t -q; systemctl reload nginx")
        row.said = told(faults.converges(row, playbook="site", **faults.deploys.release()))
        assert own_site(faults) == expected
