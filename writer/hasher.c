#include "hasher.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <openssl/evp.h>

#include "writer/patience.h"

#define STEP (128u << 10)
/* How far hasher and encoder may be apart: enough to hide the pauses of either, and to
 * read ahead for the encoder. */
#define LEAD (64u << 20)

struct mkhct_hasher {
	int fd;
	const char *name;
	uint64_t size;
	pthread_t thread;
	EVP_MD_CTX *sha;
	uint8_t *buffer;

	pthread_mutex_t lock;
	pthread_cond_t moved; /* any of the fields below changed */
	uint64_t hashed;      /* by the thread */
	uint64_t encoded;     /* by the caller */
	int cancelled, ended;

	hct_error error; /* of the thread; read after it was joined */
	struct hct_diag diag;
};

/* Waits until the encoder is near.  Returns 0 when it was cancelled. */
static int keep_step(struct mkhct_hasher *h)
{
	int go;

	pthread_mutex_lock(&h->lock);
	while (!h->cancelled && h->hashed >= h->encoded && h->hashed - h->encoded >= LEAD)
		pthread_cond_wait(&h->moved, &h->lock);
	go = !h->cancelled;
	pthread_mutex_unlock(&h->lock);
	return go;
}

static hct_error hash_step(struct mkhct_hasher *h, size_t *bytes)
{
	uint64_t left = h->size - h->hashed;
	ssize_t n;

	n = mkhct_patient_pread(h->fd, h->buffer, left < STEP ? (size_t)left : STEP, h->hashed);
	if (n < 0)
		return hct_fail_errno(&h->diag, errno, "%s: cannot be read", h->name);
	if (n == 0)
		return hct_fail(&h->diag, HCT_ERR_CHANGED,
				"%s: was truncated while it was read; run again when it is whole",
				h->name);
	if (EVP_DigestUpdate(h->sha, h->buffer, (size_t)n) != 1)
		return hct_fail(&h->diag, HCT_ERR_NOMEM, "%s: sha256 cannot be computed", h->name);
	*bytes = (size_t)n;
	return HCT_OK;
}

/* Only this thread writes h->hashed, so it may read it without the lock. */
static void *hash_file(void *arg)
{
	struct mkhct_hasher *h = arg;

	while (!h->error && h->hashed < h->size && keep_step(h)) {
		size_t n = 0;

		h->error = hash_step(h, &n);
		pthread_mutex_lock(&h->lock);
		h->hashed += n;
		pthread_cond_broadcast(&h->moved);
		pthread_mutex_unlock(&h->lock);
	}
	pthread_mutex_lock(&h->lock);
	h->ended = 1;
	pthread_cond_broadcast(&h->moved);
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

static void release(struct mkhct_hasher *h)
{
	EVP_MD_CTX_free(h->sha);
	free(h->buffer);
	pthread_cond_destroy(&h->moved);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

hct_error mkhct_hasher_start(int fd, const char *name, uint64_t size, struct mkhct_hasher **out,
			     struct hct_diag *diag)
{
	struct mkhct_hasher *h = calloc(1, sizeof(*h));

	if (!h)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", name);
	h->fd = fd;
	h->name = name;
	h->size = size;
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->moved, NULL);
	h->buffer = malloc(STEP);
	h->sha = EVP_MD_CTX_new();
	if (!h->buffer || !h->sha || EVP_DigestInit_ex(h->sha, EVP_sha256(), NULL) != 1 ||
	    pthread_create(&h->thread, NULL, hash_file, h) != 0) {
		release(h);
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: no memory or thread for its sha256",
				name);
	}
	*out = h;
	return HCT_OK;
}

void mkhct_hasher_advance(struct mkhct_hasher *h, uint64_t offset)
{
	pthread_mutex_lock(&h->lock);
	h->encoded = offset;
	pthread_cond_broadcast(&h->moved);
	while (!h->ended && h->hashed + LEAD < h->encoded)
		pthread_cond_wait(&h->moved, &h->lock);
	pthread_mutex_unlock(&h->lock);
}

hct_error mkhct_hasher_finish(struct mkhct_hasher *h, uint8_t sha256[32], struct hct_diag *diag)
{
	hct_error err;

	mkhct_hasher_advance(h, h->size);
	pthread_join(h->thread, NULL);
	err = h->error;
	if (err)
		hct_fail(diag, err, "%s", h->diag.text);
	else if (EVP_DigestFinal_ex(h->sha, sha256, NULL) != 1)
		err = hct_fail(diag, HCT_ERR_NOMEM, "%s: sha256 cannot be computed", h->name);
	release(h);
	return err;
}

void mkhct_hasher_cancel(struct mkhct_hasher *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&h->lock);
	h->cancelled = 1;
	pthread_cond_broadcast(&h->moved);
	pthread_mutex_unlock(&h->lock);
	pthread_join(h->thread, NULL);
	release(h);
}
