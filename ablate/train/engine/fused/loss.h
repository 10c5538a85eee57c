/* The loss of a batch with its gradient, for one type of logits `T`; included by typed.h. */

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
