// A stand-in for libcublasLt.so.13, built by the tests: as much of the library as the plugin calls, computed at once on
// the host, in doubles and element by element, with the manual's meaning of every descriptor.
//
// Addresses count from the base that stub_base is given. It refuses the rest, as the library would: an unknown
// attribute, type or epilogue, sizes that do not fit, a workspace that is too small. STUB_LT_FAIL = "function:status"
// makes a function fail, STUB_LT_NONE = "1" finds no algorithm. stub_calls, stub_stream: how often cublasLtMatmul was
// called, and with which stream last; stub_types: a bit for each type of its operands; stub_alive: descriptors that are
// not destroyed.

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { F32 = 0, F16 = 2, BF16 = 14, COMPUTE_F32 = 68 };
enum { BIAS = 4, GELU = 32, GRADIENT = 64, AUX = 128, SUM_A = 256, SUM_B = 512 };  // bits of an epilogue; BIAS | ...
typedef int status;

struct product { int turn_a, turn_b, epilogue, vector_type; uint64_t vector, aux; int64_t aux_stride; };
struct layout { int type; uint64_t rows, columns; int64_t stride; };
struct preference { size_t workspace; };
struct algorithm { uint64_t data[8]; size_t workspace; status state; float waves; int reserved[4]; };

static unsigned char* base;
static int calls, alive, types;
static uint64_t last_stream;
EXPORT void stub_base(unsigned char* start) { base = start; }
EXPORT int stub_calls(void) { return calls; }
EXPORT int stub_alive(void) { return alive; }
EXPORT int stub_types(void) { return types; }
EXPORT uint64_t stub_stream(void) { return last_stream; }

static status asked(const char* function) {
    const char* text = getenv("STUB_LT_FAIL");
    size_t length = strlen(function);
    return text && !strncmp(text, function, length) && text[length] == ':' ? atoi(text + length + 1) : SUCCESS;
}
#define CHECK(function) do { status found = asked(#function); if (found) return found; } while (0)

const char* cublasLtGetStatusName(status s) {
    return s == EXECUTION_FAILED ? "CUBLAS_STATUS_EXECUTION_FAILED" : s == NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
         : s == INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE" : NULL;
}
status cublasLtCreate(void** handle) { CHECK(cublasLtCreate); *handle = (void*)4096; return SUCCESS; }

// --- descriptors -----------------------------------------------------------------------------------------------------

status cublasLtMatmulDescCreate(struct product** product, int compute, int scale) {
    CHECK(cublasLtMatmulDescCreate);
    if (compute != COMPUTE_F32 || scale != F32) return NOT_SUPPORTED;
    *product = calloc(1, sizeof **product);
    (*product)->epilogue = 1;
    (*product)->vector_type = -1;
    alive++;
    return SUCCESS;
}
status cublasLtMatmulDescDestroy(struct product* product) { free(product); alive--; return SUCCESS; }
status cublasLtMatmulDescSetAttribute(struct product* p, int which, const void* value, size_t size) {
    struct { int id; void* field; size_t size; } known[] = {
        {3, &p->turn_a, 4}, {4, &p->turn_b, 4}, {7, &p->epilogue, 4}, {8, &p->vector, 8}, {11, &p->aux, 8},
        {12, &p->aux_stride, 8}, {26, &p->vector_type, 4},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].id != which) continue;
        if (known[i].size != size) return INVALID_VALUE;
        memcpy(known[i].field, value, size);
        return SUCCESS;
    }
    return INVALID_VALUE;
}
status cublasLtMatrixLayoutCreate(struct layout** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    if ((type != F32 && type != F16 && type != BF16) || stride < (int64_t)rows) return INVALID_VALUE;
    *layout = malloc(sizeof **layout);
    **layout = (struct layout){type, rows, columns, stride};
    alive++;
    return SUCCESS;
}
status cublasLtMatrixLayoutDestroy(struct layout* layout) { free(layout); alive--; return SUCCESS; }
status cublasLtMatmulPreferenceCreate(struct preference** p) { *p = calloc(1, sizeof **p); alive++; return SUCCESS; }
status cublasLtMatmulPreferenceDestroy(struct preference* p) { free(p); alive--; return SUCCESS; }
status cublasLtMatmulPreferenceSetAttribute(struct preference* p, int which, const void* value, size_t size) {
    if (which != 1 || size != 8) return INVALID_VALUE;
    memcpy(&p->workspace, value, 8);
    return SUCCESS;
}

static int fits(const struct product* p, const struct layout* a, const struct layout* b, const struct layout* c,
                const struct layout* d) {
    uint64_t rows = p->turn_a ? a->columns : a->rows, depth = p->turn_a ? a->rows : a->columns;
    uint64_t columns = p->turn_b ? b->rows : b->columns, other = p->turn_b ? b->columns : b->rows;
    return rows == d->rows && columns == d->columns && depth == other && c->rows == d->rows && c->columns == d->columns
        && a->type == b->type && c->type == d->type && (d->type == a->type || d->type == F32);
}
static int known_epilogue(const struct product* p) {
    int e = p->epilogue;
    if (e == (GELU | AUX) || e == (GELU | AUX | BIAS) || e == (GRADIENT | AUX))
        return p->aux && p->aux_stride % 8 == 0 && (!(e & BIAS) || p->vector);
    return e == 1 || ((e == BIAS || e == SUM_A || e == SUM_B) && p->vector);
}
status cublasLtMatmulAlgoGetHeuristic(void* handle, struct product* p, struct layout* a, struct layout* b,
                                      struct layout* c, struct layout* d, struct preference* wanted, int most,
                                      struct algorithm* found, int* count) {
    CHECK(cublasLtMatmulAlgoGetHeuristic);
    *count = 0;
    if (handle != (void*)4096 || most < 1 || !fits(p, a, b, c, d)) return INVALID_VALUE;
    if (!known_epilogue(p) || getenv("STUB_LT_NONE")) return NOT_SUPPORTED;
    memset(found, 0, sizeof *found);
    found->data[0] = 0x5eed;
    found->workspace = wanted->workspace;
    *count = 1;
    return SUCCESS;
}

// --- the product -----------------------------------------------------------------------------------------------------

static double from_f16(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                                 : ldexp(exponent ? fraction | 1024 : fraction, (exponent ? exponent : 1) - 25);
    return bits >> 15 ? -size : size;
}
static uint16_t to_f16(double exact) {  // to nearest, ties to even; infinity beyond its range
    double size = fabs(exact);
    int sign = signbit(exact) ? 0x8000 : 0, exponent;
    if (isnan(exact)) return 0x7e00;
    if (size >= 65520) return sign | 0x7c00;
    frexp(size, &exponent);  // size = 0.1... * 2^exponent
    int unit = size == 0 || exponent < -13 ? -24 : exponent - 11;  // of its last bit
    return sign | ((unit + 24) * 1024 + (int)nearbyint(ldexp(size, -unit)));
}
static double get(uint64_t address, int type, uint64_t index) {
    float value;
    if (type == F16) return from_f16(((uint16_t*)(base + address))[index]);
    if (type == F32) {
        memcpy(&value, base + address + 4 * index, 4);
    } else {
        uint32_t bits = (uint32_t)((uint16_t*)(base + address))[index] << 16;
        memcpy(&value, &bits, 4);
    }
    return value;
}
static void put(uint64_t address, int type, uint64_t index, double exact) {
    float value = exact;
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (type == F32) memcpy(base + address + 4 * index, &value, 4);
    else if (type == F16) ((uint16_t*)(base + address))[index] = to_f16(exact);
    else ((uint16_t*)(base + address))[index] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static double gelu(double x, double* slope) {
    double inner = 0.7978845608028654 * (x + 0.044715 * x * x * x), t = tanh(inner);
    *slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
    return 0.5 * x * (1 + t);
}
static double of(uint64_t matrix, const struct layout* l, int turned, uint64_t row, uint64_t column) {
    return get(matrix, l->type, turned ? column + row * l->stride : row + column * l->stride);
}

status cublasLtMatmul(void* handle, struct product* p, const float* alpha, uint64_t A, struct layout* a, uint64_t B,
                      struct layout* b, const float* beta, uint64_t C, struct layout* c, uint64_t D, struct layout* d,
                      struct algorithm* algorithm, uint64_t workspace, size_t room, uint64_t stream) {
    CHECK(cublasLtMatmul);
    if (handle != (void*)4096 || algorithm->data[0] != 0x5eed || algorithm->workspace > room || !workspace)
        return INVALID_VALUE;
    if (!fits(p, a, b, c, d) || !known_epilogue(p) || A % 16 || B % 16 || C % 16 || D % 16) return NOT_SUPPORTED;
    int vector_type = p->vector_type < 0 ? d->type : p->vector_type, bias = p->epilogue != 1 && p->epilogue & BIAS;
    uint64_t depth = p->turn_a ? a->rows : a->columns;
    calls++;
    types |= 1 << a->type;
    last_stream = stream;
    for (uint64_t column = 0; column < d->columns; column++) {
        double all = 0;
        for (uint64_t k = 0; k < depth; k++) all += of(B, b, p->turn_b, k, column);
        if (p->epilogue == SUM_B) put(p->vector, vector_type, column, all);
        for (uint64_t row = 0; row < d->rows; row++) {
            double sum = 0, slope;
            for (uint64_t k = 0; k < depth; k++) sum += of(A, a, p->turn_a, row, k) * of(B, b, p->turn_b, k, column);
            sum = *alpha * sum + (*beta ? *beta * get(C, c->type, row + column * c->stride) : 0);
            if (bias) sum += get(p->vector, vector_type, row);
            if (p->epilogue & GELU) {
                put(p->aux, d->type, row + column * p->aux_stride, sum);
                sum = gelu(sum, &slope);
            }
            if (p->epilogue & GRADIENT) {
                gelu(get(p->aux, d->type, row + column * p->aux_stride), &slope);
                sum *= slope;
            }
            put(D, d->type, row + column * d->stride, sum);
        }
    }
    return SUCCESS;
}
