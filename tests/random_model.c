/* tests/random_model.c - see random_model.h. */
#include "tests/random_model.h"

#include <spawn.h>
#include <sys/wait.h>

#include "tests/parity/model_writer.h"
#include "tests/test.h"

extern char **environ;

static void copy_file(const char *name, const char *dir)
{
    char from[300], to[600];
    size_t n = 0;
    snprintf(from, sizeof from, "config/models/demo/llm/%s", name);
    unsigned char *data = hg_test_read(hg_test_file(from), &n);
    snprintf(to, sizeof to, "%s/llm/%s", dir, name);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    free(data);
}

void hg_test_random_model(const char *argv0, const char *const words[], char out[256])
{
    static const char *const lent[] = {"tokenizer.model", "tokenizer_config.json",
                                       "added_tokens.json", "special_tokens_map.json"};
    char program[4096], *argv[HG_TEST_MODEL_WORDS + 3] = {program, out};
    const char *slash = strrchr(argv0, '/');
    int n = 2, status = 0;
    pid_t pid;
    writer_temp_dir(out);
    snprintf(program, sizeof program, "%.*s/../../random-model", slash ? (int)(slash - argv0) : 1,
             slash ? argv0 : ".");
    for (; *words; words++) {
        assert_true(n < HG_TEST_MODEL_WORDS + 2);
        argv[n++] = (char *)(uintptr_t)*words; /* posix_spawn changes none */
    }
    assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("%s: wait status %d", program, status);
    for (size_t i = 0; i < sizeof lent / sizeof *lent; i++)
        copy_file(lent[i], out);
}
