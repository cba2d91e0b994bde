/* Rooms: the memory of workers, kept between launches, since the system gives it slowly. */
#include "machine.h"

#include <pthread.h>
#include <stdlib.h>

enum { ROOMS = 16, KEPT = 8 << 20 };   /* kept at once; bytes of one at most */

static pthread_mutex_t rooms_lock = PTHREAD_MUTEX_INITIALIZER;
static struct { u8 *at; u64 size; } rooms[ROOMS];

u8 *take_room(u64 size) {
    u8 *found = NULL;
    pthread_mutex_lock(&rooms_lock);
    for (int i = 0; i < ROOMS && !found; i++)
        if (rooms[i].at && rooms[i].size == size) found = rooms[i].at, rooms[i].at = NULL;
    pthread_mutex_unlock(&rooms_lock);
    return found ? found : aligned_alloc(4096, size);
}

/* The oldest one makes place. */
void leave_room(u8 *at, u64 size) {
    static u32 turn;
    if (at && size <= KEPT) {
        pthread_mutex_lock(&rooms_lock);
        u32 place = turn;
        for (u32 i = 0; i < ROOMS; i++)
            if (!rooms[i].at) place = i;
        if (place == turn) turn = (turn + 1) % ROOMS;
        u8 *old = rooms[place].at;
        rooms[place].at = at, rooms[place].size = size;
        pthread_mutex_unlock(&rooms_lock);
        at = old;
    }
    free(at);
}
