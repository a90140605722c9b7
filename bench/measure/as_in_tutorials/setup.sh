#!/usr/bin/env bash
# What the tutorial has one type. The app, the files beside this and the certificate are there already.
#
#   setup.sh WORKERS      as many as Slipway starts, since not their number is what is compared
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

export DEBIAN_FRONTEND=noninteractive PIP_CERT=/etc/ssl/certs/ca-certificates.crt
apt-get -qq update
apt-get -qq install --no-install-recommends nginx python3-venv >/dev/null

useradd --create-home sammy
chmod 755 /home/sammy
mkdir /home/sammy/myprojectdir
cd /home/sammy/myprojectdir
tar --extract --no-same-owner --file ~-/source.tar
python3 -m venv myprojectenv
# The same versions as Slipway's, uvloop and httptools among them, which a plain `pip install uvicorn` would not bring.
for requirements in requirements.txt ~-/server.txt; do
  myprojectenv/bin/pip --quiet --disable-pip-version-check install --require-hashes --requirement "$requirements"
done
chown -R sammy: .

cp ~-/gunicorn.socket ~-/gunicorn.service /etc/systemd/system/
sed -i "s/--workers 3/--workers $1/" /etc/systemd/system/gunicorn.service
systemctl daemon-reload
systemctl enable --quiet --now gunicorn.socket
cp ~-/site.conf /etc/nginx/sites-available/myproject
ln -s ../sites-available/myproject /etc/nginx/sites-enabled/
nginx -t -q
systemctl restart nginx
