/* What tests ask the emulator, by dlsym in the plug-in. */
#ifndef CUDA_EMULATOR_TESTS_H
#define CUDA_EMULATOR_TESTS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Calls of a function so far. */
unsigned long emulator_calls(const char *name);
/* Bytes that were copied from the host to the device so far. */
size_t emulator_bytes_up(void);
/* What was made and not destroyed: memory, streams, events, contexts that are retained. */
size_t emulator_held(void);
/* What was put into streams and is not done. */
size_t emulator_waiting(void);
/* Bytes of device memory now, and at most since the last call. */
size_t emulator_memory(size_t *most);
/* How many contexts are on the calling thread's stack, and its current device. */
int emulator_contexts(void);
int emulator_current_device(void);

/* A stream of the caller's, and something that it does: when its turn comes. */
void *emulator_stream(void);
void emulator_stream_put(void *stream, void (*work)(void *arg), void *arg);
void emulator_stream_destroy(void *stream);

#ifdef __cplusplus
}
#endif

#endif
