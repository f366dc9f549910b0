/* Attention of one head of one element on a CPU, in plain C. Included once for each type of number:
 * NUMBER is the type, ATTEND the function's name.
 *
 * All is computed in FP32. Keys stand transposed, so that both inner loops go along memory and a compiler makes vectors
 * of them. It is here so that graphs with the operator can be checked and run without a GPU. */

static void ATTEND(void *given, size_t index) {
    struct call *call = given;
    const int64_t sequence = call->sequence, stride = call->stride, width = call->hidden / call->heads;
    const int64_t element = (int64_t)index / call->heads, head = (int64_t)index % call->heads;
    const NUMBER *query = (const NUMBER *)call->query + element * sequence * stride + head * width;
    const NUMBER *key = (const NUMBER *)call->key + element * sequence * stride + head * width;
    const NUMBER *value = (const NUMBER *)call->value + element * sequence * stride + head * width;
    const int64_t *mask = call->mask ? call->mask + element * sequence : NULL;
    NUMBER *result = (NUMBER *)call->result + element * sequence * call->hidden + head * width;
    float *keys = malloc(sizeof(float) * (size_t)(2 * sequence * width + sequence + width));
    if (!keys) {
        call->failed = 1;
        return;
    }
    float *values = keys + sequence * width, *shares = values + sequence * width, *sums = shares + sequence;
    for (int64_t token = 0; token < sequence; token++)
        for (int64_t number = 0; number < width; number++) {
            keys[number * sequence + token] = (float)key[token * stride + number];
            values[token * width + number] = (float)value[token * stride + number];
        }
    const float scale = 1.0f / sqrtf((float)width);
    for (int64_t row = 0; row < sequence; row++) {
        memset(shares, 0, sizeof(float) * (size_t)sequence);
        for (int64_t number = 0; number < width; number++) {
            const float asked = (float)query[row * stride + number] * scale;
            for (int64_t token = 0; token < sequence; token++) shares[token] += asked * keys[number * sequence + token];
        }
        float largest = -INFINITY, total = 0;
        for (int64_t token = 0; token < sequence; token++) {
            /* A number, not infinity: an element without any token is then an average, and no NaN. */
            if (mask && !mask[token]) shares[token] = -1e30f;
            largest = fmaxf(largest, shares[token]);
        }
        memset(sums, 0, sizeof(float) * (size_t)width);
        for (int64_t token = 0; token < sequence; token++) {
            const float share = expf(shares[token] - largest);
            total += share;
            for (int64_t number = 0; number < width; number++) sums[number] += share * values[token * width + number];
        }
        for (int64_t number = 0; number < width; number++)
            result[row * call->hidden + number] = (NUMBER)(sums[number] / total);
    }
    free(keys);
}

#undef NUMBER
#undef ATTEND
