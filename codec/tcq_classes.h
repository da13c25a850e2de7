/* Internal: sorting the columns and runs of a sample into classes of like scale. */
#ifndef HCT_TCQ_CLASSES_H
#define HCT_TCQ_CLASSES_H

#include <stdint.h>

#include "tcq.h"
#include "tcq_sample.h"

#define HCT_TCQ_CLASSES (HCT_TCQ_MAX_ROWS * HCT_TCQ_MAX_COLUMNS)

/* Classes of all columns go to columns (HCT_GROUP more than there are, wrapping), those of the runs
 * of all pieces, behind one another, to maps.  Class 0 has the smallest values.  Returns 0 without
 * memory. */
int hct_tcq_classify(const struct hct_tcq_sample *s, unsigned column_classes, unsigned row_classes,
		     unsigned run_log2, uint8_t *columns, uint8_t *maps);

/* Mean square of the values of each class, from a third of them; energy[row class *
 * HCT_TCQ_MAX_COLUMNS + column class]. */
void hct_tcq_class_energies(const struct hct_tcq_sample *s, unsigned run_log2,
			    const uint8_t *columns, const uint8_t *maps,
			    double energy[HCT_TCQ_CLASSES]);

/* How far apart the scales of columns, and of runs of 512 values, lie: the variance of log2 of the
 * mean magnitude, that of chance subtracted.  0 when the sample does not tell. */
double hct_tcq_column_spread(const struct hct_tcq_sample *sample);
double hct_tcq_run_spread(const struct hct_tcq_sample *sample);

#endif
