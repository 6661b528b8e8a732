#!/usr/bin/env bash
# Fuzzes each target for its part of FUZZ_SECONDS (3600), on all cores: `make fuzz`. Exit code 1 if one breaks; the
# input that did it is kept in target/fuzz. FUZZ_TARGETS names some of them.
#
# Only the workspace's own crates are instrumented, with what stable compilers offer.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/fuzz
target=${CARGO_TARGET_DIR:-$root/target}
seconds=${FUZZ_SECONDS:-3600}
mapfile -t targets < <(tr ' ' '\n' <<<"${FUZZ_TARGETS:-$(ls "$here/corpus")}")
cores=$(nproc)

cd "$root"
RUSTC_WORKSPACE_WRAPPER=$here/instrument.sh ${CARGO:-cargo} build --release -p reelwright-fuzz --features libfuzzer \
    --bin fuzz
failed=
for name in "${targets[@]}"; do
    found=$target/fuzz/$name
    mkdir -p "$found"
    each=$((seconds / ${#targets[@]}))
    echo "fuzz: $name for $each s on $cores cores"
    if ! (cd "$target/fuzz" && FUZZ_TARGET=$name "$target/release/fuzz" "$found" "$here/corpus/$name" \
        -max_total_time="$each" -jobs="$cores" -workers="$cores" -max_len=65536 -timeout=10 -rss_limit_mb=1024 \
        -malloc_limit_mb=256 -artifact_prefix="$target/fuzz/$name-" -print_final_stats=1 >"$name.log" 2>&1); then
        failed+=" $name"
    fi
    for log in "$target"/fuzz/fuzz-*.log; do
        grep -hE 'stat::number_of_executed_units|ERROR|panicked|SUMMARY' "$log" || true
        rm -f "$log"
    done
done
[[ ! $failed ]] || { echo "fuzz: broken:$failed (see $target/fuzz)" >&2; exit 1; }
echo "fuzz: nothing broke in $seconds s: ${targets[*]}"
