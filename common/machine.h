/* common/machine.h - what the machine gives this process: processors, memory, limits of its cgroup.
 *
 * Read from /proc and /sys (Linux); what cannot be read stays at its "not known" value, and nothing
 * fails. A quota is the tightest one on the way from the process's own cgroup to the root, of
 * version 2 (cpu.max, memory.max) or 1 (cpu.cfs_quota_us, memory.limit_in_bytes). */
#ifndef HG_COMMON_MACHINE_H
#define HG_COMMON_MACHINE_H

#include <stdint.h>

struct hg_machine {
    char cpu[96];              /* "model name" of /proc/cpuinfo; "": not known */
    int online, affinity;      /* processors that run, and those that this process may use */
    double quota;              /* processors' worth of time; 0: no limit */
    uint64_t ram, ram_free;    /* bytes: MemTotal, MemAvailable; 0: not known */
    uint64_t limit;            /* bytes that the cgroup may hold; 0: no limit */
    uint64_t limit_used;       /* of them, in that cgroup */
    char transparent_huge[16]; /* "always", "madvise", "never"; "": not known */
    uint64_t huge_pages;       /* reserved ones: HugePages_Total */
};

/* `root` stands before "/proc/..." and "/sys/...": "" but in tests. */
void hg_machine_read(const char *root, struct hg_machine *out);

/* Processors' worth of time that can be had: affinity, or less under a quota; at least 1. */
int hg_machine_cores(const struct hg_machine *m);
/* Bytes of memory that can be had now, the smaller of both; 0: not known. And the most there is. */
uint64_t hg_machine_memory_free(const struct hg_machine *m);
uint64_t hg_machine_memory(const struct hg_machine *m);

#endif
