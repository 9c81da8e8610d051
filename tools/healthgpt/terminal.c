/* tools/healthgpt/terminal.c - printable text for terminals, and the fate of stdout. */
#include "tools/healthgpt/terminal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/utf8.h"

static int write_errno; /* of the first failed flush */

/* Control characters but newline and tab, and the marks that reorder a line. */
static bool is_hostile(uint32_t c)
{
    return (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0) ||
           (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

void hg_terminal_write(FILE *to, const char *s, size_t n)
{
    if (n == 0)
        return;
    if (!isatty(fileno(to))) {
        fwrite(s, 1, n, to);
        return;
    }
    for (size_t i = 0; i < n;) {
        uint32_t c = 0;
        int len = hg_utf8_decode(s + i, n - i, &c);
        if (len == 0 || is_hostile(c))
            fputs("\xef\xbf\xbd", to);
        else
            fwrite(s + i, 1, (size_t)len, to);
        i += len ? (size_t)len : 1;
    }
}

void hg_terminal_line(FILE *to, const char *s)
{
    hg_terminal_write(to, s, strlen(s));
    putc('\n', to);
}

bool hg_terminal_can_redraw(FILE *to)
{
    const char *term = getenv("TERM");
    return isatty(fileno(to)) && term && strcmp(term, "dumb") != 0;
}

bool hg_terminal_flush(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    if (!write_errno)
        write_errno = errno ? errno : EIO;
    return false;
}

enum hg_status hg_terminal_finish(struct hg_error *err)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    if (hg_terminal_flush())
        return HG_STATUS_OK;
    bool reader_gone = write_errno == EPIPE || (poll(&out, 1, 0) == 1 && out.revents & POLLERR);
    hg_fail(err, HG_STATUS_IO, "cannot write to stdout: %s", strerror(write_errno));
    if (reader_gone)
        err->text[0] = '\0';
    return HG_STATUS_IO;
}
