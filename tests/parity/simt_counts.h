/* tests/parity/simt_counts.h - the counters of the emulation behind an open backend "simt". */
#ifndef HG_TESTS_PARITY_SIMT_COUNTS_H
#define HG_TESTS_PARITY_SIMT_COUNTS_H

#include <stdbool.h>

#include "tests/simt/cuda_runtime.h"

/* False: the emulation's library is not loaded in this process. */
bool simt_counts_of_library(struct simt_counts *out);

#endif
