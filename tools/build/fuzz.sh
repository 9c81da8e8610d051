#!/bin/sh
# Build tests/fuzz/fuzz_*.c (or those named on the command line) with clang's libFuzzer and ASan into build/fuzz and
# run each for FUZZ_SECONDS (default 60) on a growing corpus in build/fuzz/corpus.
set -eu
command -v clang >/dev/null 2>&1 || { echo "fuzz: clang is needed (apt-get install clang libclang-rt-14-dev)"; exit 69; }
packages="libmicrohttpd jansson libpng libjpeg"
flags="-std=c11 -D_GNU_SOURCE -I. -g -O1 $(pkg-config --cflags $packages)"
mkdir -p build/fuzz
# An archive, of which a target takes what it uses.
find common model/load model/text server -name '*.c' ! -path server/main.c | sort >build/fuzz/sources
# shellcheck disable=SC2016
xargs -P "$(nproc)" -I{} sh -c 'o=build/fuzz/obj/$(dirname "$1"); mkdir -p "$o"
    o=$o/$(basename "$1" .c).o; clang -fsanitize=fuzzer-no-link,address '"$flags"' -c "$1" -o "$o" 2>"$o.log" ||
    { cat "$o.log"; exit 255; }' sh {} <build/fuzz/sources
rm -f build/fuzz/lib.a
sed 's,^,build/fuzz/obj/,; s,c$,o,' build/fuzz/sources | xargs ar rcs build/fuzz/lib.a
[ $# -gt 0 ] || set -- tests/fuzz/fuzz_*.c
for source; do
    name=$(basename "$source" .c)
    mkdir -p build/fuzz/corpus/"$name"
    # shellcheck disable=SC2086
    clang -fsanitize=fuzzer,address $flags tests/fuzz/"$name".c build/fuzz/lib.a $(pkg-config --libs $packages) \
        -lunistring -lm -lpthread -ldl -o build/fuzz/"$name" 2>build/fuzz/"$name".log ||
        { tail -n 20 build/fuzz/"$name".log; echo "fuzz: $name does not build"; exit 1; }
    echo "fuzz: $name for ${FUZZ_SECONDS:-60} s"
    build/fuzz/"$name" -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=2048 -timeout=10 \
        build/fuzz/corpus/"$name" >build/fuzz/"$name".log 2>&1 ||
        { tail -n 30 build/fuzz/"$name".log; exit 1; }
    tail -n 1 build/fuzz/"$name".log
done
