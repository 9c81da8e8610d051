#!/bin/sh
# Build every tests/fuzz/fuzz_*.c with clang's libFuzzer and ASan into build/fuzz and run each for
# FUZZ_SECONDS (default 60) on a growing corpus in build/fuzz/corpus.
set -eu
command -v clang >/dev/null 2>&1 || { echo "fuzz: clang is needed (apt-get install clang libclang-rt-14-dev)"; exit 69; }
packages="libmicrohttpd jansson libpng libjpeg libpcre2-8"
mkdir -p build/fuzz
for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    mkdir -p build/fuzz/corpus/"$name"
    # shellcheck disable=SC2046
    clang -std=c11 -D_GNU_SOURCE -I. -g -O1 -fsanitize=fuzzer,address $(pkg-config --cflags $packages) \
        "$source" $(find common model/load model/text -name '*.c') \
        $(pkg-config --libs $packages) -lunistring -lm -lpthread -o build/fuzz/"$name" 2>/dev/null ||
        { echo "fuzz: $name does not build"; exit 1; }
    echo "fuzz: $name for ${FUZZ_SECONDS:-60} s"
    build/fuzz/"$name" -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=2048 -timeout=10 \
        build/fuzz/corpus/"$name" >build/fuzz/"$name".log 2>&1 ||
        { tail -n 30 build/fuzz/"$name".log; exit 1; }
    tail -n 1 build/fuzz/"$name".log
done
