#!/bin/sh
# Takes a picture of the upper part of a run's report, by Chromium: picture_of_report.sh RUN OUTPUT.png
set -eu
[ $# -eq 2 ] || { sed -n 2p "$0" >&2; exit 2; }
report=$(realpath "$1/report.html")
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
  --blink-settings=preferredColorScheme=1 --window-size=1020,1000 --force-device-scale-factor=0.8 \
  --screenshot="$2" "file://$report"
