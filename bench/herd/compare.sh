#!/usr/bin/env bash
# Plays the herd against firstbell and, where they are installed, nginx and
# Varnish, one after the other on loopback, and prints one Markdown table.
#
#   bench/herd/compare.sh [options of herd, such as -urls 10000, -cases 1,5 or -leaks]
#
# It needs go; it installs nothing (Debian: apt-get install nginx varnish), and
# it ends only the processes that it started. Ports HERD_PORT (18080 unless
# said) to HERD_PORT+2 must be free. Exits 1 when firstbell
# misses a bar, 2 when it could not be played.
set -euo pipefail

module=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
port=${HERD_PORT:-18080}
origin=127.0.0.1:$port
listen=127.0.0.1:$((port + 1))
ops=127.0.0.1:$((port + 2))
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

start_firstbell() {
  cat >"$dir/firstbell.yaml" <<YAML
listen: {http: "$listen", ops: "$ops"}
origins:
  lms: {servers: ["http://$origin"]}
routes:
  - {hosts: ["*"], origin: lms, cache: {}}
YAML
  exec "$dir/firstbell" serve -config "$dir/firstbell.yaml"
}

# nginx at its best for these cases: one fetch at a time for a key, which goes on
# when its client leaves; errors kept for a second; nothing of users who say who
# they are by Authorization (it would share that). proxy_cache_lock_timeout stays
# at 5 s: less makes uncacheable pages faster and slow lessons many fetches.
start_nginx() {
  local user=
  ((EUID != 0)) || user='user root;'
  mkdir -p "$dir/nginx"
  cat >"$dir/nginx/nginx.conf" <<CONF
daemon off;
$user
worker_processes auto;
pid $dir/nginx/pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path $dir/nginx/body;
  proxy_temp_path $dir/nginx/proxy;
  fastcgi_temp_path $dir/nginx/fastcgi;
  uwsgi_temp_path $dir/nginx/uwsgi;
  scgi_temp_path $dir/nginx/scgi;
  proxy_cache_path $dir/nginx/cache levels=1:2 keys_zone=herd:64m max_size=1g use_temp_path=off;
  upstream lms { server $origin max_fails=0; keepalive 256; }
  server {
    listen $listen backlog=4096;
    location / {
      proxy_pass http://lms;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host \$http_host;
      proxy_set_header X-Forwarded-For \$remote_addr;
      proxy_cache herd;
      proxy_cache_key \$scheme\$http_host\$request_uri;
      proxy_cache_lock on;
      proxy_cache_lock_age 60s;
      proxy_cache_revalidate on;
      proxy_cache_background_update on;
      proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
      proxy_cache_valid 500 502 503 504 1s;
      proxy_cache_bypass \$http_authorization;
      proxy_no_cache \$http_authorization;
      proxy_ignore_client_abort on;
    }
  }
}
CONF
  exec nginx -p "$dir/nginx" -e stderr -c "$dir/nginx/nginx.conf"
}

# Varnish with its own rules (a cookie or Authorization is passed), grace, errors
# kept for a second, and threads for the herd from the beginning.
start_varnish() {
  mkdir -p "$dir/varnish"
  cat >"$dir/varnish/herd.vcl" <<VCL
vcl 4.1;
backend lms { .host = "${origin%:*}"; .port = "${origin##*:}"; }
sub vcl_backend_response {
  set beresp.grace = 1h;
  if (beresp.status >= 500) {
    set beresp.ttl = 1s;
    set beresp.grace = 0s;
  }
}
VCL
  exec varnishd -F -j none -n "$dir/varnish" -a "$listen" -f "$dir/varnish/herd.vcl" \
    -s malloc,256m -p thread_pool_min=250 -p listen_depth=4096
}

# play NAME [options]: one proxy, from start to stop.
play() {
  local name=$1
  shift
  echo "playing against $name" >&2
  "start_$name" >"$dir/$name.log" 2>&1 &
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

(cd "$module" && go build -o "$dir/herd" ./bench/herd && go build -o "$dir/firstbell" ./cmd/firstbell) || exit 2

proxies=(firstbell)
if command -v nginx >/dev/null; then proxies+=(nginx); else echo "compare: nginx is left out: it is not installed" >&2; fi
if command -v varnishd >/dev/null; then proxies+=(varnish); else echo "compare: varnish is left out: it is not installed" >&2; fi

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
