#!/usr/bin/env bash
# What one would type to bring the sample app live on a bare Debian, and its next version later: no checks, no sandbox,
# no limits, and no way back but the slot before. `make bench` times Slipway against it.
#
#   by_hand.sh bare       from nothing to live, with the app's source.tar beside this
#   by_hand.sh deploy     its next version, in another source.tar
#   by_hand.sh rollback   back to the slot before
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

export DEBIAN_FRONTEND=noninteractive
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
home=/srv/guestbook

bare() {
  update-ca-certificates >/dev/null 2>&1
  apt-get -qq update
  apt-get -qq install --no-install-recommends nginx openssl python3-venv >/dev/null
  python3 -m venv /opt/uv
  /opt/uv/bin/pip --quiet --disable-pip-version-check install --no-deps --require-hashes --requirement uv.txt

  id guestbook >/dev/null 2>&1 || useradd --system --home-dir $home guestbook
  mkdir -p $home/releases $home/state
  chown guestbook $home/state
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=guestbook.bench.test \
    -keyout /etc/ssl/private/guestbook.key -out /etc/ssl/certs/guestbook.pem 2>/dev/null

  cat >/etc/systemd/system/guestbook@.service <<'END'
[Service]
User=guestbook
RuntimeDirectory=guestbook-%i
WorkingDirectory=/srv/guestbook/%i/src
Environment=STATE_DIRECTORY=/srv/guestbook/state
Environment=SESSION_KEY=0123456789abcdef0123456789abcdef
ExecStart=/srv/guestbook/%i/.venv/bin/python -m gunicorn --worker-class uvicorn_worker.UvicornWorker --workers 2 \
  --bind unix:/run/guestbook-%i/socket guestbook.main:app
KillMode=mixed
END
  cat >/etc/nginx/sites-available/guestbook <<'END'
server {
    listen 443 ssl;
    server_name guestbook.bench.test;
    ssl_certificate /etc/ssl/certs/guestbook.pem;
    ssl_certificate_key /etc/ssl/private/guestbook.key;
    location / {
        include proxy_params;
        proxy_pass http://unix:/srv/guestbook/live;
    }
}
END
  ln -sf ../sites-available/guestbook /etc/nginx/sites-enabled/guestbook
  rm -f /etc/nginx/sites-enabled/default
  systemctl daemon-reload
  nginx -t -q
  systemctl enable --quiet nginx
  systemctl restart nginx
  deploy
}

# The slot that is live, and the other one.
look() {
  case $(readlink $home/live || true) in
    */guestbook-blue/*) live=blue idle=green ;;
    *) live=green idle=blue ;;
  esac
}

deploy() {
  look
  local release
  release=$home/releases/$(date +%s%N)
  mkdir -p "$release/src"
  tar --extract --no-same-owner --file source.tar --directory "$release/src"
  /opt/uv/bin/uv --quiet venv --python /usr/bin/python3 "$release/.venv"
  VIRTUAL_ENV=$release/.venv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy \
    /opt/uv/bin/uv --quiet pip sync --require-hashes "$release/src/requirements.txt" server.txt
  (cd "$release/src" && "$release/.venv/bin/python" -m guestbook.assets)
  ln -sfn "$release" $home/$idle
  (
    cd "$release/src"
    runuser --user guestbook -- env STATE_DIRECTORY=$home/state SESSION_KEY=0123456789abcdef0123456789abcdef \
      "$release/.venv/bin/alembic" upgrade head
  ) >/dev/null
  flip
}

rollback() {
  look
  flip
}

# Start the idle slot, wait until it is ready, hand it the traffic, and stop the other one.
flip() {
  systemctl start "guestbook@$idle"
  for _ in {1..300}; do
    ! ready || break
    sleep 0.1
  done
  ready
  ln -sfn "/run/guestbook-$idle/socket" $home/live.new
  mv -T $home/live.new $home/live
  systemctl stop "guestbook@$live"
}

ready() {
  python3 - "/run/guestbook-$idle/socket" <<'END'
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    try:
        connection.connect(sys.argv[1])
        connection.sendall(b"GET /ready HTTP/1.0\r\nHost: guestbook.bench.test\r\n\r\n")
        sys.exit(b" 200 " not in connection.recv(64))
    except OSError:
        sys.exit(1)
END
}

"$1"
