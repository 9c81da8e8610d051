/* tools/healthgpt/doctor_libraries.c - what is linked, and what it was compiled against. */
#include <dlfcn.h>
#include <jansson.h>
#include <libgen.h>
#include <microhttpd.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistring/version.h>

#include <jpeglib.h>

#include "tools/healthgpt/doctor.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

/* libjpeg does not tell its version: the name of the file does ("libjpeg.so.62.3.0"). */
static void jpeg_file(char out[64])
{
    char full[HG_DOCTOR_PATH];
    Dl_info info;
    union {
        struct jpeg_error_mgr *(*function)(struct jpeg_error_mgr *);
        void *object;
    } f = {jpeg_std_error};
    snprintf(out, 64, "not known");
    if (dladdr(f.object, &info) && info.dli_fname && realpath(info.dli_fname, full))
        snprintf(out, 64, "%.60s", basename(full));
}

static void put(struct hg_doctor *d, const char *name, const char *linked, const char *compiled)
{
    hg_out_open(d->o, name, '{');
    hg_out_string(d->o, "linked", linked);
    hg_out_string(d->o, "compiled", compiled);
    hg_out_close(d->o, '}');
}

/* MHD_VERSION is 0x00097501 for 0.9.75, one digit of the last pair left over. */
static void mhd_compiled(char out[32])
{
    unsigned v = MHD_VERSION;
    snprintf(out, 32, "%x.%x.%x", v >> 24, v >> 16 & 0xff, v >> 8 & 0xff);
}

static void http_library(struct hg_doctor *d)
{
    unsigned major = 0, minor = 0, patch = 0;
    char compiled[32];
    const char *linked = MHD_get_version();
    mhd_compiled(compiled);
    put(d, "libmicrohttpd", linked, compiled);
    sscanf(linked, "%u.%u.%u", &major, &minor, &patch);
    if (major * 1000000 + minor * 1000 + patch < 1000005)
        HG_DOCTOR_WARN_NOTE(
            d, "libmicrohttpd",
            "libmicrohttpd %.20s reads requests more loosely than a proxy in front of it may "
            "(fixed in 1.0.5)\nhealthgptd checks the framing itself before the library sees it; "
            "take 1.0.5 or newer where the system has it",
            linked);
    else
        HG_DOCTOR_OK_NOTE(d, "libmicrohttpd", "libmicrohttpd %.20s (compiled against %s)", linked,
                          compiled);
}

void hg_doctor_libraries(struct hg_doctor *d)
{
    char jpeg[64], unistring[32];
    d->area = "libraries";
    hg_out_open(d->o, "libraries", '{');
    http_library(d);
    jpeg_file(jpeg);
    snprintf(unistring, sizeof unistring, "%d.%d", _libunistring_version >> 16 & 0xff,
             _libunistring_version >> 8 & 0xff);
    put(d, "jansson", jansson_version_str(), JANSSON_VERSION);
    put(d, "libpng", png_get_libpng_ver(NULL), PNG_LIBPNG_VER_STRING);
#ifdef LIBJPEG_TURBO_VERSION
    put(d, "libjpeg", jpeg, "libjpeg-turbo " TEXT(LIBJPEG_TURBO_VERSION));
#else
    put(d, "libjpeg", jpeg, "libjpeg " TEXT(JPEG_LIB_VERSION));
#endif
    hg_out_string(d->o, "libunistring", unistring);
    HG_DOCTOR_OK_NOTE(d, "libraries", "jansson %.20s, libpng %.20s, libjpeg %.60s, libunistring %s",
                      jansson_version_str(), png_get_libpng_ver(NULL), jpeg, unistring);
    hg_out_close(d->o, '}');
}
