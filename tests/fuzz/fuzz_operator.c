/* tests/fuzz/fuzz_operator.c - what an operator gives the programs: a configuration file, and lines
 * of an audit log. The first byte chooses. A configuration keeps the promises of config.h: values
 * within their bounds, a line for every error, none for what was taken. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/config/config_table.h"
#include "server/ops/audit_chain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Of model/healthgpt.c, which is not in the archive of the targets. */
const char *hg_task_name(enum hg_task t)
{
    return t == HG_TASK_COMPREHENSION ? "comprehension" : "generation";
}

static void config(const char *s, size_t n)
{
    static struct hg_config_build b;
    size_t lines = 0;
    hg_config_begin(&b);
    hg_config_add_json(&b, "f", s, n);
    for (size_t i = 0; i < b.errors.len; i++)
        lines += b.errors.data[i] == '\n';
    assert(lines ==
           (size_t)(b.n_errors < HG_CONFIG_MAX_ERRORS ? b.n_errors : HG_CONFIG_MAX_ERRORS));
    assert(b.config.max_queue >= 1 && b.config.max_queue <= 65536);
    assert(b.config.gpu_memory_utilization >= 0.01 && b.config.gpu_memory_utilization <= 1);
    assert(memchr(b.config.model, '\0', sizeof b.config.model));
    hg_config_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hg_audit_line line;
    uint8_t key[HG_SHA256_BYTES] = {1};
    if (n == 0)
        return 0;
    char *s = malloc(n > 1 ? n - 1 : 1); /* its own block, so that ASan sees an overrun */
    memcpy(s, data + 1, n - 1);
    if (data[0] & 1) {
        config(s, n - 1);
    } else {
        (void)hg_audit_parse(s, n - 1, &line);
        (void)hg_audit_mac_is_right(s, n - 1, key);
    }
    free(s);
    return 0;
}
