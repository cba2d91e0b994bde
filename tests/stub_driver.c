// A stand-in for libcuda.so.1, built by tests/stub.py: the part of the driver that the host layer calls, with the
// limits that its documentation gives, where there is no GPU.
//
// Nothing is computed. A launch is held against the limits of a chip and kept, with copies of its parameters, for the
// test to read through stub_launch; after stub_simulate, memory and launches are the test's own, so that it can run them
// in the simulator. tests/sim/test_stub_driver.py is the table of limits, each with its source in the documentation.
//
// The environment chooses, at every call: STUB_CHIP (90: a compute capability of core/kernels/chips.py), STUB_VERSION
// (13000: of the driver), STUB_GPUS (1), STUB_SMS (132), STUB_MEMORY (bytes, 1 GiB), STUB_LACKS (an entry point that this
// driver does not have), STUB_FAIL = "function:status" or "function:status:nth call".
//
// A captured graph runs in the order in which it was captured; with STUB_ORDER = "early" work of other streams than the
// first runs as soon as its events allow, with "late" as late as they allow. stub_busy(1) keeps events from completing.
// stub_enqueue puts a call of another library's stub (tests/stub_nccl.c) on a stream.
//
// Not modelled: streams at work at the same time, time, what a kernel does, unloading, PTX (no JIT compiler is there), whether
// a cubin was made for an architecture with an "a", and alignment of addresses within an allocation.

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "stub_cubin.h"

typedef int status;
typedef unsigned int u32;
typedef unsigned long long u64;
#define EXPORT __attribute__((visibility("default")))

enum {  // CUresult
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209, JIT_COMPILER_NOT_FOUND = 221, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
    ILLEGAL_ADDRESS = 700, OUT_OF_RESOURCES = 701, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901, CAPTURE_UNJOINED = 904, CAPTURE_ISOLATION = 905, CAPTURED_EVENT = 907,
    INVALID_CLUSTER_SIZE = 912,
};

// the chips of core/kernels/chips.py, put in by tests/stub.py
struct chip { int number, sm_shared, shared, sm_threads, sm_blocks, cluster; };
static const struct chip chips[] = { CHIPS };
enum { WARP = 32, MAX_THREADS = 1024, MAX_REGISTERS = 65536, REGISTER_UNIT = 256, PARTITIONS = 4, DEFAULT_SHARED = 48 << 10 };
static const u32 MAX_BLOCK[3] = {1024, 1024, 64}, MAX_GRID[3] = {2147483647, 65535, 65535};

static long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}
// the chip that STUB_CHIP names; one that is not in the table has the last row's limits
static struct chip chip(void) {
    int wanted = setting("STUB_CHIP", 90), count = sizeof chips / sizeof *chips, i = 0;
    while (i < count - 1 && chips[i].number != wanted) i++;
    struct chip found = chips[i];
    found.number = wanted;
    return found;
}
static int driver_version(void) { return setting("STUB_VERSION", 13000); }
static long up(long n, long unit) { return (n + unit - 1) / unit * unit; }

// --- errors --------------------------------------------------------------------------------------------------------

// "This leaves the process in an inconsistent state and any further CUDA work will return the same error"
static int sticks(status code) { return code == 214 || code == 220 || code == 700 || code == 702 || code == 710 || (code > 713 && code < 720); }
static status sticky = SUCCESS;
static int initialized, current;

// the status that STUB_FAIL asks of this call of `function`
static status asked(const char* function) {
    static char seen[64][64];
    static int calls[64], known;
    const char* text = getenv("STUB_FAIL");
    char name[64];
    int code = 0, nth = 1, i;
    if (sticky) return sticky;
    if (!text || sscanf(text, "%63[^:]:%d:%d", name, &code, &nth) < 2 || strcmp(name, function)) return SUCCESS;
    for (i = 0; i < known && strcmp(seen[i], name); i++) {}
    if (i == known) strcpy(seen[known++], name);
    if (++calls[i] != nth) return SUCCESS;
    if (sticks(code)) sticky = code;
    return code;
}
#define REFUSE(bad, code) do { if (bad) return code; } while (0)
#define CHECK(function) do { status found_ = asked(#function); REFUSE(found_, found_); } while (0)
// a call that needs the context
#define ENTER(function) do { CHECK(function); REFUSE(!initialized, NOT_INITIALIZED); REFUSE(!current, INVALID_CONTEXT); } while (0)

// --- streams, events and what is captured -------------------------------------------------------------------------------

struct launch_config { u32 grid[3], block[3], shared; void* stream; struct attribute* attributes; u32 count; };
struct attribute { int id; char pad[4]; union { char bytes[64]; struct { u32 x, y, z; } cluster; int value; } as; };
enum { CLUSTER_DIMENSION = 4, PROGRAMMATIC_SERIALIZATION = 6 };  // CUlaunchAttributeID
enum { RELAXED = 2 };                                           // CUstreamCaptureMode
enum { DISABLE_TIMING = 2 };                                    // CUevent_flags

// A captured launch has its own copy of the parameters, as in the driver; a captured copy or fill is done at once.
// call: another library's work, with its own copy of the arguments. awaited: the node that records the event that this
// node waits for.
struct node { struct launch_config config; struct attribute attributes[4]; void* function; void** parameters; struct node* next;
              void (*call)(void*); void* argument; struct stream* on; struct node* awaited; int done; };
struct graph { u32 magic; struct node *first, **end; struct stream *origin, *forked[4]; int forks; };
// at: the stream's last work while it is captured; joined: the last one that the stream of the capture waits for
struct stream { u32 magic; struct graph* capturing; int mode, invalid; struct node *at, *joined; };
struct event { u32 magic, flags; int recorded, captured; struct node *node, *at; struct stream* on; };
enum { STREAM = 0x57124d, EVENT = 0xe4e27, FUNCTION = 0xf2c710, GRAPH = 0x96a94, EXECUTABLE = 0xe8ec, GONE = 0xdead };
#define IS(handle, kind) ((handle) && *(const u32*)(handle) == (kind))

static int busy;                  // whether work is under way that does not end
EXPORT void stub_busy(int on) { busy = on; }
static struct stream* capturing;  // the stream that is captured, if one is
static int alive;                 // executable graphs that are not destroyed

// A call that a capture forbids invalidates it: CUDA Programming Guide, "Prohibited and Unhandled Operations".
static status prohibited(struct stream* stream, status code) {
    stream->invalid = 1;
    return code;
}
// Allocating, loading and the like are "potentially unsafe": legal while a stream is captured in relaxed mode alone.
#define UNSAFE() REFUSE(capturing && capturing->mode != RELAXED, prohibited(capturing, CAPTURE_UNSUPPORTED))
#define USE(stream) do { REFUSE(!IS(stream, STREAM), INVALID_HANDLE); \
    REFUSE(((struct stream*)(stream))->invalid, CAPTURE_INVALIDATED); } while (0)

status cuStreamCreate(struct stream** stream, u32 flags) {
    ENTER(cuStreamCreate);
    *stream = calloc(1, sizeof **stream);
    (*stream)->magic = STREAM;
    return SUCCESS;
}
status cuStreamSynchronize(struct stream* stream) {
    ENTER(cuStreamSynchronize);
    USE(stream);
    REFUSE(stream->capturing, prohibited(stream, CAPTURE_UNSUPPORTED));
    return SUCCESS;
}
status cuEventCreate(struct event** event, u32 flags) {
    ENTER(cuEventCreate);
    *event = calloc(1, sizeof **event);
    (*event)->magic = EVENT;
    (*event)->flags = flags;
    return SUCCESS;
}
// an empty node at the end of a captured stream
static struct node* append(struct stream* stream) {
    struct node* node = calloc(1, sizeof *node);
    node->on = stream;
    *stream->capturing->end = node;
    stream->capturing->end = &node->next;
    return node;
}
status cuEventRecord(struct event* event, struct stream* stream) {
    ENTER(cuEventRecord);
    REFUSE(!IS(event, EVENT), INVALID_HANDLE);
    USE(stream);
    event->recorded = 1;
    event->captured = stream->capturing != NULL;
    event->on = stream;
    event->at = stream->at;
    event->node = stream->capturing ? append(stream) : NULL;
    return SUCCESS;
}
// A stream that waits for a captured event joins the capture; a captured stream may wait for no other event.
status cuStreamWaitEvent(struct stream* stream, struct event* event, u32 flags) {
    ENTER(cuStreamWaitEvent);
    REFUSE(!IS(event, EVENT), INVALID_HANDLE);
    USE(stream);
    if (!event->captured) return stream->capturing ? prohibited(stream, CAPTURE_ISOLATION) : SUCCESS;
    REFUSE(!event->on->capturing, CAPTURED_EVENT);
    struct graph* graph = event->on->capturing;
    if (!stream->capturing) {
        REFUSE(graph->forks == 4, INVALID_VALUE);
        graph->forked[graph->forks++] = stream;
        *stream = (struct stream){STREAM, graph, graph->origin->mode, 0, NULL, NULL};
    }
    append(stream)->awaited = event->node;
    if (stream == graph->origin) event->on->joined = event->at;
    return SUCCESS;
}
// A call of another library on a stream, with `size` bytes of arguments: at once, or whenever its graph is launched.
EXPORT status stub_enqueue(struct stream* stream, void (*call)(void*), void* argument, size_t size) {
    ENTER(stub_enqueue);
    USE(stream);
    if (!stream->capturing) { call(argument); return SUCCESS; }
    struct node* node = append(stream);
    node->call = call;
    node->argument = memcpy(malloc(size), argument, size);
    stream->at = node;
    return SUCCESS;
}
EXPORT int stub_captures(struct stream* stream) { return IS(stream, STREAM) && stream->capturing != NULL; }
static status waited(struct event* event) {
    REFUSE(!IS(event, EVENT), INVALID_HANDLE);
    if (!event->captured) return SUCCESS;
    return capturing ? prohibited(capturing, CAPTURED_EVENT) : CAPTURED_EVENT;
}
status cuEventSynchronize(struct event* event) {
    ENTER(cuEventSynchronize);
    return waited(event);
}
status cuEventQuery(struct event* event) {
    ENTER(cuEventQuery);
    status found = waited(event);
    return found ? found : busy ? NOT_READY : SUCCESS;
}
status cuEventElapsedTime_v2(float* milliseconds, struct event* from, struct event* to) {
    ENTER(cuEventElapsedTime);
    struct event* both[] = {from, to};
    for (int i = 0; i < 2; i++) {
        status found = waited(both[i]);
        REFUSE(found, found);
        REFUSE(!both[i]->recorded || both[i]->flags & DISABLE_TIMING, INVALID_HANDLE);
    }
    *milliseconds = 1.5f;
    return SUCCESS;
}
status cuEventDestroy_v2(struct event* event) {
    REFUSE(!IS(event, EVENT), INVALID_HANDLE);
    event->magic = GONE;
    return SUCCESS;
}

// --- the device ------------------------------------------------------------------------------------------------------

static int used;  // the device that was asked for last
status cuInit(u32 flags) { CHECK(cuInit); initialized = 1; return SUCCESS; }
status cuDriverGetVersion(int* version) { *version = driver_version(); return SUCCESS; }
status cuDeviceGetCount(int* count) { REFUSE(!initialized, NOT_INITIALIZED); *count = setting("STUB_GPUS", 1); return SUCCESS; }
status cuDeviceGet(int* device, int ordinal) { *device = used = ordinal; return SUCCESS; }
status cuDeviceGetName(char* name, int length, int device) { snprintf(name, length, "Stub GPU"); return SUCCESS; }
status cuDevicePrimaryCtxRetain(void** context, int device) { CHECK(cuDevicePrimaryCtxRetain); *context = (void*)8; return SUCCESS; }
status cuCtxSetCurrent(void* context) { current = context != NULL; return SUCCESS; }
status cuCtxGetCurrent(void** context) { *context = current ? (void*)8 : NULL; return SUCCESS; }
status cuCtxGetDevice(int* device) { REFUSE(!current, INVALID_CONTEXT); *device = used; return SUCCESS; }
// STUB_UUID: a number that all devices of this process have; by default each has its own
status cuDeviceGetUuid(unsigned char* uuid, int device) { memset(uuid, setting("STUB_UUID", device), 16); return SUCCESS; }
status cuDeviceGetAttribute(int* value, int kind, int device) {
    const struct chip c = chip();
    const int table[][2] = {  // CUdevice_attribute
        {1, MAX_THREADS}, {2, MAX_BLOCK[0]}, {3, MAX_BLOCK[1]}, {4, MAX_BLOCK[2]}, {5, MAX_GRID[0]}, {6, MAX_GRID[1]},
        {7, MAX_GRID[2]}, {8, DEFAULT_SHARED}, {10, WARP}, {12, MAX_REGISTERS}, {16, setting("STUB_SMS", 132)},
        {39, c.sm_threads}, {75, c.number / 10}, {76, c.number % 10}, {81, c.sm_shared}, {82, MAX_REGISTERS},
        {97, c.shared}, {106, c.sm_blocks}, {111, c.number >= 80 ? 1024 : 0}, {120, c.cluster > 1}, {127, c.number >= 90},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i][0] == kind) { *value = table[i][1]; return SUCCESS; }
    return INVALID_VALUE;
}

// --- memory ------------------------------------------------------------------------------------------------------------

// what a test puts in place of memory and launches: addresses then count from `pool`
static unsigned char* pool;
static u64 (*pool_allocate)(size_t size);
static status (*pool_launch)(void* function, const u32* grid, const u32* block, u32 shared, u32 cluster, void** parameters);
EXPORT void stub_simulate(unsigned char* base, void* allocate, void* launch) {
    pool = base;
    pool_allocate = allocate;
    pool_launch = launch;
}
#define HOST(address) ((void*)(pool + (address)))

// Device memory is a range of addresses of the host's, of which no two allocations ever share one: a use after free is
// seen. Only what is written is ever backed by memory, so that 145 GB can be allocated; what a driver gives is not zero,
// and here that is shown up to POISONED bytes.
enum { PAGE = 4096, POISONED = 1 << 20, MAX_BLOCKS = 1 << 16 };
#define RANGE (1ull << 44)
static struct block { u64 address; size_t size; int freed; } blocks[MAX_BLOCKS];
static int block_count;
static size_t held;
static unsigned char *range, *top;
static size_t capacity(void) { return setting("STUB_MEMORY", 1L << 30); }
static size_t pages(size_t size) { return up(size, PAGE); }

static u64 take(size_t size) {
    if (pool) return pool_allocate(size);
    if (!range) {
        range = top = mmap(NULL, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (range == MAP_FAILED) return range = NULL, 0;
    }
    if (top + pages(size) > range + RANGE || mprotect(top, pages(size), PROT_READ | PROT_WRITE)) return 0;
    if (size <= POISONED) memset(top, 0xa5, size);
    u64 address = (u64)top;
    top += pages(size) + PAGE;
    return address;
}
status cuMemGetInfo(size_t* free_bytes, size_t* total) { *total = capacity(); *free_bytes = *total - held; return SUCCESS; }
status cuMemAlloc(u64* address, size_t size) {
    ENTER(cuMemAlloc);
    UNSAFE();
    REFUSE(!size, INVALID_VALUE);
    REFUSE(held + size > capacity() || block_count == MAX_BLOCKS || !(*address = take(size)), OUT_OF_MEMORY);
    blocks[block_count++] = (struct block){*address, size, 0};
    held += size;
    return SUCCESS;
}
status cuMemFree(u64 address) {
    UNSAFE();
    for (int i = block_count - 1; i >= 0; i--) {
        if (blocks[i].freed || blocks[i].address != address) continue;
        blocks[i].freed = 1;
        held -= blocks[i].size;
        if (!pool) {
            madvise((void*)address, pages(blocks[i].size), MADV_DONTNEED);
            mprotect((void*)address, pages(blocks[i].size), PROT_NONE);
        }
        return SUCCESS;
    }
    return INVALID_VALUE;
}
static int inside(u64 address, size_t size) {
    for (int i = 0; i < block_count; i++)
        if (!blocks[i].freed && address >= blocks[i].address && address + size <= blocks[i].address + blocks[i].size) return 1;
    return 0;
}
status cuMemHostAlloc(void** pointer, size_t size, u32 flags) {
    ENTER(cuMemHostAlloc);
    UNSAFE();
    REFUSE(!(*pointer = calloc(1, size)), OUT_OF_MEMORY);
    return SUCCESS;
}
static void fill(unsigned char* at, unsigned char value, size_t size) {
    unsigned char *from = (void*)up((long)at, PAGE), *to = (void*)((u64)(at + size) & ~(u64)(PAGE - 1));
    if (value || pool || size <= POISONED) { memset(at, value, size); return; }
    memset(at, 0, from - at);
    madvise(from, to - from, MADV_DONTNEED);  // zero, and not backed
    memset(to, 0, at + size - to);
}
status cuMemsetD8Async(u64 address, unsigned char value, size_t size, struct stream* stream) {
    ENTER(cuMemsetD8Async);
    USE(stream);
    REFUSE(!inside(address, size), INVALID_VALUE);
    fill(HOST(address), value, size);
    return SUCCESS;
}
status cuMemcpyHtoDAsync(u64 target, const void* source, size_t size, struct stream* stream) {
    ENTER(cuMemcpyHtoDAsync);
    USE(stream);
    REFUSE(!inside(target, size), INVALID_VALUE);
    memcpy(HOST(target), source, size);
    return SUCCESS;
}
status cuMemcpyDtoHAsync(void* target, u64 source, size_t size, struct stream* stream) {
    ENTER(cuMemcpyDtoHAsync);
    USE(stream);
    REFUSE(!inside(source, size), INVALID_VALUE);
    memcpy(target, HOST(source), size);
    return SUCCESS;
}

// --- modules and functions -----------------------------------------------------------------------------------------------

struct function { u32 magic; int dynamic; struct kernel kernel; };

// a cubin runs on its own compute capability and on later minor versions of the same major one
status cuModuleLoadData(void** module, const void* image) {
    ENTER(cuModuleLoadData);
    UNSAFE();
    if (memcmp(image, "\177ELF", 4)) return strstr(image, ".entry") ? JIT_COMPILER_NOT_FOUND : INVALID_IMAGE;
    int made = cubin_arch(image), here = chip().number;
    REFUSE(made / 10 != here / 10 || made > here, NO_BINARY_FOR_GPU);
    *module = memcpy(malloc(cubin_size(image)), image, cubin_size(image));
    return SUCCESS;
}
status cuModuleGetFunction(struct function** function, void* module, const char* name) {
    ENTER(cuModuleGetFunction);
    struct function* found = calloc(1, sizeof *found);
    REFUSE(!read_kernel(module, name, &found->kernel), NOT_FOUND);
    found->magic = FUNCTION;
    found->dynamic = found->kernel.shared > DEFAULT_SHARED ? 0 : DEFAULT_SHARED - found->kernel.shared;
    *function = found;
    return SUCCESS;
}
enum { FUNCTION_MAX_THREADS = 0, FUNCTION_STATIC = 1, FUNCTION_REGISTERS = 4, FUNCTION_ARCH = 6, FUNCTION_DYNAMIC = 8 };
status cuFuncGetAttribute(int* value, int kind, struct function* function) {
    ENTER(cuFuncGetAttribute);
    REFUSE(!IS(function, FUNCTION), INVALID_HANDLE);
    const struct kernel* k = &function->kernel;
    switch (kind) {
        case FUNCTION_MAX_THREADS: *value = k->max_threads; return SUCCESS;
        case FUNCTION_STATIC: *value = k->shared; return SUCCESS;
        case FUNCTION_REGISTERS: *value = k->registers; return SUCCESS;
        case FUNCTION_ARCH: *value = chip().number; return SUCCESS;
        case FUNCTION_DYNAMIC: *value = function->dynamic; return SUCCESS;
    }
    return INVALID_VALUE;
}
status cuFuncSetAttribute(struct function* function, int kind, int value) {
    ENTER(cuFuncSetAttribute);
    REFUSE(!IS(function, FUNCTION), INVALID_HANDLE);
    REFUSE(kind != FUNCTION_DYNAMIC || value < 0 || value + function->kernel.shared > chip().shared, INVALID_VALUE);
    function->dynamic = value;
    return SUCCESS;
}
status cuFuncGetParamInfo(struct function* function, size_t index, size_t* offset, size_t* size) {
    ENTER(cuFuncGetParamInfo);
    REFUSE(!IS(function, FUNCTION), INVALID_HANDLE);
    REFUSE(index >= (size_t)function->kernel.count, INVALID_VALUE);
    *offset = function->kernel.offsets[index];
    if (size) *size = function->kernel.sizes[index];
    return SUCCESS;
}
// registers that a thread block of so many threads is counted with: cuda_occupancy.h, cudaOccMaxBlocksPerSMRegsLimit
static long block_registers(const struct kernel* kernel, int threads) {
    return up(kernel->registers * WARP, REGISTER_UNIT) * up(up(threads, WARP) / WARP, PARTITIONS);
}
status cuOccupancyMaxActiveBlocksPerMultiprocessor(int* each, struct function* function, int threads, size_t shared) {
    ENTER(cuOccupancyMaxActiveBlocksPerMultiprocessor);
    REFUSE(!IS(function, FUNCTION), INVALID_HANDLE);
    REFUSE(threads < 1, INVALID_VALUE);
    const struct kernel* k = &function->kernel;
    const struct chip c = chip();
    long warps = up(threads, WARP) / WARP, of_warp = up(k->registers * WARP, REGISTER_UNIT);
    long room = up(k->shared + shared + (c.number >= 80 ? 1024 : 0), c.number >= 80 ? 128 : 256);
    long limits[] = {c.sm_threads / WARP / warps, c.sm_blocks, room ? c.sm_shared / room : c.sm_blocks,
                     of_warp ? MAX_REGISTERS / PARTITIONS / of_warp * PARTITIONS / warps : c.sm_blocks};
    *each = threads > k->max_threads || (long)shared > function->dynamic || block_registers(k, threads) > MAX_REGISTERS ? 0 : 1024;
    for (int i = 0; i < 4; i++) if (limits[i] < *each) *each = limits[i];
    return SUCCESS;
}

// --- launches ------------------------------------------------------------------------------------------------------------

#define KEPT 4096
static struct launch { char name[64]; u32 grid[3], block[3], shared, cluster, pdl, count, sizes[MAX_PARAMETERS];
    unsigned char parameters[MAX_PARAMETERS][128]; u64 addresses[MAX_PARAMETERS]; } launches[KEPT];
static u64 launch_count;

static const struct attribute* attribute_of(const struct launch_config* config, int id) {
    for (u32 i = 0; i < config->count; i++) if (config->attributes[i].id == id) return &config->attributes[i];
    return NULL;
}
static u32 cluster_of(const struct launch_config* config) {
    const struct attribute* found = attribute_of(config, CLUSTER_DIMENSION);
    return found ? found->as.cluster.x * found->as.cluster.y * found->as.cluster.z : 1;
}
static status check_cluster(const struct launch_config* config, const struct kernel* kernel) {
    const struct attribute* asked_for = attribute_of(config, CLUSTER_DIMENSION);
    u32 sizes[3] = {1, 1, 1};
    for (int i = 0; i < 3; i++) if (kernel->cluster[i]) sizes[i] = kernel->cluster[i];
    if (asked_for) {
        const u32 given[3] = {asked_for->as.cluster.x, asked_for->as.cluster.y, asked_for->as.cluster.z};
        REFUSE(chip().cluster == 1, NOT_SUPPORTED);
        REFUSE(kernel->cluster[0] && memcmp(given, sizes, sizeof sizes), INVALID_CLUSTER_SIZE);
        memcpy(sizes, given, sizeof sizes);
    }
    REFUSE((u64)sizes[0] * sizes[1] * sizes[2] > (u64)chip().cluster, INVALID_CLUSTER_SIZE);
    for (int i = 0; i < 3; i++) REFUSE(!sizes[i] || config->grid[i] % sizes[i], INVALID_CLUSTER_SIZE);
    return SUCCESS;
}
static status check_launch(const struct launch_config* config, const struct function* function) {
    const struct kernel* k = &function->kernel;
    u64 threads = (u64)config->block[0] * config->block[1] * config->block[2];
    for (int i = 0; i < 3; i++) {
        REFUSE(!config->grid[i] || config->grid[i] > MAX_GRID[i], INVALID_VALUE);
        REFUSE(!config->block[i] || config->block[i] > MAX_BLOCK[i], INVALID_VALUE);
    }
    REFUSE(threads > (u64)k->max_threads, INVALID_VALUE);
    REFUSE(block_registers(k, threads) > MAX_REGISTERS, OUT_OF_RESOURCES);
    REFUSE((long)config->shared > function->dynamic, INVALID_VALUE);
    REFUSE(k->bytes > (driver_version() >= 12010 && chip().number >= 70 ? 32764 : 4096), OUT_OF_RESOURCES);
    for (u32 i = 0; i < config->count; i++)
        REFUSE(config->attributes[i].id != CLUSTER_DIMENSION && config->attributes[i].id != PROGRAMMATIC_SERIALIZATION, INVALID_VALUE);
    REFUSE(attribute_of(config, PROGRAMMATIC_SERIALIZATION) && chip().number < 90, NOT_SUPPORTED);
    return check_cluster(config, k);
}
// A kernel that is given memory that was freed runs into CUDA_ERROR_ILLEGAL_ADDRESS, which later calls return.
static void check_addresses(const struct function* function, void** parameters) {
    for (int i = 0; i < function->kernel.count && !pool; i++) {
        u64 address = 0;
        if (function->kernel.sizes[i] != 8) continue;
        memcpy(&address, parameters[i], 8);
        if (address >= (u64)range && address < (u64)top && !inside(address, 0)) sticky = ILLEGAL_ADDRESS;
    }
}
static status keep(const struct launch_config* config, struct function* function, void** parameters, struct stream* stream) {
    const struct kernel* k = &function->kernel;
    REFUSE(config->count > 4, INVALID_VALUE);
    struct node* node = append(stream);
    stream->at = node;
    node->config = *config;
    memcpy(node->attributes, config->attributes, config->count * sizeof *config->attributes);
    node->config.attributes = node->attributes;
    node->function = function;
    node->parameters = calloc(MAX_PARAMETERS, sizeof(void*));
    for (int i = 0; i < k->count; i++)
        node->parameters[i] = memcpy(aligned_alloc(128, up(k->sizes[i], 128)), parameters[i], k->sizes[i]);
    return SUCCESS;
}
static void note(const struct launch_config* config, const struct function* function, void** parameters) {
    const struct kernel* k = &function->kernel;
    if (launch_count++ >= KEPT) return;
    struct launch* kept = &launches[launch_count - 1];
    memset(kept, 0, sizeof *kept);
    snprintf(kept->name, sizeof kept->name, "%s", k->name);
    memcpy(kept->grid, config->grid, sizeof kept->grid);
    memcpy(kept->block, config->block, sizeof kept->block);
    kept->shared = config->shared;
    kept->cluster = cluster_of(config);
    kept->pdl = attribute_of(config, PROGRAMMATIC_SERIALIZATION) != NULL;
    kept->count = k->count;
    for (int i = 0; i < k->count; i++) {
        kept->sizes[i] = k->sizes[i];
        kept->addresses[i] = (u64)parameters[i];
        memcpy(kept->parameters[i], parameters[i], k->sizes[i] < 128 ? k->sizes[i] : 128);
    }
}
status cuLaunchKernelEx(const struct launch_config* config, struct function* function, void** parameters, void** extra) {
    ENTER(cuLaunchKernelEx);
    REFUSE(!IS(function, FUNCTION), INVALID_HANDLE);
    struct stream* stream = config->stream;
    USE(stream);
    status found = check_launch(config, function);
    REFUSE(found, found);
    if (stream->capturing) return keep(config, function, parameters, stream);
    if (pool) return pool_launch(function, config->grid, config->block, config->shared, cluster_of(config), parameters);
    check_addresses(function, parameters);
    note(config, function, parameters);
    return SUCCESS;
}

// --- graphs ----------------------------------------------------------------------------------------------------------------

status cuStreamBeginCapture_v2(struct stream* stream, int mode) {
    ENTER(cuStreamBeginCapture);
    REFUSE(!IS(stream, STREAM), INVALID_HANDLE);
    REFUSE(capturing || mode < 0 || mode > RELAXED, INVALID_VALUE);
    struct graph* graph = calloc(1, sizeof *graph);
    graph->magic = GRAPH;
    graph->end = &graph->first;
    graph->origin = stream;
    *stream = (struct stream){STREAM, graph, mode, 0, NULL, NULL};
    capturing = stream;
    return SUCCESS;
}
status cuStreamEndCapture(struct stream* stream, struct graph** graph) {
    *graph = NULL;
    REFUSE(!IS(stream, STREAM), INVALID_HANDLE);
    REFUSE(!stream->capturing || stream->capturing->origin != stream, INVALID_VALUE);
    struct stream ended = *stream;
    int invalid = ended.invalid, unjoined = 0;
    for (int i = 0; i < ended.capturing->forks; i++) {
        struct stream* forked = ended.capturing->forked[i];
        invalid |= forked->invalid;
        unjoined |= forked->at != forked->joined;
        *forked = (struct stream){STREAM};
    }
    *stream = (struct stream){STREAM};
    capturing = NULL;
    CHECK(cuStreamEndCapture);
    REFUSE(invalid, CAPTURE_INVALIDATED);
    REFUSE(unjoined, CAPTURE_UNJOINED);
    *graph = ended.capturing;
    return SUCCESS;
}
status cuGraphInstantiateWithFlags(struct graph** executable, struct graph* graph, u64 flags) {
    ENTER(cuGraphInstantiate);
    REFUSE(!IS(graph, GRAPH), INVALID_VALUE);
    *executable = malloc(sizeof **executable);
    **executable = *graph;
    (*executable)->magic = EXECUTABLE;
    alive++;
    return SUCCESS;
}
status cuGraphDestroy(struct graph* graph) { REFUSE(!IS(graph, GRAPH), INVALID_VALUE); graph->magic = GONE; return SUCCESS; }
status cuGraphUpload(struct graph* executable, struct stream* stream) {
    ENTER(cuGraphUpload);
    USE(stream);
    return IS(executable, EXECUTABLE) ? SUCCESS : INVALID_VALUE;
}
// whether a node may run: all before it on its stream are done, and so is the one that it waits for
static int ready(const struct graph* graph, const struct node* node) {
    for (struct node* before = graph->first; before != node; before = before->next)
        if (before->on == node->on && !before->done) return 0;
    return !node->awaited || node->awaited->done;
}
static struct node* next_of(const struct graph* graph, const char* order) {
    struct node* first = NULL;
    for (struct node* node = graph->first; node; node = node->next) {
        if (node->done || (order && !ready(graph, node))) continue;
        if (!order) return node;
        if (!first) first = node;
        if ((node->on == graph->origin) == !strcmp(order, "late")) return node;
    }
    return first;
}
status cuGraphLaunch(struct graph* executable, struct stream* stream) {
    ENTER(cuGraphLaunch);
    USE(stream);
    REFUSE(!IS(executable, EXECUTABLE), INVALID_VALUE);
    REFUSE(stream->capturing, NOT_SUPPORTED);  // a graph within a graph: ours captures none
    const char* order = getenv("STUB_ORDER");
    for (struct node* node = executable->first; node; node = node->next) node->done = 0;
    for (struct node* node; (node = next_of(executable, order)); node->done = 1) {
        if (node->call) node->call(node->argument);
        if (!node->function) continue;
        status found = cuLaunchKernelEx(&node->config, node->function, node->parameters, NULL);
        REFUSE(found, found);
    }
    return SUCCESS;
}
status cuGraphExecDestroy(struct graph* executable) {
    REFUSE(!IS(executable, EXECUTABLE), INVALID_VALUE);
    executable->magic = GONE;
    alive--;
    return SUCCESS;
}
// where a device's memory is on the host; NULL for memory that is not allocated
EXPORT void* stub_memory(u64 address, size_t size) {
    return pool ? HOST(address) : inside(address, size) ? (void*)address : NULL;
}
EXPORT int stub_graphs(void) { return alive; }
EXPORT u64 stub_launches(void) { return launch_count; }
EXPORT const struct launch* stub_launch(int index) { return &launches[index]; }
EXPORT size_t stub_held(void) { return held; }
EXPORT void stub_forget(void) {  // a process of its own, as far as the test can tell
    for (int i = 0; i < block_count; i++) blocks[i].freed = 1;
    sticky = SUCCESS;
    initialized = current = 0;
    held = 0;
    capturing = NULL;
}

// --- tensor maps -------------------------------------------------------------------------------------------------------------

// A tensor map here is its arguments in a row, so that a test can read them back.
status cuTensorMapEncodeTiled(u64* map, u32 dtype, u32 rank, void* address, const u64* dims, const u64* strides,
                              const u32* box, const u32* steps, int interleave, u32 swizzle, int promotion, int fill_with) {
    static const int sizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};  // CUtensorMapDataType
    ENTER(cuTensorMapEncodeTiled);
    REFUSE(chip().number < 90 || interleave || swizzle > 3 || dtype >= sizeof sizes / sizeof *sizes, INVALID_VALUE);
    REFUSE((u64)map % 64 || (u64)address % 16 || rank < 1 || rank > 5, INVALID_VALUE);
    u64 inner = (u64)box[0] * sizes[dtype];
    REFUSE(inner % 16 || (swizzle && inner > 16u << swizzle), INVALID_VALUE);
    for (u32 i = 0; i < rank; i++) {
        REFUSE(!dims[i] || dims[i] > 1ull << 32 || !box[i] || box[i] > 256 || !steps[i] || steps[i] > 8, INVALID_VALUE);
        REFUSE(i + 1 < rank && (strides[i] % 16 || strides[i] >= 1ull << 40), INVALID_VALUE);
    }
    map[0] = (u64)address;
    map[1] = dtype | (u64)rank << 8 | (u64)swizzle << 16;
    for (u32 i = 0; i < rank; i++) {
        map[2 + i] = dims[i] | (u64)box[i] << 32;
        if (i + 1 < rank) map[8 + i] = strides[i];
    }
    return SUCCESS;
}

// --- finding functions -------------------------------------------------------------------------------------------------------

// With the version of CUDA that brought each: cudaTypedefs.h, the PFN_..._v type of the form that is meant here.
#define ENTRY(name, since) {#name, since, (void*)name}
static const struct { const char* name; int since; void* function; } table[] = {
    ENTRY(cuInit, 2000), ENTRY(cuDriverGetVersion, 2020), ENTRY(cuDeviceGetCount, 2000), ENTRY(cuDeviceGet, 2000),
    ENTRY(cuDeviceGetName, 2000), ENTRY(cuDeviceGetAttribute, 2000), ENTRY(cuDevicePrimaryCtxRetain, 7000),
    ENTRY(cuCtxSetCurrent, 4000), ENTRY(cuStreamCreate, 2000), ENTRY(cuStreamSynchronize, 2000),
    ENTRY(cuEventCreate, 2000), ENTRY(cuEventRecord, 2000),
    ENTRY(cuStreamWaitEvent, 3020), ENTRY(cuCtxGetCurrent, 4000), ENTRY(cuCtxGetDevice, 2000), ENTRY(cuDeviceGetUuid, 9020),
    ENTRY(cuEventSynchronize, 2000), ENTRY(cuEventQuery, 2000),
    {"cuEventElapsedTime", 2000, (void*)cuEventElapsedTime_v2}, {"cuEventDestroy", 4000, (void*)cuEventDestroy_v2},
    ENTRY(cuMemGetInfo, 3020), ENTRY(cuMemAlloc, 3020), ENTRY(cuMemFree, 3020), ENTRY(cuMemHostAlloc, 2020),
    ENTRY(cuMemsetD8Async, 3020), ENTRY(cuMemcpyHtoDAsync, 3020), ENTRY(cuMemcpyDtoHAsync, 3020),
    ENTRY(cuModuleLoadData, 2000), ENTRY(cuModuleGetFunction, 2000), ENTRY(cuFuncGetAttribute, 2020),
    ENTRY(cuFuncSetAttribute, 9000), ENTRY(cuFuncGetParamInfo, 12040),
    ENTRY(cuOccupancyMaxActiveBlocksPerMultiprocessor, 6050), ENTRY(cuLaunchKernelEx, 11060),
    ENTRY(cuTensorMapEncodeTiled, 12000), {"cuStreamBeginCapture", 10010, (void*)cuStreamBeginCapture_v2},
    ENTRY(cuStreamEndCapture, 10000), ENTRY(cuGraphInstantiateWithFlags, 11040), ENTRY(cuGraphDestroy, 10000),
    ENTRY(cuGraphUpload, 11010), ENTRY(cuGraphLaunch, 10000), ENTRY(cuGraphExecDestroy, 10000),
};
EXPORT status cuGetProcAddress_v2(const char* name, void** function, int version, u64 flags, int* found) {
    const char* lacking = getenv("STUB_LACKS");
    *function = NULL;
    if (found) *found = 1;  // CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
    REFUSE(version > driver_version(), INVALID_VALUE);
    if (!strcmp(name, "cuGetProcAddress")) *function = (void*)cuGetProcAddress_v2;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, name) && table[i].since <= driver_version() && !(lacking && !strcmp(lacking, name)))
            *function = table[i].function;
    if (*function && found) *found = 0;
    return SUCCESS;
}
