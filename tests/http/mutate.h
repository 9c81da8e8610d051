/* tests/http/mutate.h - HTTP requests that are almost right.
 *
 * A mutant is a pure function of (seed, number): a seed request of tests/http/seeds, spliced,
 * flipped, cut, doubled; header lines and JSON values exchanged; its length often made to fit
 * again, so that what reads the body is reached. */
#ifndef HG_TESTS_HTTP_MUTATE_H
#define HG_TESTS_HTTP_MUTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MUTANT_CAP = 192 << 10, MUTATE_MAX_SEEDS = 64 };

struct bytes {
    char *data;
    size_t n;
};

struct seeds {
    struct bytes of[MUTATE_MAX_SEEDS];
    int n;
};

/* Every *.http of the folder: a head and a body, LF for CR LF, "{png}" a picture, "{png64}" the
 * same in base64, "{length}" that of the body. False: none could be read. */
bool seeds_read(const char *folder, struct seeds *s);
void seeds_free(struct seeds *s);

/* `out` has MUTANT_CAP bytes; the length is returned. */
size_t mutant_make(const struct seeds *s, uint64_t seed, uint64_t number, char *out);

struct random {
    uint64_t state;
};
struct random random_of(uint64_t seed, uint64_t number);
uint64_t random_next(struct random *r);
size_t random_below(struct random *r, size_t n); /* 0 for n == 0 */

#endif
