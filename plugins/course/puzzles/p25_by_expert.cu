// Experts want their tokens side by side. expert[i] is the expert of slot i, of n. order: the slots sorted by expert, those
// of one expert in the order of i; first[e]: where expert e's slots begin in `order`. THE SAME ORDER in every run. A thread
// block of one warp has one expert.
extern "C" __global__ void by_expert(int* order, int* first, const int* expert, int n) {
    int e = blockIdx.x, lane = threadIdx.x;
    //[ how many slots stand before this expert's? then: how many of its own stand before each slot?
    int at = 0;
    for (int i = lane; i < n; i += 32) at += expert[i] < e;
    for (int o = 16; o > 0; o /= 2) at += __shfl_xor_sync(0xffffffff, at, o);
    if (lane == 0) first[e] = at;
    for (int start = 0; start < n; start += 32) {
        int i = start + lane;
        bool mine = i < n && expert[i] == e;
        unsigned all = __ballot_sync(0xffffffff, mine);  // a bit for each lane
        if (mine) order[at + __popc(all & ((1u << lane) - 1))] = i;
        at += __popc(all);
    }
    //]
}
