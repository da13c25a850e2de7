#include "landing.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/io.h"
#include "writer/checkpoint.h"
#include "writer/folder.h"
#include "writer/place.h"

struct mkhct_landing {
	const struct mkhct_output *o; /* of which nothing is used that changes */
	size_t slot;
	int fd;
	char *text;
	int new_names;
	pthread_t thread;
	int synced;
	hct_error error;
	struct hct_diag diag;
};

static void release(struct mkhct_landing *l)
{
	close(l->fd);
	cJSON_free(l->text);
	free(l);
}

static void *land(void *arg)
{
	struct mkhct_landing *l = arg;
	const struct mkhct_output *o = l->o;

	l->error = hct_sync_out(l->fd, o->slots[l->slot].shown, &l->diag);
	if (!l->error && l->new_names)
		l->error = mkhct_folder_sync_names(o, l->slot, &l->diag);
	if (l->error)
		return NULL;
	l->synced = 1;
	l->error = mkhct_checkpoint_put(l->text, o->root, o->state, o->state_shown, &l->diag);
	return NULL;
}

hct_error mkhct_landing_start(const struct mkhct_output *o, size_t i, int fd, char *text,
			      int new_names, struct mkhct_landing **out, struct hct_diag *diag)
{
	struct mkhct_landing *l = calloc(1, sizeof(*l));

	if (l) {
		*l = (struct mkhct_landing){
			.o = o, .slot = i, .fd = fd, .text = text, .new_names = new_names};
		if (pthread_create(&l->thread, NULL, land, l) == 0) {
			*out = l;
			return HCT_OK;
		}
		release(l);
	} else {
		close(fd);
		cJSON_free(text);
	}
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: no memory or thread to sync it",
			o->slots[i].shown);
}

hct_error mkhct_landing_wait(struct mkhct_landing *l, int *synced, struct hct_diag *diag)
{
	hct_error err;

	pthread_join(l->thread, NULL);
	*synced = l->synced;
	err = l->error;
	if (err)
		hct_fail(diag, err, "%s", l->diag.text);
	release(l);
	return err;
}
