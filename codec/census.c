#include "census.h"

#include <math.h>

hct_error hct_census_take(hct_encoder *e, const struct hct_tensor *t, const uint8_t *data,
			  uint64_t piece, struct hct_census *all, hct_census_look *look, void *arg)
{
	size_t unit = hct_dtype_unit(t->dtype);
	uint64_t elements = hct_tensor_bytes(t) / unit, number = 0;

	*all = (struct hct_census){.finite = 1};
	for (uint64_t at = 0; at < elements; at += piece, number++) {
		uint64_t n = elements - at < piece ? elements - at : piece;
		struct hct_census c = {.finite = 1};

		hct_census_add(&c, t->dtype, data + at * unit, n);
		all->energy += c.energy;
		all->rounding += c.rounding;
		all->peak = c.peak > all->peak ? c.peak : all->peak;
		all->finite &= c.finite;
		if (look)
			look(arg, number, &c);
		if (hct_encoder_watched(e, (at + n) * unit))
			return HCT_ERR_INTERRUPTED;
	}
	return HCT_OK;
}

const char *hct_census_fault(const struct hct_census *all, const struct hct_tensor *t,
			     const uint8_t *data)
{
	int finite = all->finite, zero = all->energy == 0;

	if (finite && !zero)
		return NULL;
	if (t->dtype == HCT_DTYPE_F64) {
		uint64_t elements = hct_tensor_bytes(t) / sizeof(double);

		finite = zero = 1;
		for (uint64_t i = 0; i < elements && finite; i++) {
			double x;

			hct_dtype_to_double(t->dtype, data + i * sizeof x, 1, &x);
			finite = isfinite(x);
			zero &= x == 0;
		}
	}
	return !finite ? "it has NaN or infinity"
	       : zero  ? "it is zero"
		       : "its values are out of range";
}
