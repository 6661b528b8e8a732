#!/usr/bin/env bash
# Records the bundled clip over real RTMP in all three formats, and shows the files: `make demo`.
#
#   tests/demo.sh REELWRIGHT
set -euo pipefail

reelwright=$(realpath "$1")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
clip=tests/data/clip.flv
dir=${DEMO_DIR:-$root/target/demo}
rm -rf "$dir"
mkdir -p "$dir"/{media,data,formats}

bold= dim= plain=
if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi
say() { printf '%s\n' "$*"; }
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; }
fail() {
    say "demo: $*" >&2
    sed 's/^/  server: /' "$dir/server.log" >&2 || true
    exit 1
}

show "reelwright serve    (on free ports, files in ${dir#"$PWD/"})"
# Its standard output is a pipe of ours: no waiting but for the line that it is ready.
exec {ready}< <(exec "$reelwright" serve --rtmp 127.0.0.1:0 --ascii-cli 127.0.0.1:0 --json-cli 127.0.0.1:0 \
    --http-cli 127.0.0.1:0 --media-root "$dir/media" --data-dir "$dir/data" --formats "$dir/formats" \
    2>"$dir/server.log")
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
line=
while [[ $line != ready\ * ]]; do
    IFS= read -r -t 60 line <&"$ready" || fail "the server did not start"
done

# One key a line, however the file is laid out.
address() { tr ',{}' '\n' <"$dir/data/addresses.json" | sed -n "s/^ *\"$1\" *: *\"\([^\"]*\)\".*/\1/p"; }
rtmp=$(address rtmp) cli=$(address ascii-cli)
order() { "$reelwright" cli --addr "$cli" "$1"; }

# What the server says, as it says it, until it stops.
tail -n +1 -f --pid=$server "$dir/server.log" | sed -u "s/^[^ ]* *//; s/^/${dim}  server: /; s/\$/${plain}/" &
log=$!

ids=()
for type in flv ts mp4; do
    text="record localStreamName=demo pathToFile=demo type=$type"
    show "reelwright cli '$text'"
    id=$(order "$text" | sed -n 's/^ *configId: *\([0-9]*\).*/\1/p')
    [[ $id ]] || fail "record type=$type was refused"
    ids+=("$id")
done

show "reelwright publish $clip rtmp://$rtmp/live/demo    (in real time)"
"$reelwright" publish "$root/$clip" "rtmp://$rtmp/live/demo" 2>/dev/null || fail "publishing failed"

for id in "${ids[@]}"; do
    order "removeConfig id=$id" >/dev/null || fail "removeConfig id=$id was refused"
done
show "kill -TERM reelwright"
kill -TERM $server
wait $log || true

# The server's own account of each file: a `recorded` line.
field() { sed -n "s/.* $1=\(\"[^\"]*\"\|[^ ]*\).*/\1/p" <<<"$2" | tr -d '"'; }
say
row='%-9s %10s  %-10s %9s  %s\n'
printf "$bold$row$plain" file duration tracks bytes "written by"
for type in flv ts mp4; do
    file=$dir/media/demo.$type
    line=$(grep " recorded .*file=$file " "$dir/server.log") || fail "demo.$type was not recorded"
    bytes=$(stat -c %s "$file") || fail "$file is missing"
    [[ $bytes == $(field bytes "$line") ]] || fail "demo.$type has $bytes bytes: $line"
    printf "$row" "demo.$type" "$(field seconds "$line") s" "$(field tracks "$line")" "$bytes" \
        "$(field component "$line")"
done
say
say "The files are in ${dir#"$PWD/"}/media."
