#!/bin/sh
# Installs the Debian packages of the commands that this machine lacks, and says so.
#
#   tools/need-packages.sh COMMAND:PACKAGE ...
set -eu
# One at a time: apt waits for nobody.
mkdir -p "$(dirname "$0")/../.cache"
exec 9>"$(dirname "$0")/../.cache/packages.lock"
flock 9
missing=""
for pair in "$@"; do
    if ! command -v "${pair%%:*}" >/dev/null 2>&1; then
        missing="$missing ${pair#*:}"
    fi
done
if [ -n "$missing" ]; then
    echo "installing Debian packages:$missing"
    apt-get update -q
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi
