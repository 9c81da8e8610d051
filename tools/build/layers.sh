#!/bin/sh
# A folder may include only itself and what stands to its left: common <- kernels <- model <- server.
# model/ sees one header of kernels/: backend.h (and the types it uses).
set -u
bad=0
forbid() { # folder, pattern of forbidden include paths
    found=$(grep -rnE "^#include \"($2)" "$1" --include='*.[ch]' --include='*.cu' --include='*.cuh')
    if [ -n "$found" ]; then
        echo "layers: $1 must not include:"
        echo "$found"
        bad=1
    fi
}
forbid common '(kernels|model|server|tests|tools)/'
forbid kernels '(model|server|tests|tools)/'
forbid model '(server|tests|tools)/'
forbid model 'kernels/(ref|cpu|cuda)/'
forbid server '(tests|tools|kernels/ref|kernels/cpu|kernels/cuda)/'
relative=$(grep -rnE '^#include "[^"/]+"' common kernels model server --include='*.[ch]')
if [ -n "$relative" ]; then
    echo "layers: write includes from the root:"
    echo "$relative"
    bad=1
fi
[ $bad = 0 ] && echo "layers: ok"
exit $bad
