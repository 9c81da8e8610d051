#include "tools/healthgpt/bench_plot.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { LEFT = 230, WIDTH = 500, RIGHT = 190, ROW = 24, TOP = 58 };

static void write_text(FILE *f, const char *s)
{
    for (; *s; s++) {
        const char *entity = *s == '<'   ? "&lt;"
                             : *s == '>' ? "&gt;"
                             : *s == '&' ? "&amp;"
                             : *s == '"' ? "&quot;"
                                         : NULL;
        if (entity)
            fputs(entity, f);
        else
            fputc((unsigned char)*s < ' ' ? ' ' : *s, f);
    }
}

static void write_label(FILE *f, int x, int y, const char *anchor, const char *text)
{
    fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"%s\">", x, y, anchor);
    write_text(f, text);
    fprintf(f, "</text>\n");
}

static void write_bar(FILE *f, const struct hg_bench_bar *b, int y)
{
    double share = b->share < 0 ? 0 : b->share > 1.2 ? 1.2 : b->share;
    int width = (int)(share * WIDTH + 0.5);
    char value[96];
    write_label(f, LEFT - 8, y + 16, "end", b->label);
    if (width > 0)
        fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n", LEFT,
                y + 3, width, ROW - 6, b->share > 1.02 ? "#c0392b" : "#2b7a78");
    if (b->share > 0)
        snprintf(value, sizeof value, "%.0f %%  %s", 100 * b->share, b->value);
    else
        snprintf(value, sizeof value, "%s", b->value);
    write_label(f, LEFT + width + 6, y + 16, "start", value);
}

static void write_all(FILE *f, const char *title, const struct hg_bench_bar *bars, size_t n)
{
    int height = TOP + (int)n * ROW + 16;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" "
            "fill=\"white\"/>\n",
            LEFT + WIDTH + RIGHT, height);
    write_label(f, 12, 22, "start", title);
    for (int percent = 0; percent <= 100; percent += 25) {
        char text[16];
        int x = LEFT + WIDTH * percent / 100;
        snprintf(text, sizeof text, "%d %%", percent);
        write_label(f, x, TOP - 8, "middle", text);
        fprintf(f, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"%s\"/>\n", x, TOP, x,
                height - 12, percent == 100 ? "#555" : "#ddd");
    }
    for (size_t i = 0; i < n; i++)
        write_bar(f, &bars[i], TOP + (int)i * ROW);
    fprintf(f, "</svg>\n");
}

enum hg_status hg_bench_plot(const char *path, const char *title, const struct hg_bench_bar *bars,
                             size_t n, struct hg_error *err)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return hg_fail(err, HG_STATUS_IO, "%.200s: %s", path, strerror(errno));
    write_all(f, title, bars, n);
    bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed)
        return hg_fail(err, HG_STATUS_IO, "%.200s: %s", path, strerror(errno));
    return HG_STATUS_OK;
}
