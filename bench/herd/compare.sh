#!/usr/bin/env bash
# Plays the herd against firstbell and, where they are installed, nginx and
# Varnish, one after the other on loopback, and prints one Markdown table.
#
#   bench/herd/compare.sh [options of herd, such as -urls 10000, -cases 1,5 or -leaks]
#
# HERD_PEERS="nginx haproxy squid" names others; bench/compare starts them, with
# the configuration in bench/compare/peers. It needs go; it installs nothing (go
# run ./bench/compare -install does), and it ends only the processes that it
# started. Ports HERD_PORT (18080 unless said) and HERD_PORT+1 must be free.
# Exits 1 when firstbell misses a bar, 2 when it could not be played.
set -euo pipefail

module=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
port=${HERD_PORT:-18080}
origin=127.0.0.1:$port
listen=127.0.0.1:$((port + 1))
PATH=$PATH:/usr/sbin:/usr/local/sbin

dir=$(mktemp -d "${TMPDIR:-/tmp}/herd.XXXXXX")
proxy= # process id of the proxy under test
herd=  # process id of the herd

# stop ends one child: politely, and after 5 s by force.
stop() {
  local pid=$1 tries=50
  [[ -n $pid ]] || return 0
  kill -TERM "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && ((tries-- > 0)); do sleep 0.1; done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

clean() {
  stop "$herd"
  stop "$proxy"
  rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# play NAME [options]: one proxy, from start to stop.
play() {
  local name=$1
  shift
  echo "playing against $name" >&2
  "$dir/compare" -serve "$name" -firstbell "$dir/firstbell" -listen "$listen" -origin "$origin" >"$dir/$name.log" 2>&1 &
  proxy=$!
  "$dir/herd" -target "http://$listen" -origin "$origin" -name "$name" -json -report "$@" >"$dir/$name.json" &
  herd=$!
  if ! wait "$herd"; then
    herd=
    echo "compare: the herd could not be played against $name, which said:" >&2
    tail -n 20 "$dir/$name.log" >&2
    exit 2
  fi
  herd=
  if ! kill -0 "$proxy" 2>/dev/null; then
    echo "compare: $name ended before the herd did, and said:" >&2
    tail -n 20 "$dir/$name.log" >&2
    exit 2
  fi
  stop "$proxy"
  proxy=
}

(cd "$module" && go build -o "$dir/herd" ./bench/herd && go build -o "$dir/compare" ./bench/compare && go build -o "$dir/firstbell" ./cmd/firstbell) || exit 2

proxies=(firstbell)
for name in ${HERD_PEERS:-nginx varnish}; do
  program=$name
  case $name in varnish) program=varnishd ;; trafficserver) program=traffic_server ;; esac
  if command -v "$program" >/dev/null; then proxies+=("$name"); else echo "compare: $name is left out: it is not installed" >&2; fi
done

results=()
for name in "${proxies[@]}"; do
  play "$name" "$@"
  results+=("$dir/$name.json")
done
"$dir/herd" -merge "${results[@]}"
if grep -q '"verdict": "fail"' "$dir/firstbell.json"; then
  echo "compare: firstbell misses a bar" >&2
  exit 1
fi
