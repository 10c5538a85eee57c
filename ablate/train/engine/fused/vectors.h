/* Vectors of 16 floats, in GCC's and clang's own notation: the machine's, or several of them. Where one instruction does
 * the same as several, it is taken. */
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

typedef float vf __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t vu __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t vh __attribute__((vector_size(2 * WIDTH)));
typedef uint8_t vb __attribute__((vector_size(WIDTH)));

static inline vf vload_f32(const float *from) { vf x; memcpy(&x, from, sizeof x); return x; }
static inline void vstore_f32(float *to, vf x) { memcpy(to, &x, sizeof x); }

#ifdef __AVX512BF16__
static inline vf vload_bf16(const bf16 *from) {
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
}
static inline void vstore_bf16(bf16 *to, vf x) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}
/* x, and 0 where it is negative; NaN stays. */
static inline vf positive(vf x) { return (vf)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x); }
/* g where x is positive, else 0. */
static inline vf where_positive(vf x, vf g) {
    return (vf)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_GT_OQ), (__m512)g);
}
static inline vu vload_u8(const uint8_t *from) {
    return (vu)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
}
/* x where `of` is `value`, else 0. */
static inline vf where_equal(vu of, uint32_t value, vf x) {
    return (vf)_mm512_maskz_mov_ps(_mm512_cmpeq_epi32_mask((__m512i)of, _mm512_set1_epi32((int)value)), (__m512)x);
}
#else
static inline vf vload_bf16(const bf16 *from) {
    vh raw;
    memcpy(&raw, from, sizeof raw);
    return (vf)(__builtin_convertvector(raw, vu) << 16);
}
/* As `bf16_store`. */
static inline void vstore_bf16(bf16 *to, vf x) {
    vu bits = (vu)x, none = (vu)(x != x), tiny = (vu)((bits & 0x7f800000) == 0);
    vu rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    rounded = (rounded & ~none) | ((bits >> 16 | 0x40) & none);
    vh half = __builtin_convertvector(rounded & (~tiny | 0x8000), vh);
    memcpy(to, &half, sizeof half);
}
static inline vf positive(vf x) { return (vf)((vu)x & ~(vu)(x < 0)); }
static inline vf where_positive(vf x, vf g) { return (vf)((vu)g & (vu)(x > 0)); }
static inline vu vload_u8(const uint8_t *from) {
    vb raw;
    memcpy(&raw, from, sizeof raw);
    return __builtin_convertvector(raw, vu);
}
static inline vf where_equal(vu of, uint32_t value, vf x) { return (vf)((vu)x & (vu)(of == value)); }
#endif
