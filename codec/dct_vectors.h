/* Internal: the body of dct.c for one precision.  Whoever includes this has defined
 *   REAL     float or double
 *   FFTW(x)  fftwf_x or fftw_x
 *   NAME(x)  x with a suffix for the precision
 *   PRECISION  as dct.c has it
 * and includes it again for the other. */
#ifdef REAL

static void *NAME(make)(size_t n, int inverse, void *work)
{
	FFTW(iodim64) dim = {(ptrdiff_t)n, 1, 1};
	FFTW(r2r_kind) kind = inverse ? FFTW_REDFT01 : FFTW_REDFT10;

	return FFTW(plan_guru64_r2r)(1, &dim, 0, NULL, work, work, &kind, FFTW_ESTIMATE);
}

/* FFTW computes 2 sum of x(i) cos(...) forwards, and X(0) + 2 sum over the others backwards. */
static void NAME(gather)(const struct layout *l, const REAL *in, size_t vectors, REAL first,
			 REAL *work)
{
	if (l->stride == 1)
		for (size_t j = 0; j < vectors; j++)
			memcpy(work + j * l->pitch, in + j * l->distance, l->n * sizeof(REAL));
	else
		for (size_t i = 0; i < l->n; i++)
			for (size_t j = 0; j < vectors; j++)
				work[j * l->pitch + i] = in[j * l->distance + i * l->stride];
	for (size_t j = 0; j < vectors; j++)
		work[j * l->pitch] *= first;
}

static void NAME(scatter)(const struct layout *l, REAL *work, size_t vectors, REAL first,
			  REAL scale, REAL *out)
{
	for (size_t j = 0; j < vectors; j++)
		work[j * l->pitch] *= first;
	if (l->stride == 1)
		for (size_t j = 0; j < vectors; j++)
			for (size_t i = 0; i < l->n; i++)
				out[j * l->distance + i] = work[j * l->pitch + i] * scale;
	else
		for (size_t i = 0; i < l->n; i++)
			for (size_t j = 0; j < vectors; j++)
				out[j * l->distance + i * l->stride] =
					work[j * l->pitch + i] * scale;
}

static hct_error NAME(pass)(hct_dct *d, int inverse, struct layout l, const REAL *in, REAL *out)
{
	size_t block = layout_block(&l, sizeof(REAL));
	REAL scale = (REAL)sqrt(.5 / (double)l.n), root = (REAL)sqrt(2), half = (REAL)sqrt(.5);
	struct lease lease;
	REAL *work;

	/* Before the plan, because what FFTW does without memory is worse. */
	work = aligned_alloc(ALIGNMENT, block * l.pitch * sizeof *work);
	if (!work)
		return HCT_ERR_NOMEM;
	if (!lease_take(d, &lease, PRECISION, l.n, inverse, work)) {
		free(work);
		return HCT_ERR_NOMEM;
	}
	for (size_t b = 0; b < l.batches; b++)
		for (size_t j = 0, vectors; j < l.count; j += vectors) {
			size_t at = b * l.far + j * l.distance;

			vectors = l.count - j < block ? l.count - j : block;
			NAME(gather)(&l, in + at, vectors, inverse ? root : 1, work);
			for (size_t v = 0; v < vectors; v++) {
				REAL *vector = work + v * l.pitch;

				FFTW(execute_r2r)(lease.p->plan, vector, vector);
			}
			NAME(scatter)(&l, work, vectors, inverse ? 1 : half, scale, out + at);
		}
	lease_end(d, &lease);
	free(work);
	return HCT_OK;
}

static hct_error NAME(vectors)(hct_dct *d, int inverse, const REAL *in, REAL *out, size_t n,
			       size_t stride, size_t count, size_t distance)
{
	struct layout l = {
		.n = n, .stride = stride, .count = count, .distance = distance, .batches = 1};
	hct_error e = layout_check(&l, sizeof(REAL));

	if (e == HCT_OK && (!d || (count && (!in || !out))))
		e = HCT_ERR_ARGUMENT;
	return e == HCT_OK && count ? NAME(pass)(d, inverse, l, in, out) : e;
}

static hct_error NAME(matrices)(hct_dct *d, int inverse, const REAL *in, REAL *out, size_t rows,
				size_t columns, size_t stride, size_t count, size_t distance)
{
	struct layout across = {.n = columns,
				.stride = 1,
				.count = rows,
				.distance = stride,
				.batches = count,
				.far = distance};
	struct layout down = {.n = rows,
			      .stride = stride,
			      .count = columns,
			      .distance = 1,
			      .batches = count,
			      .far = distance};
	hct_error e = layout_check(&across, sizeof(REAL));

	if (e == HCT_OK)
		e = layout_check(&down, sizeof(REAL));
	if (e == HCT_OK && (!d || (rows > 1 && stride < columns) || (count && (!in || !out))))
		e = HCT_ERR_ARGUMENT;
	if (e != HCT_OK || !count)
		return e;
	e = NAME(pass)(d, inverse, across, in, out);
	return e == HCT_OK ? NAME(pass)(d, inverse, down, out, out) : e;
}

hct_error NAME(hct_dct_forward_1d)(hct_dct *d, const REAL *in, REAL *out, size_t n, size_t stride,
				   size_t count, size_t distance)
{
	return NAME(vectors)(d, 0, in, out, n, stride, count, distance);
}

hct_error NAME(hct_dct_inverse_1d)(hct_dct *d, const REAL *in, REAL *out, size_t n, size_t stride,
				   size_t count, size_t distance)
{
	return NAME(vectors)(d, 1, in, out, n, stride, count, distance);
}

hct_error NAME(hct_dct_forward_2d)(hct_dct *d, const REAL *in, REAL *out, size_t rows,
				   size_t columns, size_t stride, size_t count, size_t distance)
{
	return NAME(matrices)(d, 0, in, out, rows, columns, stride, count, distance);
}

hct_error NAME(hct_dct_inverse_2d)(hct_dct *d, const REAL *in, REAL *out, size_t rows,
				   size_t columns, size_t stride, size_t count, size_t distance)
{
	return NAME(matrices)(d, 1, in, out, rows, columns, stride, count, distance);
}

#endif
