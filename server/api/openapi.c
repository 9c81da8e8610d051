/* server/api/openapi.c - the tables as a document. */
#include "server/api/openapi.h"

#include <string.h>

#include "server/api/api_fields.h"
#include "server/http/routes.h"
#include "server/json_text.h"
#include "server/notice.h"
#include "server/version.h"

extern const char hg_openapi_schemas[]; /* an object; tools/build/embed.py */

/* ---- fields of a request --------------------------------------------------------------------- */

/* What a setter checks beyond type and bounds, for fields where that matters. */
static const struct {
    const char *name, *schema;
} special[] = {
    {"stop", "{\"anyOf\":[{\"$ref\":\"#/components/schemas/StopString\"},{\"type\":\"array\","
             "\"maxItems\":4,\"items\":{\"$ref\":\"#/components/schemas/StopString\"}}]}"},
    {"modalities", "{\"type\":\"array\",\"items\":{\"enum\":[\"text\",\"image\"]}}"},
    {"healthgpt.plugin", "{\"enum\":[\"comprehension\",\"generation\",\"none\"]}"},
    {"size", "{\"type\":\"string\",\"pattern\":\"^(auto|[0-9]{1,6}x[0-9]{1,6})$\"}"},
    {"output_format", "{\"const\":\"png\"}"},
    {"response_format.type", "{\"const\":\"text\"}"},
    {"echo", "{\"const\":false}"},
    {"messages", "{\"type\":\"array\",\"minItems\":1,\"maxItems\":64,\"items\":{\"$ref\":"
                 "\"#/components/schemas/Message\"}}"},
};

static const char *special_schema(const struct hg_field *f)
{
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
        if (strcmp(f->name, special[i].name) == 0)
            return special[i].schema;
    if (strcmp(f->name, "response_format") == 0 && f->kind == HG_FIELD_TEXT)
        return "{\"const\":\"b64_json\"}";
    return NULL;
}

static void put_number(struct hg_json_out *o, const struct hg_field *f, const char *type)
{
    bool whole = f->kind == HG_FIELD_INT;
    hg_out_string(o, "type", type);
    hg_out_real(o, "minimum", f->min, whole ? 0 : 6);
    hg_out_real(o, "maximum", f->max, whole ? 0 : 6);
}

static void put_type(struct hg_json_out *o, const struct hg_field *f)
{
    switch (f->kind) {
    case HG_FIELD_TEXT:
        hg_out_string(o, "type", "string");
        if (f->required)
            hg_out_int(o, "minLength", 1);
        return;
    case HG_FIELD_TEXTS:
        hg_out_raw(o, "anyOf",
                   "[{\"type\":\"string\",\"minLength\":1},{\"type\":\"array\",\"minItems\":1,"
                   "\"maxItems\":1,\"items\":{\"type\":\"string\",\"minLength\":1}}]");
        return;
    case HG_FIELD_REAL:
        put_number(o, f, "number");
        return;
    case HG_FIELD_INT:
        put_number(o, f, "integer");
        return;
    case HG_FIELD_BOOL:
        hg_out_string(o, "type", "boolean");
        return;
    case HG_FIELD_IMAGE:
        hg_out_raw(o, "anyOf",
                   "[{\"$ref\":\"#/components/schemas/Image\"},{\"type\":\"array\",\"maxItems\":4,"
                   "\"items\":{\"$ref\":\"#/components/schemas/Image\"}}]");
        return;
    case HG_FIELD_ZERO:
        hg_out_int(o, "const", 0);
        return;
    case HG_FIELD_REFUSED:
        hg_out_raw(
            o, "anyOf",
            "[{\"type\":\"array\",\"maxItems\":0},{\"type\":\"object\",\"maxProperties\":0}]");
        return;
    case HG_FIELD_OBJECT:
    case HG_FIELD_MESSAGES:
    case HG_FIELD_IGNORED:
        return;
    }
}

static bool has_prefix(const char *s, const char *prefix, size_t n)
{
    return strncmp(s, prefix, n) == 0;
}

static void put_properties(struct hg_json_out *o, enum hg_dialect d, const char *object);

/* Where null is good it is as if the field were not there. */
static void put_field(struct hg_json_out *o, const struct hg_field *f, enum hg_dialect d,
                      const char *name)
{
    const char *schema = special_schema(f);
    hg_out_open(o, name, '{');
    if (*f->help)
        hg_out_string(o, "description", f->help);
    if (f->fallback)
        hg_out_raw(o, "default", f->fallback);
    if (f->kind == HG_FIELD_IGNORED) {
        hg_out_close(o, '}');
        return;
    }
    if (!f->required)
        hg_out_open(o, "anyOf", '[');
    if (schema && f->required) {
        hg_out_open(o, "allOf", '[');
        hg_out_raw(o, NULL, schema);
        hg_out_close(o, ']');
    } else if (schema) {
        hg_out_raw(o, NULL, schema);
    } else {
        if (!f->required)
            hg_out_open(o, NULL, '{');
        if (f->kind == HG_FIELD_OBJECT)
            put_properties(o, d, f->name);
        else
            put_type(o, f);
        if (!f->required)
            hg_out_close(o, '}');
    }
    if (!f->required) {
        hg_out_raw(o, NULL, "{\"type\":\"null\"}");
        hg_out_close(o, ']');
    }
    hg_out_close(o, '}');
}

/* The fields of a body (object NULL), or those in one of its objects. */
static void put_properties(struct hg_json_out *o, enum hg_dialect d, const char *object)
{
    bool own = d == HG_DIALECT_VQA || d == HG_DIALECT_DRAW;
    size_t n = object ? strlen(object) : 0;
    hg_out_string(o, "type", "object");
    hg_out_open(o, "properties", '{');
    for (size_t i = 0; i < hg_n_fields; i++) {
        const struct hg_field *f = &hg_fields[i];
        bool inside = object && has_prefix(f->name, object, n) && f->name[n] == '.';
        if ((f->dialects & 1u << d) && (object ? inside : !strchr(f->name, '.')))
            put_field(o, f, d, object ? f->name + n + 1 : f->name);
    }
    hg_out_close(o, '}');
    if (own)
        hg_out_bool(o, "additionalProperties", false);
}

static void put_request(struct hg_json_out *o, enum hg_dialect d)
{
    hg_out_open(o, "schema", '{');
    put_properties(o, d, NULL);
    hg_out_open(o, "required", '[');
    for (size_t i = 0; i < hg_n_fields; i++)
        if ((hg_fields[i].dialects & 1u << d) && hg_fields[i].required)
            hg_out_string(o, NULL, hg_fields[i].name);
    hg_out_close(o, ']');
    hg_out_close(o, '}');
}

/* ---- routes ---------------------------------------------------------------------------------- */

static void put_content(struct hg_json_out *o, const char *type, const char *schema)
{
    hg_out_open(o, type, '{');
    hg_out_open(o, "schema", '{');
    if (*schema) {
        char ref[64];
        snprintf(ref, sizeof ref, "#/components/schemas/%s", schema);
        hg_out_string(o, "$ref", ref);
    } else if (strcmp(type, "text/html") == 0) {
        hg_out_string(o, "type", "string");
    } else {
        hg_out_string(o, "description",
                      strcmp(type, "text/event-stream") == 0
                          ? "One event; its data is JSON: docs/openai.md."
                          : "JSON, one object per line: docs/streaming.md.");
    }
    hg_out_close(o, '}');
    hg_out_close(o, '}');
}

static void put_body(struct hg_json_out *o, enum hg_dialect d)
{
    static const char *const types[] = {"application/json", "multipart/form-data"};
    bool forms = d != HG_DIALECT_CHAT && d != HG_DIALECT_COMPLETION;
    hg_out_open(o, "requestBody", '{');
    hg_out_bool(o, "required", true);
    hg_out_open(o, "content", '{');
    for (int i = 0; i < 1 + forms; i++) {
        hg_out_open(o, types[i], '{');
        if (i == 0) {
            put_request(o, d);
        } else {
            hg_out_raw(
                o, "schema",
                "{\"type\":\"object\",\"description\":\"The same fields, each a part; images "
                "as files, also as image[].\"}");
        }
        hg_out_close(o, '}');
    }
    hg_out_close(o, '}');
    hg_out_close(o, '}');
}

static void put_errors(struct hg_json_out *o, bool work)
{
    static const struct {
        const char *http, *why;
        bool work;
    } errors[] = {
        {"400", "What is wrong, and with which field (param).", false},
        {"401", "An API key is missing or not known.", false},
        {"403", "This key, Host or Origin may not.", false},
        {"404", "No such route or model.", false},
        {"405", "Another method.", false},
        {"409", "The request with this Idempotency-Key is still running (pictures).", true},
        {"413", "Body, text or image too large.", true},
        {"415", "Another type of body or image.", true},
        {"422", "This Idempotency-Key was used for another request (pictures).", true},
        {"429", "This key's quota; Retry-After.", true},
        {"500", "A fault of the server or a value that is not finite.", true},
        {"503", "No room, loading or shutting down; nothing was done, Retry-After.", false},
        {"504", "Not finished in time.", true},
    };
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (errors[i].work && !work)
            continue;
        hg_out_open(o, errors[i].http, '{');
        hg_out_string(o, "description", errors[i].why);
        hg_out_open(o, "content", '{');
        put_content(o, "application/json", "Error");
        hg_out_close(o, '}');
        hg_out_close(o, '}');
    }
}

static void put_route(struct hg_json_out *o, const struct hg_route *r)
{
    bool work = r->dialect != HG_DIALECT_COUNT;
    hg_out_open(o, r->path, '{');
    if (strstr(r->path, "{id}"))
        hg_out_raw(o, "parameters",
                   "[{\"name\":\"id\",\"in\":\"path\",\"required\":true,\"schema\":{\"type\":"
                   "\"string\"}}]");
    hg_out_open(o, work ? "post" : "get", '{');
    hg_out_string(o, "operationId", r->name);
    hg_out_string(o, "summary", r->summary);
    if (work)
        put_body(o, r->dialect);
    hg_out_open(o, "responses", '{');
    hg_out_open(o, "200", '{');
    hg_out_string(o, "description",
                  work ? "The answer; with stream: true as it grows." : "As said.");
    hg_out_open(o, "content", '{');
    put_content(o, *r->answer ? "application/json" : "text/html", r->answer);
    if (r->stream)
        put_content(o, r->stream, "");
    hg_out_close(o, '}');
    hg_out_close(o, '}');
    if (r->id == HG_ROUTE_HEALTH)
        hg_out_raw(o, "503",
                   "{\"description\":\"Not ok: the same, with why; or an error while loading.\","
                   "\"content\":{\"application/json\":{\"schema\":{}}}}");
    else
        put_errors(o, work);
    hg_out_close(o, '}');
    hg_out_close(o, '}');
    hg_out_close(o, '}');
}

enum hg_status hg_openapi_write(const struct hg_model_info *info, struct hg_buf *out)
{
    struct hg_json_out o;
    char title[96];
    snprintf(title, sizeof title, "healthgptd serving %s", info->name);
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "openapi", "3.1.0");
    hg_out_open(&o, "info", '{');
    hg_out_string(&o, "title", title);
    hg_out_string(&o, "version", HG_VERSION);
    hg_out_string(&o, "description", HG_NOTICE);
    hg_out_close(&o, '}');
    hg_out_raw(&o, "security", "[{},{\"key\":[]}]");
    hg_out_open(&o, "paths", '{');
    for (size_t i = 0; i < hg_n_routes; i++)
        put_route(&o, &hg_routes[i]);
    hg_out_close(&o, '}');
    hg_out_open(&o, "components", '{');
    hg_out_raw(&o, "securitySchemes", "{\"key\":{\"type\":\"http\",\"scheme\":\"bearer\"}}");
    hg_out_raw(&o, "schemas", hg_openapi_schemas);
    hg_out_close(&o, '}');
    hg_out_close(&o, '}');
    if (!o.failed && hg_buf_append_str(out, "\n") != HG_STATUS_OK)
        o.failed = true;
    return o.failed ? HG_STATUS_NO_MEMORY : HG_STATUS_OK;
}
