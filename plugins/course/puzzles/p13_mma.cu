// d = a b on a tensor core: one warp, one instruction, a (16, 16) and b (16, 8) in bf16, d (16, 8) in float. A register
// holds two bf16 of neighbouring addresses. Lane l has, with g = l / 4 and t = l % 4:
//   a: rows g and g + 8, columns 2t, 2t+1 and 2t+8, 2t+9      b: column g, rows 2t, 2t+1 and 2t+8, 2t+9
//   d: rows g and g + 8, columns 2t, 2t+1
// b is stored by columns, (8, 16), so that two neighbours in memory are two rows.
extern "C" __global__ void product(float* d, const unsigned short* a, const unsigned short* b) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    auto pair = [](const unsigned short* p) { return *(const unsigned*)p; };
    unsigned a0, a1, a2, a3, b0, b1;
    //[ which pairs does this lane load? a0: top left, a1: bottom left, a2: top right, a3: bottom right
    a0 = pair(a + g * 16 + 2 * t), a1 = pair(a + (g + 8) * 16 + 2 * t);
    a2 = pair(a + g * 16 + 2 * t + 8), a3 = pair(a + (g + 8) * 16 + 2 * t + 8);
    b0 = pair(b + g * 16 + 2 * t), b1 = pair(b + g * 16 + 2 * t + 8);
    //]
    float d0 = 0, d1 = 0, d2 = 0, d3 = 0;
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    //[ where does this lane's part of d belong?
    d[g * 8 + 2 * t] = d0, d[g * 8 + 2 * t + 1] = d1;
    d[(g + 8) * 8 + 2 * t] = d2, d[(g + 8) * 8 + 2 * t + 1] = d3;
    //]
}
