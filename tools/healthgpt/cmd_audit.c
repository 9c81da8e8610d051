/* tools/healthgpt/cmd_audit.c - healthgpt audit verify FILE... */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/ops/audit.h"
#include "tools/healthgpt/cli.h"

/* "17:<64 hex digits>" */
static bool read_anchor(const char *s, struct hg_audit_check *c)
{
    char *colon = NULL;
    c->anchor_seq = strtoull(s, &colon, 10);
    if (s[0] < '1' || s[0] > '9' || *colon != ':')
        return false;
    const char *hex = colon + 1;
    if (strlen(hex) != 2 * sizeof c->anchor ||
        strspn(hex, "0123456789abcdef") != 2 * sizeof c->anchor)
        return false;
    for (size_t i = 0; i < sizeof c->anchor; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        c->anchor[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return true;
}

static void tell(const struct hg_audit_check *c)
{
    char hex[2 * HG_SHA256_BYTES + 1];
    hg_hex(c->last, sizeof c->last, hex);
    printf("%" PRIu64 " lines, unbroken: seq %" PRIu64 " to %" PRIu64 "%s\n", c->n_lines,
           c->first_seq, c->last_seq, c->has_key ? ", every mac is right" : "");
    if (c->n_chains > 1)
        printf("%" PRIu64 " chains, one after the other: a file was not there at a start\n",
               c->n_chains);
    if (c->n_torn > 0)
        printf("%" PRIu64 " lines were cut off by a crash or a full disk, and said to be\n",
               c->n_torn);
    printf("last: %" PRIu64 ":%s\n", c->last_seq, hex);
}

int hg_cli_audit(const struct hg_cli *cli)
{
    struct hg_audit_check c = {0};
    struct hg_error err = {0};
    enum hg_status status = HG_STATUS_OK;
    if (cli->n_args < 2 || strcmp(cli->args[0], "verify") != 0)
        return hg_cli_usage_error("audit", "expected verify FILE...");
    if (cli->anchor && !read_anchor(cli->anchor, &c))
        return hg_cli_usage_error("audit", "--anchor: expected SEQ:HASH, 64 hex digits");
    if (cli->key_file)
        status = hg_audit_check_use_key(&c, cli->key_file, &err);
    for (int i = 1; status == HG_STATUS_OK && i < cli->n_args; i++)
        status = hg_audit_check_file(&c, cli->args[i], &err);
    if (status == HG_STATUS_OK)
        status = hg_audit_check_end(&c, &err);
    if (status != HG_STATUS_OK)
        return hg_cli_fail("audit", &err);
    tell(&c);
    return 0;
}
