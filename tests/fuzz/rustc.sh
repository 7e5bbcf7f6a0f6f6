#!/bin/sh
# rustc for the build of the fuzz targets: our own crates report what they reach and compare to libFuzzer; nobody else's does, so
# that dependencies are those of every other build. These are the flags of cargo-fuzz, without a sanitizer: no crate of ours but
# `platform` has unsafe code, and the sanitizers need a nightly compiler and a build of everything.
rustc=$1
shift
case " $* " in
*" --crate-name towpath_"* | *" --crate-name libfuzzer "*)
    exec "$rustc" "$@" -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$rustc" "$@" ;;
esac
