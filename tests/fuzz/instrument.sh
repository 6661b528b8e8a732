#!/usr/bin/env bash
# rustc for the workspace's crates, with libFuzzer's counters in them; see run.sh.
if [[ $* == *"--crate-name build_script"* || $* == *"--crate-type proc-macro"* || $* == *--print* ]]; then
    exec "$@"
fi
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=yes
