// A stand-in for libcuda.so.1, built by the tests: enough of the driver to run the host layer where there is no GPU.
//
// Device memory is the host's. Launches are not run but kept, with copies of their parameters, for the test to read
// through stub_launch; after stub_simulate, memory and launches are the test's own, so that it can run them in the
// simulator. What it reports is set by the environment: STUB_VERSION (13000), STUB_GPUS (1), STUB_MAJOR and
// STUB_MINOR (9, 0), STUB_MEMORY (bytes), and STUB_FAIL = "function:status" or "function:status:nth call".

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int status;
typedef unsigned int u32;
typedef unsigned long long u64;
#define EXPORT __attribute__((visibility("default")))
#define SUCCESS 0
#define INVALID 1
#define OUT_OF_MEMORY 2
#define MAX_PARAMETERS 64
#define MAX_LAUNCHES 4096

static long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}

// the status that STUB_FAIL asks of this call of `function`; the error sticks for those above 699
static status sticky = SUCCESS;
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
    if (code >= 700) sticky = code;
    return code;
}
#define CHECK(function) do { status found = asked(#function); if (found) return found; } while (0)

// --- device, context, streams, events ----------------------------------------------------------------------------

status cuInit(u32 flags) { CHECK(cuInit); return SUCCESS; }
status cuDriverGetVersion(int* version) { *version = setting("STUB_VERSION", 13000); return SUCCESS; }
status cuDeviceGetCount(int* count) { *count = setting("STUB_GPUS", 1); return SUCCESS; }
status cuDeviceGet(int* device, int ordinal) { *device = ordinal; return SUCCESS; }
status cuDeviceGetName(char* name, int length, int device) { snprintf(name, length, "Stub GPU"); return SUCCESS; }
status cuDeviceGetAttribute(int* value, int kind, int device) {
    *value = kind == 75 ? setting("STUB_MAJOR", 9) : kind == 76 ? setting("STUB_MINOR", 0) : kind == 16 ? 132
           : kind == 97 ? 232448 : 0;  // capability, multiprocessors, shared memory of a thread block
    return SUCCESS;
}
status cuDevicePrimaryCtxRetain(void** context, int device) { CHECK(cuDevicePrimaryCtxRetain); *context = (void*)8; return SUCCESS; }
status cuCtxSetCurrent(void* context) { return SUCCESS; }
status cuStreamCreate(void** stream, u32 flags) { *stream = (void*)16; return SUCCESS; }
status cuStreamSynchronize(void* stream) { CHECK(cuStreamSynchronize); return SUCCESS; }
status cuEventCreate(void** event, u32 flags) { *event = (void*)24; return SUCCESS; }
status cuEventRecord(void* event, void* stream) { CHECK(cuEventRecord); return SUCCESS; }
status cuEventElapsedTime_v2(float* milliseconds, void* from, void* to) { *milliseconds = 1.5f; return SUCCESS; }
status cuEventDestroy_v2(void* event) { return SUCCESS; }
status cuEventSynchronize(void* event) { CHECK(cuEventSynchronize); return SUCCESS; }

// --- memory --------------------------------------------------------------------------------------------------------

// what a test puts in place of memory and launches: addresses then count from `pool`
static unsigned char* pool;
static u64 (*pool_allocate)(size_t size);
static status (*pool_launch)(void* function, const u32* grid, const u32* block, u32 shared, u32 cluster, void** parameters);
static int (*pool_sizes)(void* function, int index);
EXPORT void stub_simulate(unsigned char* base, void* allocate, void* launch, void* sizes) {
    pool = base;
    pool_allocate = allocate;
    pool_launch = launch;
    pool_sizes = sizes;
}
#define HOST(address) ((void*)(pool + (address)))

static size_t held;
static struct { u64 address; size_t size; void* raw; } blocks[4096];
static size_t capacity(void) { return setting("STUB_MEMORY", 1L << 30); }

status cuMemGetInfo(size_t* free_bytes, size_t* total) { *total = capacity(); *free_bytes = *total - held; return SUCCESS; }
status cuMemAlloc(u64* address, size_t size) {
    CHECK(cuMemAlloc);
    if (held + size > capacity()) return OUT_OF_MEMORY;
    for (int i = 0; i < 4096; i++) {
        if (blocks[i].raw) continue;
        if (pool) {
            blocks[i].raw = pool;
            blocks[i].address = *address = pool_allocate(size);
            blocks[i].size = size;
            held += size;
            return SUCCESS;
        }
        blocks[i].raw = malloc(size + 512);
        memset(blocks[i].raw, 0xa5, size + 512);  // memory that a driver gives is not zero
        blocks[i].address = ((u64)blocks[i].raw + 511) / 512 * 512;
        blocks[i].size = size;
        held += size;
        *address = blocks[i].address;
        return SUCCESS;
    }
    return OUT_OF_MEMORY;
}
status cuMemFree(u64 address) {
    for (int i = 0; i < 4096; i++) {
        if (!blocks[i].raw || blocks[i].address != address) continue;
        if (!pool) free(blocks[i].raw);
        blocks[i].raw = NULL;
        held -= blocks[i].size;
        return SUCCESS;
    }
    return INVALID;
}
static int inside(u64 address, size_t size) {
    for (int i = 0; i < 4096; i++)
        if (blocks[i].raw && address >= blocks[i].address && address + size <= blocks[i].address + blocks[i].size) return 1;
    return 0;
}
status cuMemHostAlloc(void** pointer, size_t size, u32 flags) { *pointer = calloc(1, size); return SUCCESS; }
status cuMemsetD8Async(u64 address, unsigned char value, size_t size, void* stream) {
    if (!inside(address, size)) return INVALID;
    memset(HOST(address), value, size);
    return SUCCESS;
}
status cuMemcpyHtoDAsync(u64 target, const void* source, size_t size, void* stream) {
    CHECK(cuMemcpyHtoDAsync);
    if (!inside(target, size)) return INVALID;
    memcpy(HOST(target), source, size);
    return SUCCESS;
}
status cuMemcpyDtoHAsync(void* target, u64 source, size_t size, void* stream) {
    CHECK(cuMemcpyDtoHAsync);
    if (!inside(source, size)) return INVALID;
    memcpy(target, HOST(source), size);
    return SUCCESS;
}

// --- modules and functions -----------------------------------------------------------------------------------------

// STUB_PARAMETERS = "name=4,8,8;other=8" tells the sizes of kernels' parameters; without it the host's are taken.
struct function { char name[64]; int largest_shared; };
static struct function functions[1024];
static int function_count;

status cuModuleLoadData(void** module, const void* image) {
    CHECK(cuModuleLoadData);
    if (memcmp(image, "\177ELF", 4)) return 200;  // CUDA_ERROR_INVALID_IMAGE
    *module = (void*)image;
    return SUCCESS;
}
status cuModuleGetFunction(void** function, void* module, const char* name) {
    CHECK(cuModuleGetFunction);
    struct function* found = &functions[function_count++];
    snprintf(found->name, sizeof found->name, "%s", name);
    found->largest_shared = 48 * 1024;
    *function = found;
    return SUCCESS;
}
status cuFuncSetAttribute(void* function, int kind, int value) {
    if (kind == 8) ((struct function*)function)->largest_shared = value;
    return SUCCESS;
}
static int sizes_of(const char* name, int* sizes) {
    const char* text = getenv("STUB_PARAMETERS");
    size_t length = strlen(name);
    int count = 0;
    while (text && *text) {
        if (!strncmp(text, name, length) && text[length] == '=') {
            for (text += length + 1; count < MAX_PARAMETERS; text++) {
                sizes[count++] = strtol(text, (char**)&text, 10);
                if (*text != ',') return count;
            }
        }
        text = strchr(text, ';');
        if (text) text++;
    }
    return -1;
}
status cuFuncGetParamInfo(void* function, size_t index, size_t* offset, size_t* size) {
    int sizes[MAX_PARAMETERS], count = sizes_of(((struct function*)function)->name, sizes);
    if (pool) {
        *offset = 0;
        *size = pool_sizes(function, index);
        return *size ? SUCCESS : INVALID;
    }
    if (count < 0 || (int)index >= count) return INVALID;
    *offset = 0;
    *size = sizes[index];
    return SUCCESS;
}
status cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks_each, void* function, int threads, size_t shared) {
    *blocks_each = 2048 / threads;
    return SUCCESS;
}

// --- launches ------------------------------------------------------------------------------------------------------

struct attribute { int id; char pad[4]; union { char bytes[64]; struct { u32 x, y, z; } cluster; int value; }; };
struct config { u32 grid[3], block[3], shared; void* stream; struct attribute* attributes; u32 count; };
struct launch { char name[64]; u32 grid[3], block[3], shared, cluster, pdl, count, sizes[MAX_PARAMETERS];
                unsigned char parameters[MAX_PARAMETERS][128]; u64 addresses[MAX_PARAMETERS]; };
static struct launch launches[MAX_LAUNCHES];
static int launch_count;

// A graph keeps what was launched while its stream was captured: each launch with its own copy of the parameters, as
// the driver does. It is launched by launching them.
struct node { struct config config; struct attribute attributes[4]; void* function; void** parameters; struct node* next; };
struct graph { struct node *first, **end; };
static struct graph* capturing;
static int alive;  // executable graphs that nobody has destroyed
static int parameter_sizes(void* function, int* sizes);

static status keep(const struct config* config, void* function, void** parameters) {
    struct node* node = calloc(1, sizeof *node);
    int sizes[MAX_PARAMETERS], count = parameter_sizes(function, sizes);
    node->config = *config;
    if (config->count > 4) return INVALID;
    memcpy(node->attributes, config->attributes, config->count * sizeof *config->attributes);
    node->config.attributes = node->attributes;
    node->function = function;
    node->parameters = calloc(MAX_PARAMETERS, sizeof(void*));
    for (int i = 0; i < count; i++) {
        node->parameters[i] = aligned_alloc(128, (sizes[i] + 127) / 128 * 128);
        memcpy(node->parameters[i], parameters[i], sizes[i]);
    }
    *capturing->end = node;
    capturing->end = &node->next;
    return SUCCESS;
}

status cuLaunchKernelEx(const struct config* config, void* function, void** parameters, void** extra) {
    CHECK(cuLaunchKernelEx);
    struct function* called = function;
    if ((int)config->shared > called->largest_shared) return INVALID;
    if (capturing) return keep(config, function, parameters);
    if (pool) {
        u32 cluster = 1;
        for (u32 i = 0; i < config->count; i++)
            if (config->attributes[i].id == 4) cluster = config->attributes[i].cluster.x;
        return pool_launch(function, config->grid, config->block, config->shared, cluster, parameters);
    }
    if (launch_count == MAX_LAUNCHES) return SUCCESS;
    struct launch* kept = &launches[launch_count++];
    int sizes[MAX_PARAMETERS], count = sizes_of(called->name, sizes);
    memset(kept, 0, sizeof *kept);
    memcpy(kept->name, called->name, sizeof kept->name);
    memcpy(kept->grid, config->grid, sizeof kept->grid);
    memcpy(kept->block, config->block, sizeof kept->block);
    kept->shared = config->shared;
    kept->cluster = 1;
    for (u32 i = 0; i < config->count; i++) {
        if (config->attributes[i].id == 4) kept->cluster = config->attributes[i].cluster.x;
        if (config->attributes[i].id == 6) kept->pdl = config->attributes[i].value;
    }
    kept->count = count < 0 ? 0 : count;
    for (int i = 0; i < count; i++) {
        kept->sizes[i] = sizes[i];
        kept->addresses[i] = (u64)parameters[i];
        memcpy(kept->parameters[i], parameters[i], sizes[i]);
    }
    return SUCCESS;
}
static int parameter_sizes(void* function, int* sizes) {
    int count = 0;
    if (!pool) return sizes_of(((struct function*)function)->name, sizes);
    while (count < MAX_PARAMETERS && (sizes[count] = pool_sizes(function, count))) count++;
    return count;
}
status cuStreamBeginCapture_v2(void* stream, int mode) {
    CHECK(cuStreamBeginCapture);
    if (capturing || mode != 2) return INVALID;
    capturing = calloc(1, sizeof *capturing);
    capturing->end = &capturing->first;
    return SUCCESS;
}
status cuStreamEndCapture(void* stream, struct graph** graph) {
    *graph = capturing;
    capturing = NULL;
    CHECK(cuStreamEndCapture);
    return *graph ? SUCCESS : INVALID;
}
status cuGraphInstantiateWithFlags(struct graph** executable, struct graph* graph, u64 flags) {
    CHECK(cuGraphInstantiate);
    *executable = malloc(sizeof **executable);
    **executable = *graph;
    alive++;
    return SUCCESS;
}
status cuGraphDestroy(struct graph* graph) { free(graph); return SUCCESS; }
status cuGraphUpload(struct graph* executable, void* stream) { return SUCCESS; }
status cuGraphLaunch(struct graph* executable, void* stream) {
    CHECK(cuGraphLaunch);
    for (struct node* node = executable->first; node; node = node->next) {
        status found = cuLaunchKernelEx(&node->config, node->function, node->parameters, NULL);
        if (found) return found;
    }
    return SUCCESS;
}
status cuGraphExecDestroy(struct graph* executable) { free(executable); alive--; return SUCCESS; }
EXPORT int stub_graphs(void) { return alive; }
EXPORT int stub_launches(void) { return launch_count; }
EXPORT const struct launch* stub_launch(int index) { return &launches[index]; }
EXPORT size_t stub_held(void) { return held; }

// A tensor map here is its arguments in a row, so that a test can read them back.
status cuTensorMapEncodeTiled(u64* map, int dtype, u32 rank, void* address, const u64* dims, const u64* strides,
                              const u32* box, const u32* steps, int interleave, int swizzle, int promotion, int fill) {
    CHECK(cuTensorMapEncodeTiled);
    if ((u64)map % 64 || (u64)address % 16) return INVALID;
    map[0] = (u64)address;
    map[1] = dtype | (u64)rank << 8 | (u64)swizzle << 16;
    for (u32 i = 0; i < rank; i++) {
        map[2 + i] = dims[i] | (u64)box[i] << 32;
        if (i + 1 < rank) map[8 + i] = strides[i];
        if (steps[i] != 1) return INVALID;
    }
    return SUCCESS;
}

// --- finding functions -----------------------------------------------------------------------------------------------

#define ENTRY(name) {#name, (void*)name}
static const struct { const char* name; void* function; } table[] = {
    ENTRY(cuInit), ENTRY(cuDriverGetVersion), ENTRY(cuDeviceGetCount), ENTRY(cuDeviceGet), ENTRY(cuDeviceGetName),
    ENTRY(cuDeviceGetAttribute), ENTRY(cuDevicePrimaryCtxRetain), ENTRY(cuCtxSetCurrent), ENTRY(cuStreamCreate),
    ENTRY(cuStreamSynchronize), ENTRY(cuEventCreate), ENTRY(cuEventRecord), ENTRY(cuEventSynchronize),
    ENTRY(cuMemGetInfo), ENTRY(cuMemAlloc), ENTRY(cuMemFree), ENTRY(cuMemHostAlloc), ENTRY(cuMemsetD8Async),
    ENTRY(cuMemcpyHtoDAsync), ENTRY(cuMemcpyDtoHAsync), ENTRY(cuModuleLoadData), ENTRY(cuModuleGetFunction),
    ENTRY(cuFuncSetAttribute), ENTRY(cuFuncGetParamInfo), ENTRY(cuOccupancyMaxActiveBlocksPerMultiprocessor),
    ENTRY(cuLaunchKernelEx), ENTRY(cuTensorMapEncodeTiled), {"cuStreamBeginCapture", (void*)cuStreamBeginCapture_v2},
    ENTRY(cuStreamEndCapture), ENTRY(cuGraphInstantiateWithFlags), ENTRY(cuGraphDestroy), ENTRY(cuGraphUpload),
    ENTRY(cuGraphLaunch), ENTRY(cuGraphExecDestroy), {"cuEventElapsedTime", (void*)cuEventElapsedTime_v2},
    {"cuEventDestroy", (void*)cuEventDestroy_v2},
};
EXPORT status cuGetProcAddress_v2(const char* name, void** function, int version, u64 flags, int* found) {
    if (found) *found = 0;
    if (!strcmp(name, "cuGetProcAddress")) {
        *function = (void*)cuGetProcAddress_v2;
        return SUCCESS;
    }
    const char* lacking = getenv("STUB_LACKS");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(table[i].name, name) || (lacking && !strcmp(lacking, name))) continue;
        *function = table[i].function;
        return SUCCESS;
    }
    *function = NULL;
    if (found) *found = 1;
    return 500;  // CUDA_ERROR_NOT_FOUND
}
