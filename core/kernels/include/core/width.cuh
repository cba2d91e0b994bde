#pragma once
// Neighbours that a thread loads at once. The launcher compiles its kernel with WIDTH: core.kernels.width computes it.

#ifndef WIDTH
#define WIDTH 1  // elements
#endif

// The pack to add to: WIDTH elements from p if `add`, else zeros, without a read of p. p: a multiple of WIDTH
// elements.
template <class T>
__device__ inline Pack<T, WIDTH> held(const T* p, int add) {
    Pack<T, WIDTH> out = {};
    if (add) out = load<WIDTH>(p);
    return out;
}

// The same pack in registers of 32 bits, for a thread that keeps many: the compiler would give each bf16 a register of
// its own, or keep it as a float from one use to the next, were it not for asm, which it cannot look into.
template <class T>
__device__ inline Pack<T, WIDTH> packed(Pack<T, WIDTH> pack) {
    for (int word = 0; word < sizeof(pack) / sizeof(u32); word++)
        asm("" : "+r"(reinterpret_cast<u32*>(&pack)[word]));
    return pack;
}
