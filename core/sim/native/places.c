/* The resolution of addresses. Every access is checked against the buffers that the kernel was given. */
#include "machine.h"

/* The region of global memory that holds an access of `width` bytes at `address`; -1 for none. */
static i64 region(const Launch *launch, u64 address, u32 width) {
    i64 low = 0, high = launch->regions;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (launch->starts[middle] <= address) low = middle + 1;
        else high = middle;
    }
    return low > 0 && address + width >= address && address + width <= launch->ends[low - 1] ? low - 1 : -1;
}

static u8 *in_shared(Warp *w, const Op *op, u32 lane, u64 x, u32 width) {
    Block *b = w->block;
    i64 rank = (i64)(x >> RANK_SHIFT) - 1;
    u64 within = x & ((1u << RANK_SHIFT) - 1);
    if ((i64)x < 0 || rank >= w->launch->cluster) return NULL;
    if (rank >= 0) b = b->cluster + rank;
    if (b->remaining == 0) {
        fault(w, op, GONE_BLOCK, lane, x, (u64)b->number, 0);
        return NULL;
    }
    if (within < SHARED_START || within + width > (u64)w->launch->shared_end) return NULL;
    return b->shared + within;
}

/* Lane by lane, for accesses to several regions. The places are pointers then, behind a base of 0. */
static int by_lane(Warp *w, const Op *op, u64 *x, u8 **base, u32 space, u32 slot, u32 width, u32 how) {
    const Launch *launch = w->launch;
    u32 settled[WARP];
    *base = NULL;
    for (u32 left = w->mask; left; left &= left - 1) {
        u32 l = first(left);
        u64 window = x[l] >> WINDOW_SHIFT;
        settled[l] = space != GENERIC ? space : window == SHARED_WINDOW ? SHARED : window == LOCAL_WINDOW ? LOCAL : GLOBAL;
        if (space == GENERIC && settled[l] != GLOBAL) x[l] &= WINDOW_MASK;
        if (x[l] & (width - 1)) {
            fault(w, op, MISALIGNED, l, x[l], width | (u64)settled[l] << 8, how);
            return 0;
        }
    }
    for (u32 left = w->mask; left; left &= left - 1) {
        u32 l = first(left);
        u8 *place = NULL;
        if (settled[l] == GLOBAL) {
            i64 found = region(launch, x[l], width);
            if (found >= 0) {
                place = launch->memory + x[l];
                if (slot != ALL)
                    w->worker->windows[slot] = (Window){launch->memory, launch->starts[found],
                                                        launch->ends[found] - launch->starts[found] - width};
            }
        } else if (settled[l] == SHARED) {
            place = in_shared(w, op, l, x[l], width);
        } else if (x[l] + width <= (u64)launch->local && x[l] < (u64)launch->local) {
            place = w->local + (u64)l * (u64)launch->local + x[l];
        }
        if (!place) {
            u64 shown = settled[l] == SHARED ? x[l] & ((1u << RANK_SHIFT) - 1) : x[l];
            fault(w, op, OUTSIDE, l, shown, width | (u64)settled[l] << 8, how);
            return 0;
        }
        x[l] = (u64)(uintptr_t)place;
    }
    return 1;
}

u8 *place_of(Warp *w, const Op *op, u32 lane, u64 x, u32 space, u32 width, u32 how) {
    u8 *found = NULL;
    if (x & (width - 1)) {
        fault(w, op, MISALIGNED, lane, x, width | (u64)space << 8, how);
        return NULL;
    }
    if (space == GLOBAL) {
        if (region(w->launch, x, width) >= 0) return w->launch->memory + x;
    } else if ((found = in_shared(w, op, lane, x, width)) || w->worker->fault.kind) {
        return found;
    }
    fault(w, op, OUTSIDE, lane, space == SHARED ? x & ((1u << RANK_SHIFT) - 1) : x, width | (u64)space << 8, how);
    return NULL;
}

INLINE int inside(const Warp *w, const u64 *x, const Window *window, u32 width) {
    u64 lo = window->lo, span = window->span, bad = 0;
    if (w->mask == ALL) {
        EACH bad |= (u64)(x[l] - lo > span) | (x[l] & (width - 1));
    } else {
        const i32 *on = w->on;
        EACH bad |= on[l] ? (u64)(x[l] - lo > span) | (x[l] & (width - 1)) : 0;
    }
    return bad == 0;
}

int places(Warp *w, const Op *op, u64 *x, u8 **base, u32 space, u32 slot, u32 width, u32 how) {
    if (space == GLOBAL || space == GENERIC) {
        const Window *known = &w->worker->windows[slot];
        if (known->lo != ~0ull && inside(w, x, known, width)) {
            *base = known->base;
            return 1;
        }
    } else if (space == SHARED) {
        Window own = w->block->window;
        if (own.span >= width) {
            own.span -= width;
            if (inside(w, x, &own, width)) {
                *base = own.base;
                return 1;
            }
        }
    }
    return by_lane(w, op, x, base, space, slot, width, how);
}
