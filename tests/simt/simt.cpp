/* tests/simt/simt.cpp - fibers, warps, blocks, and the collectives of tests/simt/simt.h. */
#include "simt.h"

#include "runtime.h"

#include <algorithm>
#include <cstdarg>
#include <memory>
#include <vector>

extern "C" void simt_switch(void **save_sp, void *load_sp);

/* Save the callee-saved registers and the stack pointer, load those of another fiber. An indirect
 * jump instead of ret keeps the processor's return predictor out of it (twice as fast). */
__asm__(".text\n.globl simt_switch\n.type simt_switch,@function\nsimt_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\npop %rcx\njmp *%rcx\n");

namespace simt
{
namespace
{

enum class State : uint8_t { ready, at_warp, at_block, done };

struct Copy {
    void *dst;
    const void *src;
    int size, filled;
};

struct Fiber : Thread {
    void *sp;
    State state;
    unsigned site;
    std::vector<Copy> copies;
    std::vector<size_t> groups; /* number of copies up to each commit */
};

enum {
    max_threads = 1024,
    stack_bytes = (128 << 10) + 13 * 64
}; /* an odd number of cache lines apart */

int initial_order()
{
    const char *order = getenv("HG_SIMT_ORDER");
    return order ? atoi(order) : 0;
}

struct Machine {
    std::vector<Fiber> fibers;
    std::unique_ptr<char[]> stacks;
    std::vector<Thread *> warp; /* lanes of the running warp */
    Fiber *current;
    void *host_sp;
    const char *kernel;
    const std::function<void()> *body;
    unsigned char *shared;
    dim3 grid, block;
    uint3 block_index;
    warp_fn *whole;
    int n_threads, order = initial_order();
    uint64_t random;
};

Machine m;

uint64_t next_random()
{
    m.random = m.random * 6364136223846793005ull + 1442695040888963407ull;
    return m.random >> 33;
}

std::vector<int> sequence(int n)
{
    std::vector<int> s(n);
    for (int i = 0; i < n; i++)
        s[i] = m.order == 1 ? n - 1 - i : i;
    for (int i = n - 1; i > 0 && m.order == 2; i--)
        std::swap(s[i], s[next_random() % (i + 1)]);
    return s;
}

void leave()
{
    simt_switch(&m.current->sp, m.host_sp);
}

void trampoline()
{
    (*m.body)();
    m.current->state = State::done;
    leave();
    abort();
}

void start_fiber(Fiber &f, int i)
{
    f.index = {i % m.block.x, i / m.block.x % m.block.y, i / (m.block.x * m.block.y)};
    f.lane = i % warp_size;
    f.parity = 0;
    f.state = State::ready;
    f.copies.clear();
    f.groups.clear();
    uintptr_t top = (uintptr_t)(m.stacks.get() + (size_t)stack_bytes * (i + 1)) & ~(uintptr_t)15;
    void **sp = (void **)top;
    *--sp = nullptr; /* keeps the stack aligned at the entry of trampoline */
    *--sp = (void *)trampoline;
    for (int k = 0; k < 6; k++)
        *--sp = nullptr;
    f.sp = sp;
}

/* Release a warp whose lanes all wait at one collective. */
void release_warp(int first)
{
    unsigned site = m.fibers[first].site;
    for (int i = first; i < first + warp_size; i++) {
        if (m.fibers[i].site != site)
            fail("lanes of warp %d wait at different collectives", first / warp_size);
        m.fibers[i].state = State::ready;
        m.warp[i - first] = &m.fibers[i];
    }
    if (m.whole)
        m.whole(m.warp.data(), m.fibers[first].parity ^ 1);
    m.whole = nullptr;
}

/* Run one warp until every lane waits for the block or has ended. */
void run_warp(int w)
{
    int first = w * warp_size;
    std::vector<int> lanes = sequence(warp_size);
    for (;;) {
        int waiting = 0;
        for (int lane : lanes) {
            Fiber &f = m.fibers[first + lane];
            if (f.state == State::ready) {
                m.current = &f;
                simt_switch(&m.host_sp, f.sp);
            }
            waiting += f.state == State::at_warp;
        }
        if (waiting == 0)
            return;
        if (waiting != warp_size)
            fail("divergent collective: %d of 32 lanes of warp %d have come", waiting, w);
        release_warp(first);
    }
}

void check_end(const Fiber &f)
{
    if (!f.copies.empty())
        fail("thread %u ends with %zu copies of cp.async in flight", f.index.x, f.copies.size());
}

void run_block()
{
    for (int i = 0; i < m.n_threads; i++)
        start_fiber(m.fibers[i], i);
    for (;;) {
        int done = 0;
        for (int w : sequence(m.n_threads / warp_size))
            run_warp(w);
        for (int i = 0; i < m.n_threads; i++)
            done += m.fibers[i].state == State::done;
        if (done == m.n_threads)
            break;
        if (done)
            fail("divergent __syncthreads: %d of %d threads have ended", done, m.n_threads);
        for (int i = 0; i < m.n_threads; i++) {
            if (m.fibers[i].site != m.fibers[0].site)
                fail("divergent __syncthreads: threads wait at different places");
            m.fibers[i].state = State::ready;
        }
    }
    for (int i = 0; i < m.n_threads; i++)
        check_end(m.fibers[i]);
}

void prepare(const char *name, dim3 grid, dim3 block, const std::function<void()> &body)
{
    m.kernel = name;
    m.grid = grid;
    m.block = block;
    m.body = &body;
    m.n_threads = (int)(block.x * block.y * block.z);
    if (m.n_threads < 1 || m.n_threads > max_threads || m.n_threads % warp_size)
        fail("%d threads in a block: expected a multiple of 32 up to %d", m.n_threads, max_threads);
    if (!m.stacks) {
        m.stacks.reset(new char[(size_t)stack_bytes * max_threads]);
        m.fibers.resize(max_threads);
        m.warp.resize(warp_size);
    }
}

} // namespace

Thread &self()
{
    return *m.current;
}
const uint3 &block()
{
    return m.block_index;
}
const dim3 &block_dim()
{
    return m.block;
}
const dim3 &grid_dim()
{
    return m.grid;
}
unsigned char *shared_memory()
{
    return m.shared;
}

void fail(const char *format, ...)
{
    va_list args;
    fprintf(stderr, "SIMT: kernel %s, block (%u, %u, %u): ", m.kernel, m.block_index.x,
            m.block_index.y, m.block_index.z);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

Thread *const *warp_sync(unsigned site, warp_fn *whole)
{
    m.current->state = State::at_warp;
    m.current->site = site;
    m.whole = whole;
    leave();
    return m.warp.data();
}

void block_sync(unsigned site)
{
    m.current->state = State::at_block;
    m.current->site = site;
    leave();
}

void spin()
{
    fail("waits for a block that has not run: blocks must wait for lower tickets only");
}

/* ---- cp.async ---- */

void cp_async(void *dst, const void *src, int size, int filled)
{
    if ((uintptr_t)dst % (unsigned)size || (filled && (uintptr_t)src % (unsigned)size))
        fail("cp.async of %d bytes is misaligned", size);
    m.current->copies.push_back({dst, src, size, filled});
}

void cp_async_commit()
{
    m.current->groups.push_back(m.current->copies.size());
}

void cp_async_wait(int pending)
{
    Fiber &f = *m.current;
    int finished = (int)f.groups.size() - pending;
    if (finished <= 0)
        return;
    size_t n = f.groups[finished - 1];
    for (size_t i = 0; i < n; i++) {
        memset(f.copies[i].dst, 0, f.copies[i].size);
        if (f.copies[i].filled)
            memcpy(f.copies[i].dst, f.copies[i].src, f.copies[i].filled);
    }
    f.copies.erase(f.copies.begin(), f.copies.begin() + n);
    f.groups.erase(f.groups.begin(), f.groups.begin() + finished);
    for (size_t &g : f.groups)
        g -= n;
}

/* ---- launch ---- */

/* One kernel, now. */
static void run(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared,
                const std::function<void()> &body)
{
    m.block_index = {0, 0, 0};
    prepare(name, grid, block, body);
    if (shared > simt_shared_limit(kernel))
        fail("%zu bytes of shared memory, allowed %zu", shared, simt_shared_limit(kernel));
    m.random = 20260101;
    void *memory =
        nullptr; /* exactly as large as asked, so that ASan sees the first byte past it */
    if (posix_memalign(&memory, 128, shared ? shared : 1) != 0)
        fail("out of memory");
    m.shared = (unsigned char *)memory;
    for (int b : sequence((int)(grid.x * grid.y * grid.z))) {
        m.block_index = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
        memset(m.shared, 0xff, shared);
        run_block();
    }
    free(memory);
}

void launch(cudaStream_t stream, const char *name, const void *kernel, dim3 grid, dim3 block,
            size_t shared, const std::function<void()> &body)
{
    simt_enqueue_kernel(stream, [=] { run(name, kernel, grid, block, shared, body); });
}

} // namespace simt

extern "C" void simt_set_order(int order)
{
    simt::m.order = order;
}
