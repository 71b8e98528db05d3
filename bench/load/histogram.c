#include "load.h"

static int step_of(uint64_t v) {
  if (v < 64) return (int)v;
  int octave = 63 - __builtin_clzll(v);
  int step = (octave - 5) * 64 + (int)((v >> (octave - 6)) & 63);
  return step < HISTOGRAM_STEPS ? step : HISTOGRAM_STEPS - 1;
}

static uint64_t value_of(int step) {
  if (step < 64) return (uint64_t)step;
  int octave = step / 64 + 5;
  return (1ull << octave) + ((uint64_t)(step % 64) << (octave - 6));
}

void histogram_add(histogram *h, uint64_t nanoseconds) {
  h->steps[step_of(nanoseconds)]++;
  h->count++;
  if (nanoseconds > h->most) h->most = nanoseconds;
}

double histogram_ms(const histogram *h, double quantile) {
  if (!h->count) return 0;
  uint64_t wanted = (uint64_t)(quantile * (double)h->count), seen = 0;
  for (int i = 0; i < HISTOGRAM_STEPS; i++) {
    seen += h->steps[i];
    if (seen > wanted) return (double)value_of(i) / 1e6;
  }
  return (double)h->most / 1e6;
}
