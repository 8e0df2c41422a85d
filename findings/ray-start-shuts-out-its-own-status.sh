#!/bin/sh
# Ray 2.60.0: a cluster begun by `ray start --head` by somebody who once called ray.init("local"), and who then asks
# `ray status`, or joins it by its address. Guess: both work, as they do for somebody who never called it.
# Seen: ray.init("local") leaves a token in ~/.ray/auth_token; because of that file `ray start` asks for a token, and
# neither `ray status` nor ray.init(address=...) sends it, although it is there. The latter's error says that it failed
# to connect, and nothing of a token. With RAY_AUTH_MODE=token, or without the file, all is well.
#
# Output seen:
#   without a token: status 0, joined
#   with one: status 1, ConnectionError without a word of it
#   RAY_AUTH_MODE=token: status 0, joined
# Exits 0 while it is so, 1 when it is not any more.
set -e
folder=$(mktemp -d)
head=
end() {
    [ -z "$head" ] || kill "$head" 2>/dev/null || true
    [ -z "$head" ] || wait "$head" 2>/dev/null || true
    head=
}
trap 'end; rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
export HOME="$folder" RAY_USAGE_STATS_ENABLED=0 RAY_TMPDIR="$folder/tmp" PATH="$folder/env/bin:$PATH"
mkdir -p "$RAY_TMPDIR"
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
cat > "$folder/join.py" <<'PYTHON'
import sys
import ray

try:
    ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
    print("joined")
except Exception as error:
    print(f"{type(error).__name__} {'naming the token' if 'token' in str(error).lower() else 'without a word of it'}")
PYTHON

begin() {
    ray start --head --block --num-cpus=1 --port="$port" --include-dashboard=false >"$folder/head.log" 2>&1 &
    head=$!
    for _ in $(seq 60); do
        grep -q "Ray runtime started" "$folder/head.log" && return
        sleep 1
    done
    exit 2
}

asked() {
    status=0
    ray status --address="127.0.0.1:$port" >/dev/null 2>&1 || status=$?
    echo "status $status, $(python "$folder/join.py" "127.0.0.1:$port" 2>/dev/null | tail -n 1)"
}

begin
without=$(asked)
end
sleep 5
python -c 'import ray; ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)' >/dev/null 2>&1
begin
with=$(asked)
told=$(RAY_AUTH_MODE=token asked)
echo "without a token: $without"
echo "with one: $with"
echo "RAY_AUTH_MODE=token: $told"
[ "$without | $with | $told" = "status 0, joined | status 1, ConnectionError without a word of it | status 0, joined" ]
