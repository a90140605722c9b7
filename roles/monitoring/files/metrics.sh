#!/bin/sh
# What Slipway knows of the apps of this host, in Prometheus' text format.
set -eu

live_apps() {
  for live in /srv/slipway/*/live; do
    [ ! -e "$live" ] || basename "${live%/live}"
  done
}

echo '# HELP slipway_live_info The release that is live, and its slot.'
echo '# TYPE slipway_live_info gauge'
for app in $(live_apps); do
  slot=$(readlink "/srv/slipway/$app/live")
  release=$(readlink "/srv/slipway/$app/live/release")
  echo "slipway_live_info{app=\"$app\",release=\"${release##*/}\",slot=\"${slot##*/}\"} 1"
done

echo '# HELP slipway_certificate_expiry_timestamp_seconds When the certificate of an app expires.'
echo '# TYPE slipway_certificate_expiry_timestamp_seconds gauge'
for app in $(live_apps); do
  end=$(openssl x509 -noout -enddate -in "/etc/slipway/certificates/$app/fullchain.pem") || continue
  echo "slipway_certificate_expiry_timestamp_seconds{app=\"$app\"} $(date --date="${end#notAfter=}" +%s)"
done

echo '# HELP slipway_reboot_required Whether an update waits for a restart of the host.'
echo '# TYPE slipway_reboot_required gauge'
[ -e /run/reboot-required ] && required=1 || required=0
echo "slipway_reboot_required $required"
