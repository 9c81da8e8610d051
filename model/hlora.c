/* model/hlora.c - adapters of one module, shapes checked against the base linear. */
#include "model/hlora.h"

#include <stdio.h>
#include <string.h>

#include "model/dry_run.h"

enum { MAX_RANK = 4096, MAX_EXPERTS = 64 };

enum hg_status hg_hlora_get(struct hg_loader *l, const char *module, int n_in, int n_out,
                            float alpha, struct hg_adapter *out, struct hg_error *err)
{
    char name[192];
    int64_t rank = 0, experts = 0;
    memset(out, 0, sizeof *out);
    snprintf(name, sizeof name, "%s.lora_A.weight", module);
    HG_TRY(hg_loader_get(l, name, -1, n_in, &rank, &out->a, err));
    if (rank == 0 && hg_dry_run_of(l->backend)) /* missing, which is said */
        return HG_STATUS_OK;
    if (rank < 1 || rank > MAX_RANK)
        return hg_fail(err, HG_STATUS_BAD_FILE, "tensor %s: expected 1..%d rows, got %lld", name,
                       MAX_RANK, (long long)rank);
    snprintf(name, sizeof name, "%s.lora_route.weight", module);
    HG_TRY(hg_loader_get(l, name, -1, n_in, &experts, &out->route, err));
    if (experts == 0 && hg_dry_run_of(l->backend))
        return HG_STATUS_OK;
    if (experts < 1 || experts > MAX_EXPERTS || rank % experts != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "tensor %s: expected a number of experts that divides rank %lld, got %lld",
                       name, (long long)rank, (long long)experts);
    snprintf(name, sizeof name, "%s.lora_B.weight", module);
    HG_TRY(hg_loader_get(l, name, n_out, rank, NULL, &out->b, err));
    out->rank = (int)rank;
    out->n_experts = (int)experts;
    out->scaling = alpha / (float)rank * (float)experts;
    return HG_STATUS_OK;
}
