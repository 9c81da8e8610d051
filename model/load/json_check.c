/* model/load/json_check.c - one pass over the text, brackets and commas outside strings. */
#include "model/load/json_check.h"

enum hg_status hg_json_check(const char *name, const char *s, size_t n, size_t max_values,
                             size_t max_depth, struct hg_error *err)
{
    size_t values = 1, depth = 0;
    int in_string = 0;
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (s[i] == '\\')
                i++;
            else if (s[i] == '"')
                in_string = 0;
            continue;
        }
        in_string = s[i] == '"';
        values += s[i] == ',' || s[i] == '[' || s[i] == '{';
        depth += s[i] == '[' || s[i] == '{';
        depth -= depth && (s[i] == ']' || s[i] == '}');
        if (values > max_values)
            return hg_fail(err, HG_STATUS_TOO_LARGE, "%s: JSON with more than %zu values", name,
                           max_values);
        if (depth > max_depth)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: JSON nested deeper than %zu", name,
                           max_depth);
    }
    return HG_STATUS_OK;
}
