#!/usr/bin/python
"""The documentation of resolve_apps, which is an action: it runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: resolve_apps
short_description: Merge, complete and check what the variables of a host say about its apps
description:
  - Merges for each app, key by key and lowest first, the defaults of the roles' argument specs,
    C(slipway_app_defaults), C(slipway_apps.NAME) and every variable whose name begins with C(slipway_app_overrides), in
    alphabetical order.
  - Refuses what is unknown, wrong or in conflict, all mistakes in one message. Each names the variable, its value, what
    is allowed, and the file and line. The variables of the roles, and those of the playbooks, are looked at as well, so
    that no role finds a mistake when others have done their work.
  - It changes nothing. Where a play has gathered no facts, it asks the host for the three of its distribution, which
    takes a fraction of the time, and sets them.
author: The Slipway developers (@slipway)
version_added: 0.1.0
options:
  only:
    description: The one app that is wanted; all are checked, and the views hold this one alone.
    type: str
    default: ""
  without:
    description: An app that the views leave out; it need not be among those of the host.
    type: str
attributes:
  check_mode:
    support: full
    description: It does the same in check mode.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Resolve the apps
  slipway.asgi.resolve_apps:
  register: slipway

- name: Provide a certificate for each app
  ansible.builtin.include_role:
    name: slipway.asgi.certificates
  vars:
    certificates_apps: "{{ slipway.views.certificates }}"
"""

RETURN = r"""
views:
  description:
    - For each role that takes a list of apps, that list, with the keys that the role's own argument spec names. In
      place of a secret's value stands a reference, the variable and the keys that lead to it.
  returned: success
  type: dict
  sample:
    nginx:
      - {name: shop, domains: [shop.example.com], websocket_paths: [/ws]}
    app:
      - {name: shop, domains: [shop.example.com], secrets: {key: slipway_apps.shop.secrets.key}}
names:
  description: The names of all apps of the host, whatever the views hold.
  returned: success
  type: list
  elements: str
  sample: [shop]
python_versions:
  description: The versions of Python that the distribution does not have, so that uv has to install them.
  returned: success
  type: list
  elements: str
  sample: ["3.13"]
packages:
  description: The packages of the distribution that the apps need.
  returned: success
  type: list
  elements: str
  sample: [ffmpeg, libpq-dev]
ansible_facts:
  description: The facts C(distribution), C(distribution_release) and C(distribution_version) of the host.
  returned: where the play has gathered none
  type: dict
  sample: {distribution: Debian, distribution_release: trixie, distribution_version: "13"}
"""
