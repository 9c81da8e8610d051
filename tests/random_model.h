/* tests/random_model.h - a model folder of random weights with a tokenizer, for tests. */
#ifndef HG_TESTS_RANDOM_MODEL_H
#define HG_TESTS_RANDOM_MODEL_H

/* The words after DIR of tools/random_model, VOCAB at least HG_TEST_VOCAB; the program lies two
 * folders above the test's own (argv0). Fails the test on any error. Remove it with writer_remove.
 */
#define HG_TEST_VOCAB "779" /* ids of the demo's tokenizer, which is lent to it */
enum { HG_TEST_MODEL_WORDS = 16 };
void hg_test_random_model(const char *argv0, const char *const words[], char out[256]);

#endif
