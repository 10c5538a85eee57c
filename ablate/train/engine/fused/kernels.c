/* Passes over feature maps that PyTorch makes one by one, in one pass each: batch norm with its rectifier, pooling with
 * the skip's gradient, what is raised beside a skip, cross entropy. Feature maps are channels last: `rows` pixels of `c`
 * channels.
 *
 * Every result is fixed by this text alone, whatever the compiler and its vector length: sums run in the order
 * written, products are not contracted into them (-ffp-contract=off), and all arithmetic is float32 or float64.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Floats in a vector (of GCC and clang: the machine's, or several of them). */
#define WIDTH 16
/* Vectors of accumulators that run side by side. */
#define SIDE 4
/* Values that one accumulator sums in float32 before it is emptied into float64. */
#define RUN 256
/* Pixels of the cross entropy that are worked on together. */
#define BLOCK 128

/* The least whole number of pixels of `c` channels that is a whole number of SIDE vectors, in values. */
static int64_t tile(int64_t c) {
    int64_t a = c, b = SIDE * WIDTH;
    while (b) { int64_t rest = a % b; a = b; b = rest; }
    return c / a * SIDE * WIDTH;
}

/* The `c` values of `from` again and again, up to `t`. */
static void repeat(const float *from, float *to, int64_t c, int64_t t) {
    for (int64_t i = 0; i < t; i += c) memcpy(to + i, from, c * sizeof(float));
}

/* `call` with C a number that the compiler knows where maps are narrow: its loop over a pixel's channels is then one or
 * two vectors. */
#define BY_CHANNELS(c, call)                                    \
    switch (c) {                                                \
    case 4: { enum { C = 4 }; call; break; }                    \
    case 8: { enum { C = 8 }; call; break; }                    \
    case 16: { enum { C = 16 }; call; break; }                  \
    case 32: { enum { C = 32 }; call; break; }                  \
    default: { int64_t C = (c); call; }                         \
    }

static inline float bits_float(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline uint32_t float_bits(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }

typedef uint16_t bf16;
static inline float bf16_load(bf16 x) { return bits_float((uint32_t)x << 16); }
/* To the nearest, ties to even; what is smaller than the least normal float becomes 0, as by the instruction that
 * processors have for it, and a NaN a quiet one. */
static inline bf16 bf16_store(float x) {
    uint32_t bits = float_bits(x);
    if ((bits & 0x7f800000) == 0) return (bf16)(bits >> 16 & 0x8000);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? (bf16)(bits >> 16 | 0x40) : (bf16)rounded;
}
static inline float f32_load(float x) { return x; }
static inline float f32_store(float x) { return x; }

/* exp for x <= 0, within 2 units in the last place: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes' coefficients).
 * NaN stays NaN. */
static inline float exp_of(float x) {
    float low = x < -87.0f ? -87.0f : x;
    float n = (low * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = (low - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * bits_float((uint32_t)((int32_t)n + 127) << 23);
}

/* log for x >= 1 (a sum of exponentials whose largest is one), Cephes' polynomial. NaN and inf stay what they are. */
static inline float log_of(float x) {
    uint32_t bits = float_bits(x);
    int32_t e = (int32_t)(bits >> 23) - 126;
    float m = bits_float((bits & 0x7fffff) | 0x3f000000); /* [0.5, 1) */
    int small = m < 0.707106781f;
    e -= small;
    m = (small ? m + m : m) - 1.0f;
    float z = m * m, p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float y = p * m * z + (float)e * -2.12194440e-4f - 0.5f * z;
    float result = m + y + (float)e * 0.693359375f;
    return bits >= 0x7f800000 ? x : result;
}

#include "vectors.h"

/* Empty SIDE vectors of sums into the totals of their channels, of which `k` is the first: the channel after the last.
 * `total` holds the c totals of `first` and then those of `second`. */
static int64_t add_to(double *total, const vf *first, const vf *second, int64_t k, int64_t c) {
    for (int j = 0; j < SIDE; j++)
        for (int i = 0; i < WIDTH; i++) {
            total[k] += first[j][i];
            total[c + k] += second[j][i];
            k = k + 1 < c ? k + 1 : 0;
        }
    return k;
}

#define T bf16
#define LOAD bf16_load
#define STORE bf16_store
#define NAME(f) f##_bf16
#include "typed.h"
#undef T
#undef LOAD
#undef STORE
#undef NAME

#define T float
#define LOAD f32_load
#define STORE f32_store
#define NAME(f) f##_f32
#include "typed.h"
