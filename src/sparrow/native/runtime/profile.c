#include "profile.h"

#include "clock.h"

void sparrow_profile_hook(void *profile, int step, int begin) {
  const sparrow_profile *p = (const sparrow_profile *)profile;
  if (step >= 0 && step < p->n_steps) p->stamps[2 * step + (begin ? 0 : 1)] = sparrow_now_ns();
}
