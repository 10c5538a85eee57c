/* Passes that move feature maps between grids, for one type of feature map `T`; included by typed.h. */

/* The even and the odd pixels of a row of `w`; an even one without an odd neighbour stands for it. */
static inline __attribute__((always_inline)) void NAME(part)(const T *row, T *even, T *odd, int64_t w, int64_t c) {
    for (int64_t j = 0; j < (w + 1) / 2; j++) {
        memcpy(even + j * c, row + 2 * j * c, c * sizeof(T));
        memcpy(odd + j * c, row + (2 * j + 1 < w ? 2 * j + 1 : 2 * j) * c, c * sizeof(T));
    }
}

/* Maxima of 2 x 2 windows (an incomplete one at an odd end counts) and in `place` which of the four it was, the first
 * of equals; a NaN wins. */
int NAME(pool)(const T *x, T *y, uint8_t *place, int64_t images, int64_t h, int64_t w, int64_t c) {
    int64_t oh = (h + 1) / 2, length = (w + 1) / 2 * c;
    T *a = malloc(4 * length * sizeof(T));
    if (!a) return 1;
    T *b = a + length, *d = b + length, *e = d + length;
    for (int64_t row = 0; row < images * oh; row++) {
        int64_t i = row % oh * 2;
        /* A window that lacks a neighbour meets its own values again, which are not greater. */
        const T *upper = x + (row / oh * h + i) * w * c, *lower = i + 1 < h ? upper + w * c : upper;
        BY_CHANNELS(c, (NAME(part)(upper, a, b, w, C), NAME(part)(lower, d, e, w, C)));
        T *maxima = y + row * length;
        uint8_t *places = place + row * length;
        for (int64_t k = 0; k < length; k++) {
            float best = LOAD(a[k]), right = LOAD(b[k]), under = LOAD(d[k]), across = LOAD(e[k]);
            int at = right > best || right != right;
            T kept = at ? b[k] : a[k];
            best = at ? right : best;
            int wins = under > best || under != under;
            kept = wins ? d[k] : kept, best = wins ? under : best, at = wins ? 2 : at;
            wins = across > best || across != across;
            maxima[k] = wins ? e[k] : kept, places[k] = (uint8_t)(wins ? 3 : at);
        }
    }
    free(a);
    return 0;
}

/* dx = the gradient of each maximum at its place, plus that of the skip where there is one. */
static inline __attribute__((always_inline)) void NAME(unpool_row)(const T *g, const uint8_t *place, const T *skip, T *dx,
                                                                   uint8_t lower, int64_t w, int64_t c) {
    for (int64_t j = 0; j < w; j++) {
        const T *grad = g + j / 2 * c;
        const uint8_t *of = place + j / 2 * c, own = lower + (j & 1);
        int64_t at = j * c, k = 0;
        for (; k + WIDTH <= c; k += WIDTH) {
            vf own_grad = where_equal(vload_u8(of + k), own, NAME(vload)(grad + k));
            NAME(vstore)(dx + at + k, skip ? NAME(vload)(skip + at + k) + own_grad : own_grad);
        }
        for (; k < c; k++) {
            float own_grad = of[k] == own ? LOAD(grad[k]) : 0.0f;
            dx[at + k] = STORE(skip ? LOAD(skip[at + k]) + own_grad : own_grad);
        }
    }
}

int NAME(pool_backward)(const T *g, const uint8_t *place, const T *skip, T *dx, int64_t images, int64_t h, int64_t w,
                        int64_t c) {
    int64_t oh = (h + 1) / 2, ow = (w + 1) / 2;
    for (int64_t row = 0; row < images * h; row++) {
        int64_t from = (row / h * oh + row % h / 2) * ow * c, to = row * w * c;
        uint8_t lower = (uint8_t)(2 * (row % h & 1));
        if (skip) BY_CHANNELS(c, NAME(unpool_row)(g + from, place + from, skip + to, dx + to, lower, w, C))
        else BY_CHANNELS(c, NAME(unpool_row)(g + from, place + from, NULL, dx + to, lower, w, C))
    }
    return 0;
}

/* y = of each pixel the `cs` channels of the skip, where there is one, and then the `c` that a transposed convolution of
 * 2 x 2 with stride 2 has there: `parts` holds them by coarse pixel and place in its window, without the bias. */
static inline __attribute__((always_inline)) void NAME(join_row)(const T *skip, const T *parts, const float *bias, T *y,
                                                                 int64_t w, int64_t cs, int64_t c) {
    for (int64_t j = 0; j < w; j++) {
        const T *part = parts + (j / 2 * 4 + (j & 1)) * c;
        T *to = y + j * (cs + c) + cs;
        memcpy(to - cs, skip + j * cs, cs * sizeof(T));
        int64_t k = 0;
        for (; k + WIDTH <= c; k += WIDTH) NAME(vstore)(to + k, NAME(vload)(part + k) + vload_f32(bias + k));
        for (; k < c; k++) to[k] = STORE(LOAD(part[k]) + bias[k]);
    }
}

int NAME(join)(const T *skip, const T *parts, const float *bias, T *y, int64_t images, int64_t h, int64_t w, int64_t cs,
               int64_t c) {
    int64_t oh = (h + 1) / 2, ow = (w + 1) / 2;
    for (int64_t row = 0; row < images * h; row++) {
        int64_t i = row % h;
        const T *own = parts + ((row / h * oh + i / 2) * ow * 4 + (i & 1) * 2) * c, *beside = skip + row * w * cs;
        T *to = y + row * w * (cs + c);
        if (cs == c) BY_CHANNELS(c, NAME(join_row)(beside, own, bias, to, w, C, C))
        else if (cs == 0) BY_CHANNELS(c, NAME(join_row)(beside, own, bias, to, w, 0, C))
        else NAME(join_row)(beside, own, bias, to, w, cs, c);
    }
    return 0;
}

/* The way back: the gradients of the skip and of `parts`, 0 where a window reaches beyond the map, and of the bias. */
static inline __attribute__((always_inline)) void NAME(part_row)(const T *g, T *skip, T *parts, float *sum, int64_t w,
                                                                 int64_t cs, int64_t c) {
    for (int64_t j = 0; j < w; j++) {
        T *part = parts + (j / 2 * 4 + (j & 1)) * c;
        const T *from = g + j * (cs + c) + cs;
        memcpy(skip + j * cs, from - cs, cs * sizeof(T));
        memcpy(part, from, c * sizeof(T));
        int64_t k = 0;
        for (; k + WIDTH <= c; k += WIDTH) vstore_f32(sum + k, vload_f32(sum + k) + NAME(vload)(from + k));
        for (; k < c; k++) sum[k] += LOAD(from[k]);
    }
    if (w & 1) memset(parts + (w / 2 * 4 + 1) * c, 0, c * sizeof(T));
}

int NAME(join_backward)(const T *g, T *skip, T *parts, float *d_bias, int64_t images, int64_t h, int64_t w, int64_t cs,
                        int64_t c) {
    int64_t oh = (h + 1) / 2, ow = (w + 1) / 2;
    double *total = calloc(c, sizeof(double));
    float *sum = malloc(c * sizeof(float));
    if (!total || !sum) { free(total); free(sum); return 1; }
    for (int64_t row = 0; row < images * h; row++) {
        int64_t i = row % h;
        const T *from = g + row * w * (cs + c);
        T *own = parts + ((row / h * oh + i / 2) * ow * 4 + (i & 1) * 2) * c, *beside = skip + row * w * cs;
        memset(sum, 0, c * sizeof(float));
        if (cs == c) BY_CHANNELS(c, NAME(part_row)(from, beside, own, sum, w, C, C))
        else if (cs == 0) BY_CHANNELS(c, NAME(part_row)(from, beside, own, sum, w, 0, C))
        else NAME(part_row)(from, beside, own, sum, w, cs, c);
        for (int64_t k = 0; k < c; k++) total[k] += sum[k];
        if (i == h - 1 && h & 1)
            for (int64_t j = 0; j < ow; j++) memset(own + (j * 4 + 2) * c, 0, 2 * c * sizeof(T));
    }
    for (int64_t k = 0; k < c; k++) d_bias[k] = (float)total[k];
    free(total); free(sum);
    return 0;
}
