/* An opened device: what its batches share, and what happens when it fails. */
#ifndef HCT_GPU_DEVICE_H
#define HCT_GPU_DEVICE_H

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "codec/device.h"
#include "gpu/context.h"
#include "gpu/decode.h"
#include "gpu/memory.h"
#include "gpu/tables.h"

#define GPU_MAX_SLOTS 64

struct gpu_flight;

enum gpu_slot_state {
	GPU_IDLE,
	GPU_GATHERING, /* the thread with the turn takes memory for it */
	GPU_FILLING,   /* a thread puts its batch together */
	GPU_FLYING,    /* the device works on it */
	GPU_LANDING    /* a thread waits for it, and hands out its results */
};

/* What one batch in flight has, and the next one has after it. */
struct gpu_slot {
	cudaStream_t stream;
	cudaEvent_t wanted; /* what was in the caller's stream */
	cudaEvent_t tables; /* uploaded */
	cudaEvent_t done;
	struct gpu_block *memory; /* or NULL */
	uint8_t *pinned;          /* or NULL; of so many bytes: */
	size_t pinned_bytes;
	enum gpu_slot_state state;
	uint64_t number;           /* of its batch, in the order of submit */
	struct gpu_flight *flight; /* while the device works, and it lands */
};

struct hct_device {
	struct gpu_context context;
	char name[256];
	struct gpu_limits limits;
	struct gpu_pinned_pool pinned;
	cudaStream_t copies; /* of `copy` */
	std::atomic<bool> lost{false};

	/* Taken before `lock`, by the one thread at a time that gathers memory for a batch: what it
	 * still needs is held by batches that are on their way, and by none that waits, too. */
	std::mutex turn;
	cudaStream_t uploads; /* of tables, one after the other */

	std::mutex lock;                 /* of what follows; nobody waits for a batch with it */
	std::condition_variable changed; /* a slot's state */
	char why_lost[512];
	struct gpu_pool pool;
	struct gpu_tables tables;
	struct gpu_slot slots[GPU_MAX_SLOTS];
	unsigned slot_count;
	uint64_t batches; /* so far */
};

/* The error of a call of CUDA's, with its line; HCT_OK for cudaSuccess.  All but a lack of memory
 * means that the device is lost.  Not with d->lock. */
hct_error gpu_device_error(struct hct_device *d, struct hct_diag *diag, const char *function,
			   cudaError_t e);
/* Whether a call can begin at all: HCT_ERR_IO when the device is lost, with a line that tells why.
 * Not with d->lock. */
hct_error gpu_device_ready(struct hct_device *d, const gpu_current &current, struct hct_diag *diag);

/* slots.cu: locks are those of the device, and released while a function waits ------------- */

hct_error gpu_slot_open(struct hct_device *d, struct gpu_slot *s, struct hct_diag *diag);
void gpu_slot_close(struct hct_device *d, struct gpu_slot *s);

/* An idle slot with so many bytes of the device's memory, which is GPU_GATHERING then.  NULL with
 * cudaErrorMemoryAllocation when that does not fit, or another error.  For the thread with the
 * turn. */
struct gpu_slot *gpu_slot_take(struct hct_device *d, size_t bytes, cudaError_t *e,
			       std::unique_lock<std::mutex> &lock);
/* Finds device memory that can be done without, or waits for some; false when there is none.  For
 * the thread with d->turn. */
bool gpu_make_room(struct hct_device *d, std::unique_lock<std::mutex> &lock);
void gpu_slot_set(struct hct_device *d, struct gpu_slot *s, enum gpu_slot_state state);
/* At least so many bytes of pinned memory. */
cudaError_t gpu_slot_pin(struct hct_device *d, struct gpu_slot *s, size_t bytes);

/* batch.cu ------------------------------------------------------------------------------ */

hct_error gpu_submit(struct hct_device *d, struct hct_device_batch *batch, struct hct_diag *diag);
hct_error gpu_wait(struct hct_device *d, struct hct_device_batch *batch, struct hct_diag *diag);
/* Waits for a slot's batch, which is GPU_FLYING, and hands out its results. */
void gpu_land(struct hct_device *d, struct gpu_slot *s, std::unique_lock<std::mutex> &lock);

#endif
