#include "tools/load/plot.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum {
    LEFT = 56,
    TOP = 64,
    WIDTH = 300,
    HEIGHT = 200,
    GAP = 28,
    BOTTOM = 48,
    PANELS = 3,
    POINTS = 100
};

static const char *const colours[HG_LOAD_KINDS] = {"#2b7a78", "#c08a2b", "#8a2be2", "#c0392b"};
static const char *const panel_names[PANELS] = {"first token", "between tokens", "end to end"};

static struct hg_samples *samples_of(struct hg_load_result *r, int panel, int kind)
{
    struct hg_load_kind_result *k = &r->kind[kind];
    return panel == 0 ? &k->first : panel == 1 ? &k->gap : &k->total;
}

static void put_escaped(FILE *f, const char *s)
{
    for (; *s; s++)
        if (*s == '<' || *s == '>' || *s == '&')
            fprintf(f, "&#%d;", *s);
        else
            fputc((unsigned char)*s < ' ' ? ' ' : *s, f);
}

static void put_label(FILE *f, double x, double y, const char *anchor, const char *text)
{
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    put_escaped(f, text);
    fputs("</text>\n", f);
}

/* Decades that hold all values of a panel: 10^*lo .. 10^*hi ms. */
static void range(struct hg_load_result *r, int panel, int *lo, int *hi)
{
    double min = INFINITY, max = 0;
    for (int k = 0; k < HG_LOAD_KINDS; k++) {
        struct hg_samples *s = samples_of(r, panel, k);
        if (s->n == 0)
            continue;
        min = fmin(min, hg_samples_percentile(s, 0));
        max = fmax(max, hg_samples_percentile(s, 100));
    }
    min = fmax(isfinite(min) ? min : 1, 1e-3);
    max = fmax(max, min);
    *lo = (int)floor(log10(min));
    *hi = (int)ceil(log10(max));
    if (*hi <= *lo)
        *hi = *lo + 1;
}

static double place_x(double ms, int lo, int hi, double left)
{
    double share = (log10(fmax(ms, 1e-3)) - lo) / (hi - lo);
    return left + WIDTH * fmin(fmax(share, 0), 1);
}

static void put_axes(FILE *f, int panel, double left, int lo, int hi)
{
    char text[32];
    put_label(f, left + WIDTH / 2.0, TOP - 10, "middle", panel_names[panel]);
    for (int p = 0; p <= 100; p += 25) {
        double y = TOP + HEIGHT - HEIGHT * p / 100.0;
        fprintf(f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n",
                left, y, left + WIDTH, y);
        snprintf(text, sizeof text, "%d %%", p);
        if (panel == 0)
            put_label(f, left - 6, y + 4, "end", text);
    }
    for (int d = lo; d <= hi; d++) {
        double x = place_x(pow(10, d), lo, hi, left);
        fprintf(f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x, TOP,
                x, TOP + HEIGHT);
        snprintf(text, sizeof text, "%g", pow(10, d));
        put_label(f, x, TOP + HEIGHT + 16, "middle", text);
    }
    put_label(f, left + WIDTH / 2.0, TOP + HEIGHT + 34, "middle", "ms");
}

static void put_curve(FILE *f, struct hg_samples *s, int lo, int hi, double left,
                      const char *colour)
{
    if (s->n == 0)
        return;
    fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
    for (int i = 0; i <= POINTS; i++) {
        double percent = 100.0 * i / POINTS;
        fprintf(f, "%.1f,%.1f ", place_x(hg_samples_percentile(s, percent), lo, hi, left),
                TOP + HEIGHT - HEIGHT * percent / 100);
    }
    fputs("\"/>\n", f);
}

static void put_all(FILE *f, struct hg_load_result *r, const char *title)
{
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" "
            "fill=\"white\"/>\n",
            LEFT + PANELS * (WIDTH + GAP), TOP + HEIGHT + BOTTOM);
    put_label(f, 12, 20, "start", title);
    double x = 12;
    for (int k = 0; k < HG_LOAD_KINDS; k++) {
        if (r->kind[k].total.n == 0)
            continue;
        fprintf(f, "<rect x=\"%.1f\" y=\"30\" width=\"10\" height=\"10\" fill=\"%s\"/>\n", x,
                colours[k]);
        put_label(f, x + 14, 40, "start", hg_load_kind_names[k]);
        x += 60;
    }
    for (int p = 0; p < PANELS; p++) {
        int lo, hi;
        double left = LEFT + p * (WIDTH + GAP);
        range(r, p, &lo, &hi);
        put_axes(f, p, left, lo, hi);
        for (int k = 0; k < HG_LOAD_KINDS; k++)
            put_curve(f, samples_of(r, p, k), lo, hi, left, colours[k]);
    }
    fputs("</svg>\n", f);
}

enum hg_status hg_load_plot(struct hg_load_result *r, const char *title, const char *path,
                            struct hg_error *err)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return hg_fail(err, HG_STATUS_IO, "%.200s: %s", path, strerror(errno));
    put_all(f, r, title);
    bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed)
        return hg_fail(err, HG_STATUS_IO, "%.200s: %s", path, strerror(errno));
    return HG_STATUS_OK;
}
