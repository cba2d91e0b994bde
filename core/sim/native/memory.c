/* Loads and stores: whole warps within a cached region at once, any others by places.c. */
#include "rows.h"

#define LOAD1(id, names, operands, A, T, R, SPACE)                                                                     \
    static __attribute__((noinline)) const Op *id##_anywhere(Warp *w, const Op *op) {                                  \
        FIND(A, SPACE, sizeof(T), READ)                                                                                \
        R *d = REG(R, 0);                                                                                              \
        if (to.same) {                                                                                                 \
            R one = *(const T *)to.at[0];                                                                              \
            EACH d[l] = one;                                                                                           \
        } else if (w->mask == ALL) {                                                                                   \
            for (int l = 0; l < WARP; l++) d[l] = *(const T *)to.at[l];                                                \
        } else {                                                                                                       \
            for (u32 left = w->mask; left; left &= left - 1) d[first(left)] = *(const T *)to.at[first(left)];          \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(id, names, operands) {                                                                                       \
        const T *row = (const T *)ROW(A, SPACE, sizeof(T));                                                            \
        R *d = REG(R, 0);                                                                                              \
        if (!row) return id##_anywhere(w, op);                                                                         \
        EACH d[l] = row[l];                                                                                            \
        NEXT;                                                                                                          \
    }

/* Four lanes of four 32-bit values each: rows become columns. */
typedef u32 Four __attribute__((vector_size(16), aligned(4), may_alias));
INLINE void transpose(Four *v) {
    Four low = CHOSEN(Four, v[0], v[1], 0, 4, 1, 5), high = CHOSEN(Four, v[0], v[1], 2, 6, 3, 7);
    Four low2 = CHOSEN(Four, v[2], v[3], 0, 4, 1, 5), high2 = CHOSEN(Four, v[2], v[3], 2, 6, 3, 7);
    v[0] = CHOSEN(Four, low, low2, 0, 1, 4, 5);
    v[1] = CHOSEN(Four, low, low2, 2, 3, 6, 7);
    v[2] = CHOSEN(Four, high, high2, 0, 1, 4, 5);
    v[3] = CHOSEN(Four, high, high2, 2, 3, 6, 7);
}

/* Lane l's four values at `place`, an expression of l, into four registers. */
#define FOURS(d, place)                                                                                                \
    for (int q = 0; q < WARP; q += 4) {                                                                                \
        Four v[4];                                                                                                     \
        for (int i = 0, l = q; i < 4; i++, l++) v[i] = *(const Four *)(place);                                         \
        transpose(v);                                                                                                  \
        for (int i = 0; i < 4; i++) *(Four *)(d[i] + q) = v[i];                                                        \
    }

INLINE void put_fours(const u32 *const *d, u8 *const *at, u8 *row) {
    for (int q = 0; q < WARP; q += 4) {
        Four v[4];
        for (int i = 0; i < 4; i++) v[i] = *(const Four *)(d[i] + q);
        transpose(v);
        for (int i = 0, l = q; i < 4; i++, l++) *(Four *)(row ? row + 16 * l : at[l]) = v[i];
    }
}

#define REGISTERS(R, N)                                                                                                \
    const u32 *list = w->launch->lists + op->o[3];                                                                     \
    R *d[N];                                                                                                           \
    for (int i = 0; i < N; i++) d[i] = LIST(R, i);

#define LOADN(id, names, operands, A, T, R, SPACE, N)                                                                  \
    static __attribute__((noinline)) const Op *id##_anywhere(Warp *w, const Op *op) {                                  \
        REGISTERS(R, N)                                                                                                \
        FIND(A, SPACE, N * sizeof(T), READ)                                                                            \
        if (to.same) {                                                                                                 \
            R one[N];                                                                                                  \
            for (int i = 0; i < N; i++) one[i] = ((const T *)to.at[0])[i];                                             \
            for (int i = 0; i < N; i++) { R *r = d[i], v = one[i]; EACH r[l] = v; }                                    \
        } else if (w->mask == ALL && N == 4 && sizeof(T) == 4) {                                                       \
            FOURS(((u32 *const *)d), to.at[l])                                                                         \
        } else {                                                                                                       \
            for (u32 left = w->mask; left; left &= left - 1)                                                           \
                for (int i = 0; i < N; i++) d[i][first(left)] = ((const T *)to.at[first(left)])[i];                    \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(id, names, operands) {                                                                                       \
        REGISTERS(R, N)                                                                                                \
        if (SPACE == SHARED && sizeof(A) == 4 && N == 4 && sizeof(T) == 4) {                                           \
            u32 near_x[WARP] __attribute__((aligned(64)));                                                             \
            if (!near_fours(w, REG(u32, 1), (u32)op->imm, near_x)) return id##_anywhere(w, op);                        \
            FOURS(((u32 *const *)d), w->block->shared + near_x[l])                                                     \
            NEXT;                                                                                                      \
        }                                                                                                              \
        const u8 *row = ROW(A, SPACE, N * sizeof(T));                                                                  \
        if (!row) return id##_anywhere(w, op);                                                                         \
        if (N == 4 && sizeof(T) == 4) {                                                                                \
            FOURS(((u32 *const *)d), row + 16 * l)                                                                     \
        } else {                                                                                                       \
            for (int l = 0; l < WARP; l++)                                                                             \
                for (int i = 0; i < N; i++) d[i][l] = ((const T *)row)[l * N + i];                                     \
        }                                                                                                              \
        NEXT;                                                                                                          \
    }

/* Lanes at one address: the last one's value stays. */
#define STORE1(id, names, operands, A, T, R, SPACE)                                                                    \
    static __attribute__((noinline)) const Op *id##_anywhere(Warp *w, const Op *op) {                                  \
        FIND(A, SPACE, sizeof(T), WRITE)                                                                               \
        const R *d = REG(R, 0);                                                                                        \
        w->worker->progress++;                                                                                         \
        if (to.same) *(T *)to.at[0] = (T)d[WARP - 1];                                                                  \
        else for (u32 left = w->mask; left; left &= left - 1) *(T *)to.at[first(left)] = (T)d[first(left)];            \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(id, names, operands) {                                                                                       \
        T *row = (T *)ROW(A, SPACE, sizeof(T));                                                                        \
        const R *d = REG(R, 0);                                                                                        \
        if (!row) return id##_anywhere(w, op);                                                                         \
        w->worker->progress++;                                                                                         \
        EACH row[l] = (T)d[l];                                                                                         \
        NEXT;                                                                                                          \
    }

#define STOREN(id, names, operands, A, T, R, SPACE, N)                                                                 \
    static __attribute__((noinline)) const Op *id##_anywhere(Warp *w, const Op *op) {                                  \
        FIND(A, SPACE, N * sizeof(T), WRITE)                                                                           \
        REGISTERS(R, N)                                                                                                \
        w->worker->progress++;                                                                                         \
        if (w->mask == ALL && !to.same && N == 4 && sizeof(T) == 4) {                                                  \
            put_fours((const u32 *const *)d, to.at, NULL);                                                             \
            return op + 1;                                                                                             \
        }                                                                                                              \
        for (u32 left = w->mask; left; left &= left - 1)                                                               \
            for (int i = 0; i < N; i++) ((T *)(to.same ? to.at[0] : to.at[first(left)]))[i] = (T)d[i][first(left)];    \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(id, names, operands) {                                                                                       \
        u8 *row = ROW(A, SPACE, N * sizeof(T));                                                                        \
        if (!row) return id##_anywhere(w, op);                                                                         \
        REGISTERS(R, N)                                                                                                \
        w->worker->progress++;                                                                                         \
        if (N == 4 && sizeof(T) == 4) {                                                                                \
            put_fours((const u32 *const *)d, NULL, row);                                                               \
        } else {                                                                                                       \
            for (int l = 0; l < WARP; l++)                                                                             \
                for (int i = 0; i < N; i++) ((T *)row)[l * N + i] = (T)d[i][l];                                        \
        }                                                                                                              \
        NEXT;                                                                                                          \
    }

/* The same by addresses on a line. A load of one value has o[3] set where its result may become a line too. */
#define BY_LINE(id, names, operands, A, one)                                                                           \
    static const Op *id##_line_some(Warp *w, const Op *op) {                                                           \
        spread_address(LINE(1), sizeof(A));                                                                            \
        if (one && op->o[3]) {                                                                                         \
            if (one == 8) spread64(LINE(0));                                                                           \
            else spread32(LINE(0));                                                                                    \
            LINE(0)->kind = LANES;                                                                                     \
        }                                                                                                              \
        return id(w, op);                                                                                              \
    }                                                                                                                  \
    static const Op *id##_line(Warp *w, const Op *op);                                                                 \
    __attribute__((constructor)) static void id##_line_row(void) {                                                     \
        add_row(names ".line", operands, id##_line, id##_line_some, 0);                                                \
    }                                                                                                                  \
    static const Op *id##_line(Warp *w, const Op *op)
#define LOAD1_LINE(id, names, operands, A, T, R, SPACE)                                                                \
    BY_LINE(id, names, operands, A, sizeof(R)) {                                                                       \
        const Line *x = LINE(1);                                                                                       \
        const T *row = (const T *)LINE_ROW(A, SPACE, x, sizeof(T));                                                    \
        R *d = REG(R, 0);                                                                                              \
        if (!row) return id##_line_some(w, op);                                                                        \
        if (x->step) {                                                                                                 \
            EACH d[l] = row[l];                                                                                        \
            if (op->o[3]) LINE(0)->kind = LANES;                                                                       \
        } else {                                                                                                       \
            R value = *row;                                                                                            \
            if (op->o[3]) *LINE(0) = (Line){value, 0, STRAIGHT};                                                       \
            else EACH d[l] = value;                                                                                    \
        }                                                                                                              \
        NEXT;                                                                                                          \
    }
#define LOADN_LINE(id, names, operands, A, T, R, SPACE, N)                                                             \
    BY_LINE(id, names, operands, A, 0) {                                                                               \
        const Line *x = LINE(1);                                                                                       \
        const u8 *row = LINE_ROW(A, SPACE, x, N * sizeof(T));                                                          \
        if (!row) return id##_line_some(w, op);                                                                        \
        REGISTERS(R, N)                                                                                                \
        if (!x->step) {                                                                                                \
            R value[N];                                                                                                \
            for (int i = 0; i < N; i++) value[i] = ((const T *)row)[i];                                                \
            for (int i = 0; i < N; i++) { R *r = d[i], v = value[i]; EACH r[l] = v; }                                  \
        } else if (N == 4 && sizeof(T) == 4) {                                                                         \
            FOURS(((u32 *const *)d), row + 16 * l)                                                                     \
        } else {                                                                                                       \
            for (int l = 0; l < WARP; l++)                                                                             \
                for (int i = 0; i < N; i++) d[i][l] = ((const T *)row)[l * N + i];                                     \
        }                                                                                                              \
        NEXT;                                                                                                          \
    }
#define STORE1_LINE(id, names, operands, A, T, R, SPACE)                                                               \
    BY_LINE(id, names, operands, A, 0) {                                                                               \
        const Line *x = LINE(1);                                                                                       \
        T *row = (T *)LINE_ROW(A, SPACE, x, sizeof(T));                                                                \
        const R *d = REG(R, 0);                                                                                        \
        if (!row) return id##_line_some(w, op);                                                                        \
        w->worker->progress++;                                                                                         \
        if (x->step) EACH row[l] = (T)d[l];                                                                            \
        else *row = (T)d[WARP - 1];                                                                                    \
        NEXT;                                                                                                          \
    }
#define STOREN_LINE(id, names, operands, A, T, R, SPACE, N)                                                            \
    BY_LINE(id, names, operands, A, 0) {                                                                               \
        const Line *x = LINE(1);                                                                                       \
        u8 *row = LINE_ROW(A, SPACE, x, N * sizeof(T));                                                                \
        if (!row || !x->step) return id##_line_some(w, op);                                                            \
        REGISTERS(R, N)                                                                                                \
        w->worker->progress++;                                                                                         \
        if (N == 4 && sizeof(T) == 4) {                                                                                \
            put_fours((const u32 *const *)d, NULL, row);                                                               \
        } else {                                                                                                       \
            for (int l = 0; l < WARP; l++)                                                                             \
                for (int i = 0; i < N; i++) ((T *)row)[l * N + i] = (T)d[i][l];                                        \
        }                                                                                                              \
        NEXT;                                                                                                          \
    }

/* Each width and vector, in each space, by 64-bit and (shared, local) 32-bit addresses. */
#define WIDTHS(ONE, MANY, op, out, space, SPACE, bits, A)                                                              \
    ONE(op##_##space##_8_a##bits, #op "." #space ".b8", out "b8 [b" #bits "]", A, u8, u32, SPACE)                      \
    ONE(op##_##space##_16_a##bits, #op "." #space ".b16", out "b16 [b" #bits "]", A, u16, u32, SPACE)                  \
    ONE(op##_##space##_32_a##bits, #op "." #space ".b32", out "b32 [b" #bits "]", A, u32, u32, SPACE)                  \
    ONE(op##_##space##_64_a##bits, #op "." #space ".b64", out "b64 [b" #bits "]", A, u64, u64, SPACE)                  \
    MANY(op##_##space##_v2_8_a##bits, #op "." #space ".v2.b8", out "{b8} [b" #bits "]", A, u8, u32, SPACE, 2)          \
    MANY(op##_##space##_v4_8_a##bits, #op "." #space ".v4.b8", out "{b8} [b" #bits "]", A, u8, u32, SPACE, 4)          \
    MANY(op##_##space##_v2_16_a##bits, #op "." #space ".v2.b16", out "{b16} [b" #bits "]", A, u16, u32, SPACE, 2)      \
    MANY(op##_##space##_v4_16_a##bits, #op "." #space ".v4.b16", out "{b16} [b" #bits "]", A, u16, u32, SPACE, 4)      \
    MANY(op##_##space##_v8_16_a##bits, #op "." #space ".v8.b16", out "{b16} [b" #bits "]", A, u16, u32, SPACE, 8)      \
    MANY(op##_##space##_v2_32_a##bits, #op "." #space ".v2.b32", out "{b32} [b" #bits "]", A, u32, u32, SPACE, 2)      \
    MANY(op##_##space##_v4_32_a##bits, #op "." #space ".v4.b32", out "{b32} [b" #bits "]", A, u32, u32, SPACE, 4)      \
    MANY(op##_##space##_v2_64_a##bits, #op "." #space ".v2.b64", out "{b64} [b" #bits "]", A, u64, u64, SPACE, 2)
#define IN_SPACE(space, SPACE, bits, A)                                                                                \
    WIDTHS(LOAD1, LOADN, ld, "=", space, SPACE, bits, A)                                                               \
    WIDTHS(STORE1, STOREN, st, "", space, SPACE, bits, A)

IN_SPACE(global, GLOBAL, 64, u64)
IN_SPACE(generic, GENERIC, 64, u64)
IN_SPACE(shared, SHARED, 64, u64)
IN_SPACE(shared, SHARED, 32, u32)
IN_SPACE(local, LOCAL, 64, u64)
IN_SPACE(local, LOCAL, 32, u32)

#define LINED_IN_SPACE(space, SPACE, bits, A)                                                                          \
    WIDTHS(LOAD1_LINE, LOADN_LINE, ld, "=", space, SPACE, bits, A)                                                     \
    WIDTHS(STORE1_LINE, STOREN_LINE, st, "", space, SPACE, bits, A)
LINED_IN_SPACE(global, GLOBAL, 64, u64)
LINED_IN_SPACE(shared, SHARED, 32, u32)

/* --- generic addresses --------------------------------------------------------------------------------------------- */
UNARY(cvta_shared, "cvta.shared", "=b64 b64", u64, u64, a[l] + ((u64)SHARED_WINDOW << WINDOW_SHIFT))
UNARY(cvta_local, "cvta.local", "=b64 b64", u64, u64, a[l] + ((u64)LOCAL_WINDOW << WINDOW_SHIFT))
UNARY(cvta_to_shared, "cvta.to.shared", "=b64 b64", u64, u64, a[l] - ((u64)SHARED_WINDOW << WINDOW_SHIFT))
UNARY(cvta_to_local, "cvta.to.local", "=b64 b64", u64, u64, a[l] - ((u64)LOCAL_WINDOW << WINDOW_SHIFT))
