/* tools/healthgpt/inspect_text.c - what it is, its files, the memory it needs, what is missing. */
#include "tools/healthgpt/inspect_text.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "tools/healthgpt/terminal.h"

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static long long int_of(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

/* 1.2 kB, 34.5 MB, 6.7 GB */
static const char *size_text(long long bytes, char out[24])
{
    static const char *const units[] = {"kB", "MB", "GB"};
    double v = (double)bytes / 1e3;
    size_t u = 0;
    for (; v >= 999.95 && u < 2; u++)
        v /= 1e3;
    snprintf(out, 24, "%.1f %s", v, units[u]);
    return out;
}

static const char *count_text(long long n, char out[24])
{
    if (n >= 1000000000)
        snprintf(out, 24, "%.2fG", (double)n / 1e9);
    else if (n >= 1000000)
        snprintf(out, 24, "%.1fM", (double)n / 1e6);
    else if (n >= 1000)
        snprintf(out, 24, "%.1fk", (double)n / 1e3);
    else
        snprintf(out, 24, "%lld", n);
    return out;
}

/* "bf16 2.1M, f32 832" */
static void types_text(const json_t *types, struct hg_buf *out)
{
    static const char *const names[] = {"F32", "F16", "BF16", "F64", "I64",
                                        "I32", "I16", "I8",   "U8",  "BOOL"};
    char n[24];
    const char *comma = "";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!json_object_get(types, names[i]))
            continue;
        hg_buf_printf(out, "%s%s %s", comma, names[i], count_text(int_of(types, names[i]), n));
        comma = ", ";
    }
}

static void put_task(const json_t *tasks, const char *name, struct hg_buf *out)
{
    const json_t *t = json_object_get(tasks, name);
    if (!t)
        return;
    const char *fusion = text_of(t, "fusion"), *hlora = text_of(t, "hlora");
    hg_buf_printf(out, "  %-14s %s%s%s, alpha %g, vision layer %lld\n", name,
                  *hlora ? hlora : "no plug-in", *fusion ? " + " : "", fusion,
                  json_number_value(json_object_get(t, "alpha")), int_of(t, "vision_layer"));
    if (*text_of(t, "can"))
        hg_buf_printf(out, "  %-14s %s\n", "", text_of(t, "can"));
}

/* What is not at its own place below the folder; where all of it comes from. */
static void put_pieces(const json_t *doc, struct hg_buf *out)
{
    const json_t *pieces = json_object_get(doc, "pieces");
    for (size_t i = 0; i < json_array_size(pieces); i++) {
        const json_t *p = json_array_get(pieces, i);
        const char *path = text_of(p, "path"), *page = text_of(p, "page");
        if (!*page)
            continue;
        hg_buf_printf(out, "%s  %-22s %s\n", i ? "" : "\npieces\n", text_of(p, "role"),
                      *path ? path : "not found");
        hg_buf_printf(out, "  %-22s from %s\n", "", page);
    }
}

static void put_lines(const json_t *list, const char *title, struct hg_buf *out)
{
    if (json_array_size(list) > 0)
        hg_buf_printf(out, "\n%s\n", title);
    for (size_t i = 0; i < json_array_size(list); i++)
        hg_buf_printf(out, "  %s\n", json_string_value(json_array_get(list, i)));
}

static void put_unpublished(const json_t *doc, struct hg_buf *out)
{
    const char *name;
    json_t *why;
    json_object_foreach(json_object_get(doc, "unpublished"), name, why)
        hg_buf_printf(out, "  %-14s not there: %s\n", name, json_string_value(why));
}

static void put_head(const json_t *doc, struct hg_buf *out)
{
    const json_t *llm = json_object_get(doc, "llm"), *tasks = json_object_get(doc, "tasks");
    const char *name = text_of(doc, "name");
    hg_buf_printf(out, "%s", *name ? name : text_of(doc, "path"));
    if (llm)
        hg_buf_printf(out,
                      ": %s, %lld layers of %lld, %lld heads (%lld kv) of %lld, ffn %lld, "
                      "vocabulary %lld, context %lld",
                      text_of(llm, "arch"), int_of(llm, "n_layers"), int_of(llm, "dim"),
                      int_of(llm, "n_heads"), int_of(llm, "n_kv_heads"), int_of(llm, "head_dim"),
                      int_of(llm, "ffn_dim"), int_of(llm, "vocab"), int_of(llm, "max_positions"));
    hg_buf_printf(out, "\n");
    put_task(tasks, "comprehension", out);
    put_task(tasks, "generation", out);
    put_unpublished(doc, out);
    if (*text_of(doc, "license"))
        hg_buf_printf(out, "  %-14s %s\n", "license", text_of(doc, "license"));
    if (*text_of(doc, "notice"))
        hg_buf_printf(out, "  %-14s %s\n", "notice", text_of(doc, "notice"));
}

static void put_file(const json_t *f, struct hg_buf *out)
{
    char size[24];
    const char *error = text_of(f, "error");
    hg_buf_printf(out, "  %-32s %10s  ", text_of(f, "file"), size_text(int_of(f, "bytes"), size));
    if (*error) {
        hg_buf_printf(out, "UNREADABLE: %s\n", error);
        return;
    }
    hg_buf_printf(out, "%-12s %5lld tensors  ", text_of(f, "container"), int_of(f, "n_tensors"));
    types_text(json_object_get(f, "dtypes"), out);
    hg_buf_printf(out, "\n");
    const json_t *tensors = json_object_get(f, "tensors");
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *t = json_array_get(tensors, i);
        char *shape = json_dumps(json_object_get(t, "shape"), JSON_COMPACT);
        hg_buf_printf(out, "    %-64s %-5s %s%s%s\n", text_of(t, "name"), text_of(t, "dtype"),
                      shape ? shape : "", *text_of(t, "crc32c") ? "  crc32c " : "",
                      text_of(t, "crc32c"));
        free(shape);
    }
}

static void put_files(const json_t *doc, struct hg_buf *out)
{
    const json_t *files = json_object_get(doc, "files");
    size_t n = json_array_size(files);
    char size[24], count[24];
    if (n == 0)
        return;
    hg_buf_printf(out, "\nfiles\n");
    for (size_t i = 0; i < n; i++)
        put_file(json_array_get(files, i), out);
    if (n > 1)
        hg_buf_printf(out, "  %-32s %10s  %-12s %5lld tensors  %s parameters\n", "together",
                      size_text(int_of(doc, "bytes"), size), "", int_of(doc, "n_tensors"),
                      count_text(int_of(doc, "n_parameters"), count));
}

/* "24, 40 (L4, A10, ...)" */
static void put_cards(const json_t *cards, struct hg_buf *out)
{
    const json_t *sizes = json_object_get(cards, "fits_cards_gb");
    for (size_t i = 0; i < json_array_size(sizes); i++)
        hg_buf_printf(out, "%s%lld", i ? ", " : "",
                      (long long)json_integer_value(json_array_get(sizes, i)));
    if (cards && json_array_size(sizes) == 0)
        hg_buf_printf(out, "none up to 141");
}

static void put_memory(const json_t *memory, struct hg_buf *out)
{
    static const char *const types[] = {"f32", "f16", "bf16", "int8", "fp8", "int4"};
    char weights[24], kv[24], all[24], part[4][24], context[24];
    if (!memory)
        return;
    long long kv_f16 = int_of(memory, "kv_bytes_f16");
    if (json_is_true(json_object_get(memory, "estimated")))
        hg_buf_printf(out, "\nfiles are missing: by the constants of the card");
    hg_buf_printf(out, "\nmemory needed     weights%s\n",
                  kv_f16 ? " +  KV cache =     about   fits cards of ... GB (one context)" : "");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        long long w = int_of(memory, types[i]), c = kv_f16 * (i == 0 ? 2 : 1);
        hg_buf_printf(out, "  --dtype %-5s %10s", types[i], size_text(w, weights));
        if (kv_f16)
            hg_buf_printf(out, " %10s  %10s   ", size_text(c, kv), size_text(w + c, all));
        put_cards(json_object_get(json_object_get(memory, "cards"), types[i]), out);
        hg_buf_printf(out, "\n");
    }
    if (kv_f16)
        hg_buf_printf(out,
                      "  in all of them but f32: plug-ins %s, fusion tables %s, vision tower %s, "
                      "VQGAN %s\n",
                      size_text(int_of(memory, "plugins"), part[0]),
                      size_text(int_of(memory, "fusion"), part[1]),
                      size_text(int_of(memory, "vision"), part[2]),
                      size_text(int_of(memory, "vqgan"), part[3]));
    if (kv_f16)
        hg_buf_printf(
            out,
            "  KV cache per token: %lld bytes (f16), %lld (--kv-dtype int8), %s a full "
            "context; above: %lld tokens. Work space comes on top; healthgptd prints it.\n",
            int_of(memory, "kv_bytes_per_token_f16"), int_of(memory, "kv_bytes_per_token_int8"),
            size_text(int_of(memory, "kv_bytes_context_f16"), context),
            int_of(memory, "kv_tokens"));
}

static void put_lock(const json_t *lock, struct hg_buf *out)
{
    const char *state = text_of(lock, "state");
    if (!lock || strcmp(state, "none") == 0)
        return;
    hg_buf_printf(
        out, "\nmodel.lock %s (%s compared%s): %s\n",
        strcmp(state, "holds") == 0 ? "holds" : "DOES NOT HOLD", text_of(lock, "compared"),
        strcmp(text_of(lock, "compared"), "contents") == 0 ? "" : "; --checksums compares contents",
        text_of(lock, "file"));
    if (*text_of(lock, "error"))
        hg_buf_printf(out, "  %s\n", text_of(lock, "error"));
}

void hg_inspect_print(const json_t *doc)
{
    struct hg_buf out = {0};
    const json_t *missing = json_object_get(doc, "missing");
    put_head(doc, &out);
    put_pieces(doc, &out);
    put_files(doc, &out);
    put_memory(json_object_get(doc, "memory"), &out);
    put_lines(json_object_get(doc, "warnings"), "not as the card expects", &out);
    put_lock(json_object_get(doc, "lock"), &out);
    put_lines(missing, "missing or wrong", &out);
    hg_terminal_write(stdout, out.data ? out.data : "", out.len);
    hg_buf_deinit(&out);
}
