/* tools/healthgpt/doctor_machine.c - processor, memory, limits, clock, and whether nginx is there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "kernels/cpu/features.h"
#include "tools/healthgpt/doctor.h"

static double gb(uint64_t bytes)
{
    return (double)bytes / 1e9;
}

/* ---- processor ------------------------------------------------------------------------------- */

static void processor(struct hg_doctor *d)
{
    struct cpu_features f = cpu_features_here();
    struct cpu_simd simd;
    const char *name = d->machine.cpu[0] ? d->machine.cpu : "processor of unknown name";
    const char *path = cpu_select_from("auto", &f, &simd, NULL) == HG_STATUS_OK ? simd.name : "?";
    struct hg_json_out *o = d->o;
    hg_out_open(o, "cpu", '{');
    hg_out_string(o, "model", d->machine.cpu[0] ? d->machine.cpu : NULL);
    hg_out_bool(o, "avx2", f.avx2);
    hg_out_bool(o, "avx512", f.avx512);
    hg_out_bool(o, "avx512_vnni", f.vnni);
    hg_out_bool(o, "avx512_bf16", f.bf16);
    hg_out_string(o, "path", path);
    hg_out_close(o, '}');
    if (f.avx2)
        HG_DOCTOR_OK_NOTE(d, "cpu", "%.95s: the cpu backend takes %s", name, path);
    else
        HG_DOCTOR_WARN_NOTE(d, "cpu",
                            "%.95s: has no AVX2 with FMA and F16C, the cpu backend takes %s\n"
                            "expect a tenth of the speed; a virtual machine may hide what its host "
                            "has (CPU type \"host\")",
                            name, path);
}

static void cores(struct hg_doctor *d)
{
    const struct hg_machine *m = &d->machine;
    struct hg_json_out *o = d->o;
    char quota[32] = "no quota";
    hg_out_open(o, "cores", '{');
    hg_out_int(o, "online", m->online);
    hg_out_int(o, "affinity", m->affinity);
    if (m->quota > 0)
        hg_out_real(o, "quota", m->quota, 2);
    else
        hg_out_string(o, "quota", NULL);
    hg_out_close(o, '}');
    if (m->quota > 0)
        snprintf(quota, sizeof quota, "a quota of %.2f", m->quota);
    if (hg_machine_cores(m) < m->affinity)
        HG_DOCTOR_WARN_NOTE(d, "cores",
                            "%d cores online, %d for this process, %s: threads will wait for each "
                            "other\ngive healthgptd --threads %d, or raise the quota (cpu.max)",
                            m->online, m->affinity, quota, hg_machine_cores(m));
    else
        HG_DOCTOR_OK_NOTE(d, "cores", "%d cores online, %d for this process, %s", m->online,
                          m->affinity, quota);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void put_bytes(struct hg_json_out *o, const char *key, uint64_t v)
{
    if (v)
        hg_out_uint(o, key, v);
    else
        hg_out_string(o, key, NULL);
}

/* How much the model needs is said with the model. */
static void memory(struct hg_doctor *d)
{
    const struct hg_machine *m = &d->machine;
    char limit[64] = "no cgroup limit";
    hg_out_open(d->o, "memory", '{');
    put_bytes(d->o, "total_bytes", m->ram);
    put_bytes(d->o, "available_bytes", m->ram_free);
    put_bytes(d->o, "cgroup_limit_bytes", m->limit);
    put_bytes(d->o, "cgroup_used_bytes", m->limit ? m->limit_used : 0);
    hg_out_string(d->o, "transparent_huge_pages",
                  m->transparent_huge[0] ? m->transparent_huge : NULL);
    hg_out_uint(d->o, "huge_pages", m->huge_pages);
    hg_out_close(d->o, '}');
    if (m->limit)
        snprintf(limit, sizeof limit, "cgroup limit %.1f GB, %.1f used", gb(m->limit),
                 gb(m->limit_used));
    HG_DOCTOR_OK_NOTE(d, "ram", "%.1f GB of memory, %.1f available, %s", gb(m->ram),
                      gb(m->ram_free), limit);
    if (strcmp(m->transparent_huge, "never") == 0)
        HG_DOCTOR_WARN_NOTE(d, "huge_pages",
                            "transparent huge pages: never; large models decode slower\n"
                            "write madvise to /sys/kernel/mm/transparent_hugepage/enabled");
    else
        HG_DOCTOR_OK_NOTE(d, "huge_pages", "transparent huge pages: %s",
                          m->transparent_huge[0] ? m->transparent_huge : "not known");
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void put_limit(struct hg_json_out *o, const char *key, rlim_t v)
{
    if (v == RLIM_INFINITY)
        hg_out_string(o, key, "unlimited");
    else
        hg_out_uint(o, key, (uint64_t)v);
}

static void limits(struct hg_doctor *d)
{
    struct rlimit files = {0}, lock = {0}, core = {0};
    long long open = d->config.max_connections, want = 2 * open + 128; /* as server/daemon.c asks */
    getrlimit(RLIMIT_NOFILE, &files);
    getrlimit(RLIMIT_MEMLOCK, &lock);
    getrlimit(RLIMIT_CORE, &core);
    hg_out_open(d->o, "limits", '{');
    put_limit(d->o, "nofile", files.rlim_cur);
    put_limit(d->o, "nofile_hard", files.rlim_max);
    put_limit(d->o, "memlock", lock.rlim_cur);
    put_limit(d->o, "core", core.rlim_cur);
    hg_out_close(d->o, '}');
    if (files.rlim_max < (rlim_t)want)
        HG_DOCTOR_WARN_NOTE(d, "nofile",
                            "at most %llu open files in this session, %lld connections want %lld\n"
                            "raise it (ulimit -Hn; LimitNOFILE= in the unit) or lower "
                            "max_connections",
                            (unsigned long long)files.rlim_max, open, want);
    else
        HG_DOCTOR_OK_NOTE(d, "nofile", "open files: enough for %lld connections", open);
    if (d->config.core_dumps)
        HG_DOCTOR_WARN_NOTE(d, "core_dumps",
                            "core_dumps is set: a dump holds what patients' requests said\n"
                            "take it out when the fault is found");
}

/* ---- clock and surroundings ------------------------------------------------------------------ */

/* Keys end and audit lines are dated by it. */
static void clock_is_sane(struct hg_doctor *d)
{
    enum { RELEASED = 1764115200 }; /* 2025-11-26: no machine that runs this is older */
    struct timex t = {0};
    struct tm tm;
    char text[40] = "?";
    time_t now = time(NULL);
    int state = adjtimex(&t);
    bool known = state >= 0, synced = known && state != TIME_ERROR && !(t.status & STA_UNSYNC);
    if (gmtime_r(&now, &tm))
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    hg_out_open(d->o, "clock", '{');
    hg_out_string(d->o, "utc", text);
    if (known)
        hg_out_bool(d->o, "synchronised", synced);
    else
        hg_out_string(d->o, "synchronised", NULL);
    hg_out_close(d->o, '}');
    if (now < RELEASED)
        HG_DOCTOR_FAIL_NOTE(d, HG_STATUS_BAD_REQUEST, "clock",
                            "the clock says %s, which is past\nset it (NTP): API keys end and "
                            "audit lines are dated by it",
                            text);
    else if (known && !synced)
        HG_DOCTOR_WARN_NOTE(d, "clock",
                            "%s, but the kernel's clock is not synchronised\nrun chrony or "
                            "systemd-timesyncd on the host: audit lines are dated by it",
                            text);
    else
        HG_DOCTOR_OK_NOTE(d, "clock", "%s%s", text, known ? ", synchronised" : "");
}

/* A program in one of the folders where services are installed, or in $PATH. */
static bool has_program(const char *name)
{
    const char *path = getenv("PATH");
    char full[HG_DOCTOR_PATH];
    for (int i = 0; i < 2; i++) {
        const char *s = i ? path : "/usr/sbin:/usr/local/sbin:/usr/local/nginx/sbin";
        while (s && *s) {
            size_t n = strcspn(s, ":");
            int len = snprintf(full, sizeof full, "%.*s/%s", (int)n, s, name);
            if (n > 0 && len > 0 && len < HG_DOCTOR_PATH && access(full, X_OK) == 0)
                return true;
            s += n + (s[n] == ':');
        }
    }
    return false;
}

static void nginx(struct hg_doctor *d)
{
    bool there = has_program("nginx");
    hg_out_bool(d->o, "nginx", there);
    HG_DOCTOR_OK_NOTE(d, "nginx", "nginx is %s (wanted for TLS or several replicas only: %s)",
                      there ? "installed" : "not installed", "deploy/nginx.conf");
}

void hg_doctor_machine(struct hg_doctor *d)
{
    struct utsname u;
    d->area = "machine";
    hg_machine_read("", &d->machine);
    hg_out_open(d->o, "machine", '{');
    if (uname(&u) == 0) { /* not its nodename */
        hg_out_string(d->o, "kernel", u.release);
        hg_out_string(d->o, "architecture", u.machine);
    }
    processor(d);
    cores(d);
    memory(d);
    limits(d);
    clock_is_sane(d);
    nginx(d);
    hg_out_close(d->o, '}');
}
