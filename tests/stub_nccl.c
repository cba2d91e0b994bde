// A stand-in for libnccl.so.2, built by tests/stub.py: the functions that plugins/nccl calls, between processes of one
// host, on the memory of the stub driver (stub_driver.c), which must be loaded.
//
// Ranks meet in a file of STUB_NCCL_FOLDER, named by their id. A collective runs when its stream comes to it, at once or
// whenever its graph is launched: each rank puts its call and its data into the file, all compare the calls, and each
// computes its result, in the order of ranks. Held against the manual: handles, counts, types, operations, roots,
// in-place addresses, the config's size, magic and version, algorithms by collective, groups that end. Ranks that call
// different things, and a rank that does not come within STUB_NCCL_WAIT seconds (20), are errors of the communicator.
//
// The environment chooses: STUB_NCCL_VERSION (23203), STUB_NCCL_FAIL = "function:status", STUB_NCCL_ASYNC (a status that
// ncclCommGetAsyncError gives once something was called), STUB_NCCL_HANGS (collectives that never end).

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
typedef int status;
enum { SUCCESS = 0, CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6 };  // ncclResult_t
enum { U8 = 1, F32 = 7, F64 = 8, BF16 = 9, SUM = 0 };  // ncclDataType_t, ncclRedOp_t
enum { RANKS = 8, ROOM = 1 << 22, KEPT = 4096 };
#define MAGIC 0xcafebeef

struct id { char bytes[128]; };
struct config { size_t size; unsigned magic, version; void* ext; int ctas[3], cluster; const char* algorithm; int force, policy;
                uint64_t tag; void* event; };
struct call { char name[24], algorithm[16]; size_t count; int type, op, root, captured; void* stream; uint64_t send, receive; };
struct shared { int arrived, gone, met; struct call calls[RANKS]; unsigned char data[RANKS][ROOM]; };
struct comm { unsigned magic; int size, rank, turns; struct shared* file; status error; };
struct work { struct comm* comm; struct call call; };

static status (*enqueue)(void*, void (*)(void*), void*, size_t);
static void* (*memory)(uint64_t, size_t);
static int (*captures)(void*);
static void (*busy)(int);
static char last[256];
static struct call calls[KEPT];
static int call_count, depth, alive;
EXPORT int stub_nccl_calls(void) { return call_count; }
EXPORT const struct call* stub_nccl_call(int index) { return &calls[index]; }
EXPORT int stub_nccl_alive(void) { return alive; }

static status wrong(status code, const char* words) { snprintf(last, sizeof last, "%s", words); return code; }
static status asked(const char* function) {
    const char* text = getenv("STUB_NCCL_FAIL");
    size_t length = strlen(function);
    return text && !strncmp(text, function, length) && text[length] == ':' ? wrong(atoi(text + length + 1), "as the test asked") : SUCCESS;
}
#define CHECK(function) do { status found_ = asked(#function); if (found_) return found_; } while (0)
#define REFUSE(bad, code, words) do { if (bad) return wrong(code, words); } while (0)

static void find_driver(void) {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW);
    enqueue = dlsym(driver, "stub_enqueue");
    memory = dlsym(driver, "stub_memory");
    captures = dlsym(driver, "stub_captures");
    busy = dlsym(driver, "stub_busy");
}
static int version(void) { const char* text = getenv("STUB_NCCL_VERSION"); return text ? atoi(text) : 23203; }
status ncclGetVersion(int* found) { *found = version(); return SUCCESS; }
const char* ncclGetErrorString(status code) {
    static const char* const words[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
        "invalid argument", "invalid usage", "remote process exited or there was a network error", "NCCL operation in progress"};
    return code >= 0 && code < 8 ? words[code] : "unknown result code";
}
const char* ncclGetLastError(void* comm) { return last; }

// --- communicators -------------------------------------------------------------------------------------------------------

status ncclGetUniqueId(struct id* id) {
    CHECK(ncclGetUniqueId);
    const char* place = getenv("NCCL_COMM_ID");
    memset(id, 0, sizeof *id);
    if (place) snprintf(id->bytes, sizeof id->bytes, "%s", place);
    else snprintf(id->bytes, sizeof id->bytes, "%d-%ld", getpid(), (long)clock());
    return SUCCESS;
}
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
// All ranks of a communicator come here, for the `turns`-th time; SUCCESS when all have.
static status barrier(struct comm* comm) {
    const char* text = getenv("STUB_NCCL_WAIT");
    double end = now() + (text ? atof(text) : 20);
    int wanted = comm->size * ++comm->turns;
    __atomic_add_fetch(&comm->file->arrived, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&comm->file->arrived, __ATOMIC_SEQ_CST) < wanted) {
        if (__atomic_load_n(&comm->file->gone, __ATOMIC_SEQ_CST) || now() > end) return REMOTE_ERROR;
        usleep(50);
    }
    return SUCCESS;
}
status ncclCommInitRank(struct comm** found, int size, struct id id, int rank) {
    CHECK(ncclCommInitRank);
    find_driver();
    REFUSE(!enqueue, CUDA_ERROR, "no CUDA driver");
    REFUSE(size < 1 || size > RANKS || rank < 0 || rank >= size, INVALID_ARGUMENT, "rank");
    char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("STUB_NCCL_FOLDER"), id.bytes);
    for (char* c = path + strlen(getenv("STUB_NCCL_FOLDER")) + 1; *c; c++) if (*c == '/') *c = '_';
    int file = open(path, O_RDWR | O_CREAT, 0600);
    REFUSE(file < 0 || ftruncate(file, sizeof(struct shared)), SYSTEM_ERROR, "no file to meet in");
    struct comm* comm = calloc(1, sizeof *comm);
    *comm = (struct comm){MAGIC, size, rank, 0, mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), 0};
    close(file);
    REFUSE(barrier(comm), REMOTE_ERROR, "not all ranks came");
    alive++;
    *found = comm;
    return SUCCESS;
}
#define COMM(comm) REFUSE(!(comm) || (comm)->magic != MAGIC, INVALID_ARGUMENT, "comm argument is no communicator")
status ncclCommAbort(struct comm* comm) {
    CHECK(ncclCommAbort);
    COMM(comm);
    __atomic_store_n(&comm->file->gone, 1, __ATOMIC_SEQ_CST);
    alive--;
    comm->magic = 0;
    return SUCCESS;
}
status ncclCommGetAsyncError(struct comm* comm, status* error) {
    CHECK(ncclCommGetAsyncError);
    COMM(comm);
    const char* text = getenv("STUB_NCCL_ASYNC");
    *error = text && call_count ? atoi(text) : comm->error;
    return SUCCESS;
}
status ncclGroupStart(void) { CHECK(ncclGroupStart); depth++; return SUCCESS; }
status ncclGroupEnd(void) { CHECK(ncclGroupEnd); REFUSE(!depth, INVALID_USAGE, "no group was started"); depth--; return SUCCESS; }

// --- collectives -----------------------------------------------------------------------------------------------------------

static size_t width(int type) { return type == U8 ? 1 : type == BF16 ? 2 : type == F32 ? 4 : type == F64 ? 8 : 0; }
static float from_bf16(uint16_t bits) { uint32_t wide = (uint32_t)bits << 16; float value; memcpy(&value, &wide, 4); return value; }
static uint16_t to_bf16(float value) { uint32_t bits; memcpy(&bits, &value, 4); return (bits + 0x7fff + (bits >> 16 & 1)) >> 16; }
// out[i] = sum over ranks, in their order, of element `first + i` of their data
static void sum(const struct comm* comm, void* out, size_t first, size_t count, int type) {
    for (size_t i = 0; i < count; i++) {
        double total = 0;
        float narrow = 0;
        for (int r = 0; r < comm->size; r++) {
            const unsigned char* at = comm->file->data[r] + (first + i) * width(type);
            if (type == F64) total += *(const double*)at;
            else narrow += type == F32 ? *(const float*)at : from_bf16(*(const uint16_t*)at);
        }
        if (type == F64) ((double*)out)[i] = total;
        else if (type == F32) ((float*)out)[i] = narrow;
        else ((uint16_t*)out)[i] = to_bf16(narrow);
    }
}
static int is(const struct call* call, const char* name) { return !strcmp(call->name, name); }
static size_t sent(const struct comm* comm, const struct call* call) {  // elements that a rank gives
    if (is(call, "Broadcast") && call->root != comm->rank) return 0;
    return call->count * (is(call, "ReduceScatter") ? comm->size : 1);
}
static size_t received(const struct comm* comm, const struct call* call) {
    if (is(call, "Reduce") && call->root != comm->rank) return 0;
    return call->count * (is(call, "AllGather") ? comm->size : 1);
}
static void run(void* argument) {
    struct work* work = argument;
    struct comm* comm = work->comm;
    struct call* call = &work->call;
    size_t size = width(call->type), piece = ROOM / 2 / size / comm->size * comm->size;
    if (comm->error) return;
    if (call->count * size * comm->size > ROOM && !is(call, "AllReduce")) { comm->error = SYSTEM_ERROR; return; }
    for (size_t done = 0; done < call->count; done += piece) {  // a long AllReduce in pieces
        size_t count = call->count - done < piece ? call->count - done : piece;
        if (!is(call, "AllReduce")) { count = call->count; piece = count; }
        comm->file->calls[comm->rank] = *call;
        size_t given = is(call, "AllReduce") ? count : sent(comm, call);
        if (given) memcpy(comm->file->data[comm->rank], memory(call->send + done * size, given * size), given * size);
        if ((comm->error = barrier(comm))) return;
        for (int r = 0; r < comm->size; r++) {
            const struct call* other = &comm->file->calls[r];
            if (strcmp(other->name, call->name) || other->count != call->count || other->type != call->type ||
                other->root != call->root || strcmp(other->algorithm, call->algorithm)) comm->error = INVALID_USAGE;
        }
        size_t taken = is(call, "AllReduce") ? count : received(comm, call);
        unsigned char* out = taken ? memory(call->receive + done * size, taken * size) : NULL;
        if (comm->error) wrong(INVALID_USAGE, "the ranks called different collectives");
        else if (is(call, "AllReduce") || (is(call, "Reduce") && out)) sum(comm, out, 0, count, call->type);
        else if (is(call, "ReduceScatter")) sum(comm, out, comm->rank * count, count, call->type);
        else if (is(call, "Broadcast")) memcpy(out, comm->file->data[call->root], count * size);
        else if (is(call, "AllGather"))
            for (int r = 0; r < comm->size; r++) memcpy(out + r * count * size, comm->file->data[r], count * size);
        status met = barrier(comm);
        if (!comm->error) comm->error = met;
        if (comm->error) return;
    }
}
static status begin(const char* name, uint64_t send, uint64_t receive, size_t count, int type, int op, int root, struct comm* comm,
                    void* stream, const struct config* config) {
    char function[40];
    snprintf(function, sizeof function, "nccl%s", name);
    status found = asked(function);
    if (found) return found;
    COMM(comm);
    struct work work = {comm, {"", "", count, type, op, root, captures(stream), stream, send, receive}};
    snprintf(work.call.name, sizeof work.call.name, "%s", name);
    if (config) {
        REFUSE(version() < 23100, INVALID_USAGE, "no per-call config before 2.31");
        REFUSE(config->magic != MAGIC || config->size != sizeof *config - (config->version < 23200 ? 8 : 0) ||
               config->version > (unsigned)version(), INVALID_ARGUMENT, "config is not initialized");
        const char* named = config->algorithm ? config->algorithm : "";
        int every = is(&work.call, "AllReduce"), shared = every || is(&work.call, "ReduceScatter") || is(&work.call, "AllGather");
        REFUSE(strcmp(named, "ring") && !(every && !strcmp(named, "tree")) && !(shared && !strcmp(named, "nvls")), INVALID_USAGE,
               "algSelection cannot be honored");
        snprintf(work.call.algorithm, sizeof work.call.algorithm, "%s", named);
    }
    REFUSE(!width(type), INVALID_ARGUMENT, "datatype");
    REFUSE(op != SUM, INVALID_ARGUMENT, "op");
    REFUSE(root < 0 || root >= comm->size, INVALID_ARGUMENT, "root");
    REFUSE(sent(comm, &work.call) && !memory(send, sent(comm, &work.call) * width(type)), INVALID_ARGUMENT, "sendbuff is not a valid pointer");
    REFUSE(received(comm, &work.call) && !memory(receive, received(comm, &work.call) * width(type)), INVALID_ARGUMENT, "recvbuff is not a valid pointer");
    uint64_t end = send + sent(comm, &work.call) * width(type), own = comm->rank * count * width(type);
    int overlap = receive < end && send < receive + received(comm, &work.call) * width(type);
    int in_place = is(&work.call, "ReduceScatter") ? receive == send + own : is(&work.call, "AllGather") ? send == receive + own : send == receive;
    REFUSE(sent(comm, &work.call) && received(comm, &work.call) && overlap && !in_place, INVALID_USAGE, "buffers overlap and are not in place");
    if (call_count < KEPT) calls[call_count] = work.call;
    call_count++;
    if (getenv("STUB_NCCL_HANGS")) { busy(1); return SUCCESS; }
    return enqueue(stream, run, &work, sizeof work) ? wrong(CUDA_ERROR, "the stream is invalid") : SUCCESS;
}
#define BOTH(name, parameters, ...) \
    status nccl##name parameters { return begin(#name, __VA_ARGS__, NULL); } \
    status nccl##name##Config PARAMETERS_OF(parameters) { return begin(#name, __VA_ARGS__, config); }
#define STRIP(...) __VA_ARGS__
#define PARAMETERS_OF(parameters) (STRIP parameters, const struct config* config)
BOTH(AllReduce, (uint64_t send, uint64_t receive, size_t count, int type, int op, struct comm* comm, void* stream),
     send, receive, count, type, op, 0, comm, stream)
BOTH(ReduceScatter, (uint64_t send, uint64_t receive, size_t count, int type, int op, struct comm* comm, void* stream),
     send, receive, count, type, op, 0, comm, stream)
BOTH(AllGather, (uint64_t send, uint64_t receive, size_t count, int type, struct comm* comm, void* stream),
     send, receive, count, type, SUM, 0, comm, stream)
BOTH(Reduce, (uint64_t send, uint64_t receive, size_t count, int type, int op, int root, struct comm* comm, void* stream),
     send, receive, count, type, op, root, comm, stream)
BOTH(Broadcast, (uint64_t send, uint64_t receive, size_t count, int type, int root, struct comm* comm, void* stream),
     send, receive, count, type, SUM, root, comm, stream)
