/* server/git_commit.c - the commit of the build (HG_GIT, from the Makefile). A file of its own,
 * that only the daemon has, so that a commit compiles and links nothing else again. */
#ifndef HG_GIT
#define HG_GIT ""
#endif

#include "server/ops/ops.h"

const char *hg_ops_commit(void)
{
    return HG_GIT;
}
