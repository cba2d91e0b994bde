#pragma once
// Rows with a team of warps each, and sums of their columns in the team's registers: one pass over the rows gives both
// a row's own sums and the columns'. The launcher compiles its kernel with these, and launches blocks of (LANES, TEAMS)
// threads: core.kernels.teams computes them.

#include "core/width.cuh"

#ifndef TEAM
#define TEAM 1   // warps of a row
#define PACKS 1  // packs of WIDTH columns of a lane
#define KEEP 1   // whether a lane keeps its part of a row in registers, else it reads that part from cache again
#endif

constexpr int LANES = 32 * TEAM, TEAMS = TEAM == 1 ? 4 : 1;  // of a thread block
constexpr int TEAM_THREADS = LANES * TEAMS, TEAM_BLOCKS = 512 / TEAM_THREADS;

// The first column of a lane's pack p: neighbours in neighbouring lanes
__device__ inline int team_column(int p) { return (p * LANES + threadIdx.x) * WIDTH; }

// A lane's part of a row of C elements
struct TeamRow {
    const elem* from;
    Pack<elem, WIDTH> packs[KEEP ? PACKS : 1];

    __device__ TeamRow(const elem* from, int C) : from(from) {
#pragma unroll
        for (int p = 0; KEEP && p < PACKS; p++)
            if (int c = team_column(p); c < C) packs[p] = packed(load<WIDTH>(from + c));
    }
    __device__ Pack<elem, WIDTH> pack(int p) const { return KEEP ? packs[p] : load<WIDTH>(from + team_column(p)); }
};

// Sums of N values over a team; every lane gets the same bits. turn: alternates from row to row, so that one barrier is
// enough
template <int N>
__device__ inline void team_sums(float (&values)[N], int turn) {
    for (int n = 0; n < N; n++) values[n] = warp_sum(values[n]);
    if (TEAM == 1) return;
    __shared__ float parts[2][N][TEAM];
    for (int n = 0; n < N; n++)
        if (threadIdx.x % 32 == 0) parts[turn][n][threadIdx.x / 32] = values[n];
    __syncthreads();
    for (int n = 0; n < N; n++) {
        values[n] = 0;
        for (int warp = 0; warp < TEAM; warp++) values[n] += parts[turn][n][warp];
    }
}

// N sums of each column of a lane, over the rows of its team
template <int N>
struct ColumnSums {
    static constexpr int PIECE = WIDTH < 4 ? WIDTH : 4;  // of shared memory, 16 bytes from lane to lane: no conflicts
    float sums[N][PACKS][WIDTH] = {};

    // partials: (N, C), the sums over the teams of a thread block, in order; shared: N PACKS WIDTH 32 floats, where
    // there are several teams
    __device__ void write(float* partials, float* shared, int C) {
#pragma unroll
        for (int team = 0; TEAMS > 1 && team < TEAMS; team++) {
            if (threadIdx.y == team) {
                if (team > 0) each<true>(shared);
                if (team + 1 < TEAMS) each<false>(shared);
            }
            __syncthreads();
        }
        if (threadIdx.y + 1 < TEAMS) return;
#pragma unroll
        for (int n = 0; n < N; n++)
            for (int p = 0; p < PACKS; p++)
                if (int c = team_column(p); c < C) {
                    Pack<float, WIDTH> out;
                    for (int k = 0; k < WIDTH; k++) out[k] = sums[n][p][k];
                    store(partials + (u64)n * C + c, out);
                }
    }

    // Adds the sums in shared memory, or stores its own there
    template <bool ADD>
    __device__ void each(float* shared) {
#pragma unroll
        for (int i = 0; i < N * PACKS * WIDTH / PIECE; i++) {
            float* own = &sums[0][0][0] + i * PIECE;
            Pack<float, PIECE> piece;
            if (ADD) piece = load<PIECE>(shared + (i * 32 + threadIdx.x) * PIECE);
            for (int e = 0; e < PIECE; e++) ADD ? own[e] += piece[e] : piece[e] = own[e];
            if (!ADD) store(shared + (i * 32 + threadIdx.x) * PIECE, piece);
        }
    }
};
