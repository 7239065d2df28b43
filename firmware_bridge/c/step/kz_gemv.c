#include "kz_gemv.h"

#include <stddef.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

/* One source, several instruction sets, chosen at load by the CPU's features; only glibc resolves such clones.
 * A comma inside a clone's name would split it; FMA implies AVX, which is all that float needs. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define KZ_CLONES __attribute__((target_clones("avx512f", "fma", "default")))
#else
#define KZ_CLONES
#endif

/* 32-byte vectors: eight accumulators of them fit in the 16 registers of AVX (64-byte ones would spill). */
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec8_unaligned __attribute__((vector_size(32), aligned(4), may_alias));

#define BLOCK KZ_GEMV_BLOCK

KZ_CLONES
void kz_gemv_f32(const float *w, const float *x, float *y, int32_t n, int32_t k) {
  for (int32_t row = 0; row < n; row += BLOCK, y += BLOCK) {
    vec8 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    int32_t i = 0;
    for (; i + 1 < k; i += 2, w += 2 * BLOCK) {
      const vec8_unaligned *v = (const vec8_unaligned *)w;
      const float p = x[i], q = x[i + 1];
      a0 += p * v[0], a1 += p * v[1], a2 += p * v[2], a3 += p * v[3];
      b0 += q * v[4], b1 += q * v[5], b2 += q * v[6], b3 += q * v[7];
    }
    if (i < k) {
      const vec8_unaligned *v = (const vec8_unaligned *)w;
      a0 += x[i] * v[0], a1 += x[i] * v[1], a2 += x[i] * v[2], a3 += x[i] * v[3];
      w += BLOCK;
    }
    a0 += b0, a1 += b1, a2 += b2, a3 += b3;
    memcpy(y, &a0, 32), memcpy(y + 8, &a1, 32), memcpy(y + 16, &a2, 32), memcpy(y + 24, &a3, 32);
  }
}

static void rows_i8(const int8_t *w, const int8_t *x, int32_t *y, int32_t n, int32_t k) {
  for (int32_t row = 0; row < n; row++, w += k) {
    int32_t sum = 0;
    for (int32_t i = 0; i < k; i++) sum += (int32_t)x[i] * w[i];
    y[row] = sum;
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
#define LANES 32

__attribute__((target("avx2"))) static inline int32_t sum8(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
  return _mm_cvtsi128_si32(s);
}

/* x*w = |x| * (w with the sign of x): the one 8-bit multiply-add of AVX2 wants one unsigned factor, and pairs of
 * products of values up to 127 stay below its 16-bit saturation (2 * 127 * 127 < 32768). Four rows share x. */
__attribute__((target("avx2"))) static void rows_i8_avx2(const int8_t *w, const int8_t *x, int32_t *y, int32_t n,
                                                          int32_t k) {
  const __m256i ones = _mm256_set1_epi16(1);
  const int32_t whole = k - k % LANES;
  int32_t row = 0;
  for (; row + 3 < n; row += 4, w += 4 * (size_t)k) {
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                      _mm256_setzero_si256()};
    for (int32_t i = 0; i < whole; i += LANES) {
      const __m256i v = _mm256_loadu_si256((const __m256i *)(x + i)), magnitude = _mm256_abs_epi8(v);
      for (int r = 0; r < 4; r++) {
        const __m256i weights = _mm256_loadu_si256((const __m256i *)(w + r * (size_t)k + i));
        const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(weights, v));
        sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(pairs, ones));
      }
    }
    for (int r = 0; r < 4; r++) {
      int32_t total = sum8(sum[r]);
      for (int32_t i = whole; i < k; i++) total += (int32_t)x[i] * w[r * (size_t)k + i];
      y[row + r] = total;
    }
  }
  rows_i8(w, x, y + row, n - row, k);
}
#endif

void kz_gemv_i8(const int8_t *w, const int8_t *x, int32_t *y, int32_t n, int32_t k) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx2")) {
    rows_i8_avx2(w, x, y, n, k);
    return;
  }
#endif
  rows_i8(w, x, y, n, k);
}

void kz_gemvs_f32(const float *w, const float *x, float *y, const int32_t *n, const int32_t *k, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    kz_gemv_f32(w, x, y, n[i], k[i]);
    w += (size_t)((n[i] + BLOCK - 1) / BLOCK) * BLOCK * (size_t)k[i];
  }
}

void kz_gemvs_i8(const int8_t *w, const int8_t *x, int32_t *y, const int32_t *n, const int32_t *k, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    kz_gemv_i8(w, x, y, n[i], k[i]);
    w += (size_t)n[i] * (size_t)k[i];
  }
}
