/* Bulk and tensor copies of Hopper, carried out at once. The steps of core/sim/instructions/copies.py. */
#include "machine.h"

enum { CHUNK = 16, MAP_BYTES = 128, MAP_MAGIC = 0x50414D54, TENSOR_ALIGN = 128 };
#define WITHIN(address) ((address) & ((1u << RANK_SHIFT) - 1))
#define PEER(address, rank) (WITHIN(address) | (u64)((rank) + 1) << RANK_SHIFT)

/* Every 16th byte is checked; the bytes lie behind the first. */
static u8 *stretch(Warp *w, const Op *op, u32 lane, u64 start, u64 bytes, u32 space, u32 how) {
    u8 *begin = NULL;
    for (u64 at = 0; at < bytes; at += CHUNK) {
        u8 *here = place_of(w, op, lane, start + at, space, CHUNK, how);
        if (!here) return NULL;
        begin = begin ? begin : here;
    }
    return begin;
}

/* o: target, source, bytes, where the others lie in the lists: the mbarrier, the mask of a multicast (0 where it is
none). imm: the source is global (bit 0), the target is (1), it has a mask (2). */
WHOLE(bulk, "cp.async.bulk", "registers") {
    const u64 *targets = REG(u64, 0), *sources = REG(u64, 1);
    const u32 *sizes = REG(u32, 2), *list = w->launch->lists + op->o[3];
    const u64 *barriers = LIST(u64, 0);
    const u32 *masks = LIST(u32, 1);
    u32 from = op->imm & 1 ? GLOBAL : SHARED, to = op->imm & 2 ? GLOBAL : SHARED;
    w->worker->progress++;
    for (u32 left = w->mask; left; left &= left - 1) {
        u32 l = first(left);
        u64 target = targets[l], source = sources[l], size = sizes[l];
        if (target % CHUNK || source % CHUNK || size % CHUNK) return fault(w, op, BULK, l, target, 0, 0);
        u8 *data = stretch(w, op, l, source, size, from, READ);
        if (size && !data) return NULL;
        u32 peers = op->imm & 4 ? masks[l] & 0xFFFF : 1;
        for (; peers; peers &= peers - 1) {
            u64 place = op->imm & 4 ? PEER(target, first(peers)) : target;
            u8 *there = stretch(w, op, l, place, size, to, WRITE);
            if (size && !there) return NULL;
            if (size) memmove(there, data, size);
            if (to == GLOBAL) continue;
            u64 barrier = op->imm & 4 ? PEER(barriers[l], first(peers)) : barriers[l];
            if (!landed(w, op, l, barrier, (i64)size)) return NULL;
        }
    }
    return op + 1;
}

/* --- tensor copies --------------------------------------------------------------------------------------------------- */
typedef struct {          /* core/sim/instructions/tensormap.py */
    u32 magic;
    u8 rank, kind, item, swizzle, hole[8];
    u64 address;
    u32 last[5], box[5];
    u64 stride[4];
    u8 rest[MAP_BYTES - 96];
} Map;

typedef struct {
    Map map;
    i64 at[5];
} Box;

static int box_of(Warp *w, const Op *op, u32 lane, u64 address, u32 rank, u64 shared, Box *box) {
    if (address % 64) return fault(w, op, TENSOR_MAP, lane, address, 1, 0), 0;
    u8 *raw = stretch(w, op, lane, address, MAP_BYTES, GLOBAL, READ);
    if (!raw) return 0;
    memcpy(&box->map, raw, sizeof box->map);
    Map *m = &box->map;
    if (m->magic != MAP_MAGIC) return fault(w, op, TENSOR_MAP, lane, address, 2, 0), 0;
    u64 row = (u64)m->box[0] * m->item, wrong = 0;
    wrong |= rank != m->rank ? 4 : 0;
    wrong |= WITHIN(shared) % TENSOR_ALIGN ? 8 : 0;
    wrong |= m->swizzle && row > m->swizzle ? 16 : 0;
    if (wrong) return fault(w, op, TENSOR_MAP, lane, shared, wrong, rank | (u64)m->rank << 8 | row << 16 | (u64)m->swizzle << 48), 0;
    return 1;
}

static u64 elements(const Map *m) {
    u64 n = 1;
    for (u32 d = 0; d < m->rank; d++) n *= m->box[d];
    return n;
}

/* The global address of element i of the box; 0 outside of the tensor. */
static u64 global_of(const Box *box, u64 i) {
    const Map *m = &box->map;
    u64 address = m->address;
    for (u32 d = 0; d < m->rank; d++) {
        i64 place = box->at[d] + (i64)(i % m->box[d]);
        i /= m->box[d];
        if (place < 0 || place > (i64)m->last[d]) return 0;
        address += (u64)place * (d ? m->stride[d - 1] : m->item);
    }
    return address;
}

static u64 shared_of(const Map *m, u64 base, u64 i) {
    u64 x = base + i * m->item, mask = m->swizzle == 128 ? 7 : m->swizzle == 64 ? 3 : m->swizzle == 32 ? 1 : 0;
    return x ^ (x >> 7 & mask) << 4;
}

/* How many elements from i on lie together on both sides: 16 bytes of one row at the most. */
static u64 together(const Box *box, u64 i) {
    const Map *m = &box->map;
    u64 chunk = CHUNK / m->item, row = m->box[0], at = i % row;
    if (chunk < 2 || i % chunk || at + chunk > row || row % chunk) return 1;
    i64 place = box->at[0] + (i64)at;
    return place >= 0 && place + (i64)chunk - 1 <= (i64)m->last[0] ? chunk : 1;
}

/* One row's worth of lists: o: the map's address, the shared address, -, the lists: mbarrier, mask, coordinates. imm:
rank, then bit 4: has a mask; the offset of the map from bit 8 on. */
static const Op *tensor(Warp *w, const Op *op, int loads) {
    const u64 *maps = REG(u64, 0), *shared = REG(u64, 1);
    const u32 *list = w->launch->lists + op->o[3];
    const u64 *barriers = LIST(u64, 0);
    const u32 *masks = LIST(u32, 1);
    u32 rank = op->imm & 7, many = op->imm >> 4 & 1;
    w->worker->progress++;
    for (u32 left = w->mask; left; left &= left - 1) {
        u32 l = first(left);
        Box box;
        if (!box_of(w, op, l, maps[l] + (u64)(op->imm >> 8), rank, shared[l], &box)) return NULL;
        for (u32 d = 0; d < rank; d++) box.at[d] = LIST(i32, 2 + d)[l];
        u64 n = elements(&box.map), item = box.map.item;
        u32 peers = many ? masks[l] & 0xFFFF : 1;
        for (; peers; peers &= peers - 1) {
            u64 base = WITHIN(shared[l]), high = many ? PEER(0, first(peers)) : shared[l] & ~(u64)((1u << RANK_SHIFT) - 1);
            for (u64 i = 0, run; i < n; i += run) {
                u64 address = global_of(&box, i), place = shared_of(&box.map, base, i) | high;
                run = together(&box, i);
                u8 *far = NULL, *near;
                if (address && !(far = place_of(w, op, l, address, GLOBAL, (u32)item, loads ? READ : WRITE))) return NULL;
                if (!loads && !address) continue;
                if (!(near = place_of(w, op, l, place, SHARED, (u32)item, loads ? WRITE : READ))) return NULL;
                if (run > 1) {
                    u64 end = (run - 1) * item;
                    if (far && !place_of(w, op, l, address + end, GLOBAL, (u32)item, loads ? READ : WRITE)) return NULL;
                    if (!place_of(w, op, l, place + end, SHARED, (u32)item, loads ? WRITE : READ)) return NULL;
                }
                if (!loads) memcpy(far, near, run * item);
                else if (far) memcpy(near, far, run * item);
                else memset(near, 0, run * item);
            }
            if (loads && !landed(w, op, l, many ? PEER(barriers[l], first(peers)) : barriers[l], (i64)(n * item))) return NULL;
        }
    }
    return op + 1;
}
WHOLE(tensor_load, "cp.async.bulk.tensor.load", "registers") { return tensor(w, op, 1); }
WHOLE(tensor_store, "cp.async.bulk.tensor.store", "registers") { return tensor(w, op, 0); }
