"""What the documentation says is what there is: generated parts, links, commands, and the README's own inventory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.slipway.asgi.plugins.filter.status_lines import HEAD, WIDTH
from ansible_collections.slipway.asgi.plugins.plugin_utils.apps import load_variables

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
CHECKLIST = (ROOT / "docs/checklist.md").read_text()
# What an inventory can say beside the options of roles.
BESIDE = {name for name in load_variables(ROOT / "roles") if name.startswith("slipway_")}
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("roles/*/README.md"))]
# What generating reads and writes.
SOURCES = ["README.md", "roles", "playbooks", "scripts"]
MINE = "inventories/mine/"
APPS = "group_vars/all/apps.yml"
Playbook = Callable[..., dict[str, list[dict[str, Any]]]]


def docs(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "scripts/docs", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in SOURCES:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def test_what_is_generated_is_up_to_date() -> None:
    done = docs(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_names_what_drifted_and_a_run_writes_it(copy: Path) -> None:
    specs = copy / "roles/nginx/meta/argument_specs.yml"
    specs.write_text(specs.read_text().replace("max_body_size:", "largest_body:"))
    (copy / "roles/host/README.md").unlink()
    done = docs(copy, "--check")
    assert done.returncode == 1
    drifted = {line.split()[0] for line in done.stdout.splitlines()}
    assert drifted == {"README.md", "roles/host/README.md", "roles/nginx/README.md"}
    assert not (copy / "roles/host/README.md").exists()
    assert docs(copy).returncode == 0
    assert docs(copy, "--check").returncode == 0
    assert "`largest_body`" in (copy / "README.md").read_text()


def test_a_readme_without_its_markers_is_not_overwritten(copy: Path) -> None:
    (copy / "README.md").write_text("# Slipway\n")
    done = docs(copy)
    assert done.returncode != 0 and "README.md lacks the lines" in done.stderr
    assert (copy / "README.md").read_text() == "# Slipway\n"


def test_roles_mean_the_same_by_one_key_of_an_app() -> None:
    seen: dict[str, tuple[str, Any]] = {}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        for option in yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"].values():
            for key, meaning in option.get("options", {}).items():
                role, known = seen.setdefault(key, (path.parts[-3], meaning))
                assert meaning == known, f"{key} in {path.parts[-3]} and in {role}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            there = page.parent / name if name else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be reached by."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_commands_of_the_readme_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = set(re.findall(r"^    make ([a-z-]+)", README, re.MULTILINE))
    assert made and made <= targets
    for path in re.findall(r"\bplaybooks/\w+\.yml|\bscripts/\w+|\.ci/run", README):
        assert (ROOT / path).is_file(), path


def test_the_table_of_the_readme_has_the_columns_of_the_filter_and_its_width() -> None:
    found = re.search(r"playbooks/status\.yml\n.*?```text\n(.*?)```", README, re.DOTALL)
    assert found
    head, *lines = found[1].splitlines()
    assert head.split() == " ".join(HEAD).split()
    assert max(map(len, lines)) <= WIDTH


def test_the_checklist_names_variables_defaults_and_tests_that_there_are() -> None:
    tables = "\n".join(page.read_text() for page in PAGES)
    defaults = dict(re.findall(r"^\| `([^`]+)` \| [^|]+ \| (.+?) \| ", tables, re.MULTILINE))
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| (\[.+) \|$", CHECKLIST, re.MULTILINE)
    assert len(rows) > 50
    for point, variables, shown, tests in rows:
        names = re.findall(r"`([^`]+)`", variables)
        for name, default in zip(names, shown.split(", ") if names else [], strict=True):
            assert default == defaults[name] if name in defaults else name in BESIDE, f"{name}: {point}"
        for name, path in re.findall(r"\[([^]]+)\]\(\.\./([^)]+)\)", tests):
            assert re.search(rf"\bdef {name}\(", (ROOT / path).read_text()), f"{name}: {point}"


def test_each_dependency_has_its_reason() -> None:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", README.partition("### Dependencies")[2], re.MULTILINE)
    explained = {name for row in rows for name in row.split(", ")}
    assert "with its DNS plugins" in explained
    controller = re.findall(r"^([A-Za-z0-9-]+)[^#\s]*==", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    judges = re.findall(r"^([a-z0-9-]+)==", (ROOT / "bench/judge/requirements.in").read_text(), re.MULTILINE)
    starters = re.findall(r"^([a-z0-9-]+)==", (ROOT / "molecule/apps/starters.in").read_text(), re.MULTILINE)
    judges += json.loads((ROOT / "bench/judge/package.json").read_text())["dependencies"]
    bench = re.findall(r"^([a-z0-9-]+)==", (ROOT / "bench/measure/requirements.in").read_text(), re.MULTILINE)
    servers = "".join(path.read_text() for path in (ROOT / "roles/app/files/server").glob("*.txt"))
    server = re.findall(r"^([a-z0-9-]+)==", servers, re.MULTILINE)
    roles = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())[0]["roles"]
    passed = next(role["vars"]["host_packages"] for role in roles if "host_packages" in role.get("vars", {}))
    host = re.findall(r"'([a-z0-9-]+)'", passed)
    host += yaml.safe_load((ROOT / "roles/host/vars/main.yml").read_text())["__host_packages"]
    assert {"git", "certbot", "dnspython", *controller, *judges, *starters, *bench, *server, *host} <= explained


def resolve(playbook: Playbook, clone: Path, apps: str) -> dict[str, Any]:
    """What resolving says of an inventory in a clone, beside which lies the source of an app."""
    mine = clone / MINE
    (mine / APPS).parent.mkdir(parents=True)
    (mine / APPS).write_text(apps)
    (clone.parent / "shop").mkdir()
    (clone.parent / "shop" / "uv.lock").touch()
    facts = {"distribution": "Debian", "distribution_version": "13.1", "cacheable": True}
    tasks: list[dict[str, Any]] = [{"ansible.builtin.set_fact": facts}, {"slipway.asgi.resolve_apps": {}}]
    return playbook(mine, tasks, {"203.0.113.7": {}})["203.0.113.7"][-1]


def test_the_inventory_of_the_readme_is_short_and_resolves(playbook: Playbook, tmp_path: Path) -> None:
    blocks = dict(re.findall(rf"```yaml\n# {MINE}(\S+)\n(.*?)```", README, re.DOTALL))
    assert sum(len(text.splitlines()) for text in blocks.values()) < 20
    assert list(yaml.safe_load(blocks["hosts.yml"])["slipway"]["hosts"]) == ["203.0.113.7"]
    views = resolve(playbook, tmp_path / "slipway", blocks[APPS])["views"]
    assert views["app"][0]["source"]["path"] == str(tmp_path / "shop")
    assert views["app"][0]["environment"] == {"SHOP_CURRENCY": "EUR"}


def test_the_mistakes_in_the_readme_are_what_is_said_of_them(playbook: Playbook, tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(slipway_apps:\n.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
    assert found
    message = resolve(playbook, tmp_path / "slipway", found[1])["msg"]
    assert found[2].strip().replace(MINE, "") in message


def test_the_entries_of_frameworks_are_those_that_the_scenario_runs() -> None:
    run = yaml.safe_load((ROOT / "molecule/apps/inventory.yml").read_text())["slipway"]["vars"]["slipway_apps"]
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/frameworks.md").read_text(), re.DOTALL)
    shown = {name: app for block in blocks for name, app in yaml.safe_load(block)["slipway_apps"].items()}
    for app in (*run.values(), *shown.values()):
        # A reader's own lies elsewhere.
        app["source"]["path"] = Path(app["source"]["path"]).name
    assert shown == run
