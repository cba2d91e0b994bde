// Rows that are sorted by expert: where they are, and the expert of a tile of them.

// Where an index leads: to itself, or to the row of `order` that it counts, divided by `takers`.
struct Index {
    const int* order;
    int takers;
    __device__ u64 operator()(u32 i) const { return order ? order[i] / takers : i; }
};

// The expert whose rows tile number `tile` has, when each expert's are cut into tiles of their own, `height` rows each;
// `tile` becomes the number within these. E for an empty tile: the grid has the largest size that the routing may need.
__device__ inline int expert_of(int& tile, const int* starts, int E, int height) {
    for (int e = 0; e < E; e++) {
        int tiles = (starts[e + 1] - starts[e] + height - 1) / height;
        if (tile < tiles) return e;
        tile -= tiles;
    }
    return E;
}
