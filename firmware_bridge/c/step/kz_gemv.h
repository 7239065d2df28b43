/* kz_gemv — matrix-vector products at the speed of memory: the floor under any step of a recurrent model.
 *
 * A step of one stream multiplies every weight once, so the time to stream the weights bounds it from below;
 * `kizzasi-edge bench` prints that bound beside what an engine reaches.
 *
 * f32 weights are blocked: [ceil(n/32)][k][32], rows beyond n zero, so that one block of outputs stays in
 * registers while k runs. i8 weights are plain rows [n][k]. No alignment is required.
 */
#ifndef KZ_GEMV_H
#define KZ_GEMV_H

#include <stdint.h>

#define KZ_GEMV_BLOCK 32

/* y[0..ceil32(n)) = W x, x has k values. */
void kz_gemv_f32(const float *w, const float *x, float *y, int32_t n, int32_t k);

/* y[0..n) = W x in integers, exact; no value may be -128, and k <= 131072. */
void kz_gemv_i8(const int8_t *w, const int8_t *x, int32_t *y, int32_t n, int32_t k);

/* `count` products one after the other, weights lying back to back, x and y as long as the largest needs. */
void kz_gemvs_f32(const float *w, const float *x, float *y, const int32_t *n, const int32_t *k, int32_t count);
void kz_gemvs_i8(const int8_t *w, const int8_t *x, int32_t *y, const int32_t *n, const int32_t *k, int32_t count);

#endif
