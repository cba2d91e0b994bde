#pragma once
// Neighbours that a thread loads at once. The launcher compiles its kernel with WIDTH: core.kernels.width computes it.

#ifndef WIDTH
#define WIDTH 1  // elements
#endif

// What a pack is added to: WIDTH elements from p if `add`, else zeros, and then p is not read. p: a multiple of
// WIDTH elements.
template <class T>
__device__ inline Pack<T, WIDTH> held(const T* p, int add) {
    Pack<T, WIDTH> out = {};
    if (add) out = load<WIDTH>(p);
    return out;
}
