/* Batch norm with its rectifier, for one type of feature map `T`; included by typed.h. A tile is a whole number of
 * pixels and of SIDE vectors; what is left at the end of a map is less than a tile and goes value by value. */

/* Mean and biased variance of each channel over the batch. Sums are taken about the first pixel's values, so that a mean
 * far from zero does not cancel the variance away. */
static int NAME(statistics)(const T *x, int64_t rows, int64_t c, float *mean, double *variance) {
    int64_t t = tile(c), n = rows * c, whole = n / t;
    float *shift = malloc(t * sizeof(float));
    double *total = calloc(2 * c, sizeof(double));
    if (!shift || !total) { free(shift); free(total); return 1; }
    for (int64_t i = 0, k = 0; i < t; i++, k = k + 1 < c ? k + 1 : 0) shift[i] = LOAD(x[k]);
    for (int64_t begin = 0; begin < whole; begin += RUN) {
        int64_t end = begin + RUN < whole ? begin + RUN : whole;
        for (int64_t at = 0, k = 0; at < t; at += SIDE * WIDTH) {
            vf about[SIDE], sum[SIDE], square[SIDE];
            for (int j = 0; j < SIDE; j++) {
                about[j] = vload_f32(shift + at + j * WIDTH);
                sum[j] = square[j] = (vf){0};
            }
            for (int64_t b = begin; b < end; b++)
                for (int j = 0; j < SIDE; j++) {
                    vf value = NAME(vload)(x + b * t + at + j * WIDTH) - about[j];
                    sum[j] += value;
                    square[j] += value * value;
                }
            k = add_to(total, sum, square, k, c);
        }
    }
    for (int64_t i = whole * t, k = 0; i < n; i++, k = k + 1 < c ? k + 1 : 0) {
        double value = LOAD(x[i]) - shift[k];
        total[k] += value;
        total[c + k] += value * value;
    }
    for (int64_t k = 0; k < c; k++) {
        double m = total[k] / rows, v = total[c + k] / rows - m * m;
        mean[k] = (float)(m + shift[k]);
        variance[k] = v < 0 ? 0 : v; /* NaN stays */
    }
    free(shift); free(total);
    return 0;
}

/* y = norm(x) [+ add], and what is negative in it 0 (`rectified`). In training (`batch`) the statistics are those of the batch, and the running ones take
 * them in, the variance unbiased; else they are the running ones. Leaves mean, inverse deviation, scale and offset of
 * each channel, c floats each, in `used`. */
int NAME(norm)(const T *x, const T *add, T *y, int64_t rows, int64_t c, const float *weight, const float *bias,
               float *running_mean, float *running_variance, double momentum, double epsilon, int rectified, int batch,
               float *used) {
    int64_t t = tile(c), n = rows * c, whole = n / t * t;
    float *mean = used, *inverse = mean + c, *scale = inverse + c, *offset = scale + c;
    float *s = malloc(2 * t * sizeof(float)), *o = s + t;
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
    repeat(scale, s, c, t);
    repeat(offset, o, c, t);
    for (int64_t at = 0; at < whole; at += t)
        if (add)
            for (int64_t i = 0; i < t; i += WIDTH) {
                vf value = NAME(vload)(x + at + i) * vload_f32(s + i) + vload_f32(o + i) + NAME(vload)(add + at + i);
                NAME(vstore)(y + at + i, rectified ? positive(value) : value);
            }
        else
            for (int64_t i = 0; i < t; i += WIDTH) {
                vf value = NAME(vload)(x + at + i) * vload_f32(s + i) + vload_f32(o + i);
                NAME(vstore)(y + at + i, rectified ? positive(value) : value);
            }
    for (int64_t at = whole; at < n; at++) {
        float value = LOAD(x[at]) * s[at - whole] + o[at - whole];
        if (add) value += LOAD(add[at]);
        y[at] = STORE(rectified && value < 0 ? 0.0f : value); /* NaN stays */
    }
    free(s); free(variance);
    return 0;
}

/* The rectifier's gradient where something was added before it: g where y is positive. */
int NAME(rectifier_backward)(const T *g, const T *y, T *masked, int64_t n) {
    for (int64_t i = 0; i < n; i++) masked[i] = LOAD(y[i]) > 0 ? g[i] : STORE(0.0f);
    return 0;
}

/* Sums of each channel over the pixels, in `total`: of the gradient, and of the gradient times x less its mean. */
static inline __attribute__((always_inline)) void NAME(gradient_sums)(
    const T *g, const T *x, int64_t rows, int64_t c, const float *s, const float *o, const float *m, double *total,
    int rectified) {
    int64_t t = tile(c), n = rows * c, whole = n / t;
    for (int64_t begin = 0; begin < whole; begin += RUN) {
        int64_t end = begin + RUN < whole ? begin + RUN : whole;
        for (int64_t at = 0, k = 0; at < t; at += SIDE * WIDTH) {
            vf scale[SIDE], offset[SIDE], mean[SIDE], sum[SIDE], dot[SIDE];
            for (int j = 0; j < SIDE; j++) {
                scale[j] = vload_f32(s + at + j * WIDTH);
                offset[j] = vload_f32(o + at + j * WIDTH);
                mean[j] = vload_f32(m + at + j * WIDTH);
                sum[j] = dot[j] = (vf){0};
            }
            for (int64_t b = begin; b < end; b++)
                for (int j = 0; j < SIDE; j++) {
                    int64_t place = b * t + at + j * WIDTH;
                    vf value = NAME(vload)(x + place), grad = NAME(vload)(g + place);
                    if (rectified) grad = where_positive(value * scale[j] + offset[j], grad);
                    sum[j] += grad;
                    dot[j] += grad * (value - mean[j]);
                }
            k = add_to(total, sum, dot, k, c);
        }
    }
    for (int64_t i = whole * t, k = 0; i < n; i++, k = k + 1 < c ? k + 1 : 0) {
        float value = LOAD(x[i]), grad = !rectified || value * s[k] + o[k] > 0 ? LOAD(g[i]) : 0.0f;
        total[k] += grad;
        total[c + k] += (double)grad * (value - m[k]);
    }
}

/* Gradients of y = relu(norm(x)) (`rectified`) or of y = norm(x), with what `norm` left in `used`: dx, and of each
 * channel that of the weight and that of the bias. Statistics of the batch move with x, others are constants. */
int NAME(norm_backward)(const T *g, const T *x, T *dx, int64_t rows, int64_t c, const float *used, float *d_weight,
                        float *d_bias, int rectified, int batch) {
    const float *mean = used, *inverse = mean + c, *scale = inverse + c, *offset = scale + c;
    int64_t t = tile(c), n = rows * c, whole = n / t * t;
    float *s = malloc((5 * t + 2 * c) * sizeof(float));
    double *total = calloc(2 * c, sizeof(double));
    if (!s || !total) { free(s); free(total); return 1; }
    float *o = s + t, *m = o + t, *slope = m + t, *level = slope + t, *slopes = level + t, *levels = slopes + c;
    repeat(scale, s, c, t);
    repeat(offset, o, c, t);
    repeat(mean, m, c, t);
    if (rectified) NAME(gradient_sums)(g, x, rows, c, s, o, m, total, 1);
    else NAME(gradient_sums)(g, x, rows, c, s, o, m, total, 0);
    for (int64_t k = 0; k < c; k++) {
        d_bias[k] = (float)total[k];
        d_weight[k] = (float)(total[c + k] * inverse[k]);
        /* dx = scale * (g - sum / rows - (x - mean) * inverse^2 * dot / rows) */
        slopes[k] = batch ? (float)(-scale[k] * (double)inverse[k] * inverse[k] * total[c + k] / rows) : 0;
        levels[k] = batch ? (float)(-scale[k] * total[k] / rows) : 0;
    }
    repeat(slopes, slope, c, t);
    repeat(levels, level, c, t);
    for (int64_t at = 0; at < whole; at += t)
        for (int64_t i = 0; i < t; i += WIDTH) {
            vf value = NAME(vload)(x + at + i), grad = NAME(vload)(g + at + i), factor = vload_f32(s + i);
            if (rectified) grad = where_positive(value * factor + vload_f32(o + i), grad);
            vf moved = (value - vload_f32(m + i)) * vload_f32(slope + i) + vload_f32(level + i);
            NAME(vstore)(dx + at + i, grad * factor + moved);
        }
    for (int64_t at = whole; at < n; at++) {
        int64_t i = at - whole;
        float value = LOAD(x[at]), grad = !rectified || value * s[i] + o[i] > 0 ? LOAD(g[at]) : 0.0f;
        dx[at] = STORE(grad * s[i] + ((value - m[i]) * slope[i] + level[i]));
    }
    free(s); free(total);
    return 0;
}
