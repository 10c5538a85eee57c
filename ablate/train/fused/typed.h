/* The kernels for one type of feature map `T`; included by kernels.c once for each. All return 0, or 1 where memory
 * ran out. */

/* Mean and biased variance of each channel over the batch. Sums are taken about the first pixel's values, so that a mean
 * far from zero does not cancel the variance away. */
static int NAME(statistics)(const T *x, int64_t rows, int64_t c, float *mean, double *variance) {
    int64_t t = tile(c), n = rows * c, whole = n / t;
    float *shift = malloc(3 * t * sizeof(float));
    double *total = calloc(2 * c, sizeof(double));
    if (!shift || !total) { free(shift); free(total); return 1; }
    float *sum = shift + t, *square = sum + t;
    for (int64_t i = 0; i < t; i++) shift[i] = LOAD(x[i % c]);
    for (int64_t begin = 0; begin < whole; begin += RUN) {
        int64_t end = begin + RUN < whole ? begin + RUN : whole;
        memset(sum, 0, 2 * t * sizeof(float));
        for (int64_t b = begin; b < end; b++) {
            const T *block = x + b * t;
            for (int64_t i = 0; i < t; i++) {
                float value = LOAD(block[i]) - shift[i];
                sum[i] += value;
                square[i] += value * value;
            }
        }
        for (int64_t i = 0; i < t; i++) { total[i % c] += sum[i]; total[c + i % c] += square[i]; }
    }
    for (int64_t i = whole * t; i < n; i++) {
        double value = LOAD(x[i]) - shift[i % c];
        total[i % c] += value;
        total[c + i % c] += value * value;
    }
    for (int64_t k = 0; k < c; k++) {
        double m = total[k] / rows, v = total[c + k] / rows - m * m;
        mean[k] = (float)(m + shift[k]);
        variance[k] = v < 0 ? 0 : v; /* NaN stays */
    }
    free(shift); free(total);
    return 0;
}

/* y = relu(norm(x) [+ add]). In training (`batch`) the statistics are those of the batch, and the running ones take
 * them in, the variance unbiased; else they are the running ones. Leaves mean, inverse deviation, scale and offset of
 * each channel, c floats each, in `used`. */
int NAME(norm)(const T *x, const T *add, T *y, int64_t rows, int64_t c, const float *weight, const float *bias,
               float *running_mean, float *running_variance, double momentum, double epsilon, int batch, float *used) {
    int64_t t = tile(c), n = rows * c;
    float *mean = used, *inverse = mean + c, *scale = inverse + c, *offset = scale + c;
    float *s = malloc(2 * t * sizeof(float));
    double *variance = malloc(c * sizeof(double));
    if (!s || !variance || (batch && NAME(statistics)(x, rows, c, mean, variance))) { free(s); free(variance); return 1; }
    for (int64_t k = 0; k < c; k++) {
        if (batch) {
            running_mean[k] = (float)((1 - momentum) * running_mean[k] + momentum * mean[k]);
            running_variance[k] =
                (float)((1 - momentum) * running_variance[k] + momentum * (variance[k] * rows / (rows - 1)));
        } else {
            mean[k] = running_mean[k];
            variance[k] = running_variance[k];
        }
        inverse[k] = (float)(1 / sqrt(variance[k] + epsilon));
        scale[k] = weight[k] * inverse[k];
        offset[k] = bias[k] - mean[k] * scale[k];
    }
    float *o = s + t;
    for (int64_t i = 0; i < t; i++) { s[i] = scale[i % c]; o[i] = offset[i % c]; }
    for (int64_t at = 0; at < n; at += t) {
        int64_t m = n - at < t ? n - at : t;
        if (add)
            for (int64_t i = 0; i < m; i++) {
                float value = LOAD(x[at + i]) * s[i] + o[i] + LOAD(add[at + i]);
                y[at + i] = STORE(value < 0 ? 0.0f : value); /* NaN stays */
            }
        else
            for (int64_t i = 0; i < m; i++) {
                float value = LOAD(x[at + i]) * s[i] + o[i];
                y[at + i] = STORE(value < 0 ? 0.0f : value);
            }
    }
    free(s); free(variance);
    return 0;
}

/* The rectifier's gradient where something was added before it: g where y is positive. */
int NAME(rectifier_backward)(const T *g, const T *y, T *masked, int64_t n) {
    for (int64_t i = 0; i < n; i++) masked[i] = LOAD(y[i]) > 0 ? g[i] : STORE(0.0f);
    return 0;
}

/* Gradients of y = relu(norm(x)) (`rectified`) or of y = norm(x), with what `norm` left in `used`: dx, and of each
 * channel that of the weight and that of the bias. Statistics of the batch move with x, others are constants. */
int NAME(norm_backward)(const T *g, const T *x, T *dx, int64_t rows, int64_t c, const float *used, float *d_weight,
                        float *d_bias, int rectified, int batch) {
    const float *mean = used, *inverse = mean + c, *scale = inverse + c, *offset = scale + c;
    int64_t t = tile(c), n = rows * c, whole = n / t;
    float *s = malloc(7 * t * sizeof(float));
    double *total = calloc(2 * c, sizeof(double));
    if (!s || !total) { free(s); free(total); return 1; }
    float *o = s + t, *m = o + t, *sum = m + t, *dot = sum + t, *slope = dot + t, *level = slope + t;
    for (int64_t i = 0; i < t; i++) { s[i] = scale[i % c]; o[i] = rectified ? offset[i % c] : 0; m[i] = mean[i % c]; }
    for (int64_t begin = 0; begin < whole; begin += RUN) {
        int64_t end = begin + RUN < whole ? begin + RUN : whole;
        memset(sum, 0, 2 * t * sizeof(float));
        for (int64_t b = begin; b < end; b++) {
            const T *xs = x + b * t, *gs = g + b * t;
            if (rectified)
                for (int64_t i = 0; i < t; i++) {
                    float value = LOAD(xs[i]), grad = value * s[i] + o[i] > 0 ? LOAD(gs[i]) : 0.0f;
                    sum[i] += grad;
                    dot[i] += grad * (value - m[i]);
                }
            else
                for (int64_t i = 0; i < t; i++) {
                    float grad = LOAD(gs[i]);
                    sum[i] += grad;
                    dot[i] += grad * (LOAD(xs[i]) - m[i]);
                }
        }
        for (int64_t i = 0; i < t; i++) { total[i % c] += sum[i]; total[c + i % c] += dot[i]; }
    }
    for (int64_t i = whole * t; i < n; i++) {
        int64_t k = i % c;
        float value = LOAD(x[i]), grad = !rectified || value * scale[k] + offset[k] > 0 ? LOAD(g[i]) : 0.0f;
        total[k] += grad;
        total[c + k] += (double)grad * (value - mean[k]);
    }
    for (int64_t k = 0; k < c; k++) {
        d_bias[k] = (float)total[k];
        d_weight[k] = (float)(total[c + k] * inverse[k]);
    }
    /* dx = scale * (g - sum / rows - (x - mean) * inverse^2 * dot / rows) */
    for (int64_t i = 0; i < t; i++) {
        int64_t k = i % c;
        slope[i] = batch ? (float)(-scale[k] * (double)inverse[k] * inverse[k] * total[c + k] / rows) : 0;
        level[i] = batch ? (float)(-scale[k] * total[k] / rows) : 0;
    }
    for (int64_t at = 0; at < n; at += t) {
        int64_t length = n - at < t ? n - at : t;
        if (rectified)
            for (int64_t i = 0; i < length; i++) {
                float value = LOAD(x[at + i]), grad = value * s[i] + o[i] > 0 ? LOAD(g[at + i]) : 0.0f;
                dx[at + i] = STORE(grad * s[i] + ((value - m[i]) * slope[i] + level[i]));
            }
        else
            for (int64_t i = 0; i < length; i++)
                dx[at + i] = STORE(LOAD(g[at + i]) * s[i] + ((LOAD(x[at + i]) - m[i]) * slope[i] + level[i]));
    }
    free(s); free(total);
    return 0;
}

/* The even and the odd pixels of a row of `w`; an even one without an odd neighbour stands for it. */
static inline __attribute__((always_inline)) void NAME(part)(const T *row, T *even, T *odd, int64_t w, int64_t c) {
    for (int64_t j = 0; j < (w + 1) / 2; j++) {
        memcpy(even + j * c, row + 2 * j * c, c * sizeof(T));
        memcpy(odd + j * c, row + (2 * j + 1 < w ? 2 * j + 1 : 2 * j) * c, c * sizeof(T));
    }
}

/* Each pixel of a row twice, up to `w` pixels: gradients and places of maxima on the grid that they came from. */
static inline __attribute__((always_inline)) void NAME(spread)(const T *g, const uint8_t *place, T *wide_g,
                                                               uint8_t *wide_place, int64_t w, int64_t c) {
    for (int64_t j = 0; j < w; j++) {
        memcpy(wide_g + j * c, g + j / 2 * c, c * sizeof(T));
        memcpy(wide_place + j * c, place + j / 2 * c, c);
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
            best = at ? right : best;
            int wins = under > best || under != under;
            best = wins ? under : best, at = wins ? 2 : at;
            wins = across > best || across != across;
            maxima[k] = STORE(wins ? across : best), places[k] = (uint8_t)(wins ? 3 : at);
        }
    }
    free(a);
    return 0;
}

/* dx = the gradient of each maximum at its place, plus that of the skip where there is one. */
int NAME(pool_backward)(const T *g, const uint8_t *place, const T *skip, T *dx, int64_t images, int64_t h, int64_t w,
                        int64_t c) {
    int64_t oh = (h + 1) / 2, ow = (w + 1) / 2, length = w * c;
    T *grads = malloc(length * (sizeof(T) + 2));
    if (!grads) return 1;
    uint8_t *places = (uint8_t *)(grads + length), *odd = places + length;
    for (int64_t k = 0; k < length; k++) odd[k] = (uint8_t)(k / c & 1);
    for (int64_t row = 0; row < images * h; row++) {
        int64_t image = row / h, i = row % h;
        int64_t from = (image * oh + i / 2) * ow * c, to = row * length;
        uint8_t lower = (uint8_t)(2 * (i & 1));
        BY_CHANNELS(c, NAME(spread)(g + from, place + from, grads, places, w, C));
        if (skip)
            for (int64_t k = 0; k < length; k++) {
                float grad = LOAD(grads[k]);
                dx[to + k] = STORE(LOAD(skip[to + k]) + (places[k] == (uint8_t)(lower + odd[k]) ? grad : 0.0f));
            }
        else
            for (int64_t k = 0; k < length; k++) dx[to + k] = places[k] == (uint8_t)(lower + odd[k]) ? grads[k] : (T)0;
    }
    free(grads);
    return 0;
}

/* Mean cross entropy over the labelled pixels, weighted by class where `weights` is given, and its gradient. Returns 2
 * where a label is neither a class nor `ignore`. */
int NAME(cross_entropy)(const T *logits, const uint8_t *target, T *gradient, int64_t rows, int64_t c, int64_t ignore,
                        const float *weights, float *loss) {
    double norm = 0, total = 0;
    for (int64_t i = 0; i < rows; i++)
        if (target[i] != ignore) {
            if (target[i] >= c) return 2;
            norm += weights ? weights[target[i]] : 1.0f;
        }
    float each = (float)(1.0 / norm); /* without a labelled pixel infinite, and the loss 0/0 */
    /* A plane a class, so that all pixels of a block are computed side by side. */
    float *plane = malloc((c + 5) * BLOCK * sizeof(float));
    T *raw = malloc(c * BLOCK * sizeof(T));
    if (!plane || !raw) { free(plane); free(raw); return 1; }
    float *top = plane + c * BLOCK, *sum = top + BLOCK, *picked = sum + BLOCK, *share = picked + BLOCK, *label = share + BLOCK;
    memset(raw, 0, c * BLOCK * sizeof(T));
    for (int64_t at = 0; at < rows; at += BLOCK) {
        int64_t m = rows - at < BLOCK ? rows - at : BLOCK;
        for (int64_t i = 0; i < BLOCK; i++) {
            int labelled = i < m && target[at + i] != ignore;
            label[i] = labelled ? target[at + i] : -1.0f;
            share[i] = labelled ? (weights ? weights[target[at + i]] : 1.0f) : 0.0f;
        }
        for (int64_t i = 0; i < m; i++)
            for (int64_t k = 0; k < c; k++) raw[k * BLOCK + i] = logits[(at + i) * c + k];
        for (int64_t i = 0; i < c * BLOCK; i++) plane[i] = LOAD(raw[i]);
        for (int64_t i = 0; i < BLOCK; i++) top[i] = plane[i], sum[i] = 0, picked[i] = 0;
        for (int64_t k = 1; k < c; k++) {
            const float *own = plane + k * BLOCK;
            for (int64_t i = 0; i < BLOCK; i++) top[i] = own[i] > top[i] ? own[i] : top[i];
        }
        for (int64_t k = 0; k < c; k++) {
            float *own = plane + k * BLOCK;
            for (int64_t i = 0; i < BLOCK; i++) {
                float value = own[i] - top[i];
                picked[i] = label[i] == (float)k ? value : picked[i];
                own[i] = exp_of(value);
                sum[i] += own[i];
            }
        }
        for (int64_t i = 0; i < BLOCK; i++) {
            /* An ignored pixel's logits do not count, finite or not. */
            picked[i] = share[i] != 0 ? share[i] * (log_of(sum[i]) - picked[i]) : 0.0f;
            share[i] = label[i] < 0 ? 0.0f : share[i] * each;
            sum[i] = share[i] / sum[i];
        }
        for (int64_t i = 0; i < m; i++) total += picked[i];
        for (int64_t k = 0; k < c; k++) {
            const float *own = plane + k * BLOCK;
            for (int64_t i = 0; i < BLOCK; i++) {
                float value = own[i] * sum[i] - (label[i] == (float)k ? share[i] : 0.0f);
                raw[k * BLOCK + i] = STORE(label[i] < 0 ? 0.0f : value);
            }
        }
        for (int64_t i = 0; i < m; i++)
            for (int64_t k = 0; k < c; k++) gradient[(at + i) * c + k] = raw[k * BLOCK + i];
    }
    *loss = (float)(total / norm);
    free(plane); free(raw);
    return 0;
}
