/* A double of the CUDA driver, of what attention_on_cuda.h calls: it stands in for libcuda.so.1 where there is no GPU.
 *
 * Names and parameters are those of cuda.h (test_onnxruntime_abi.py holds the operator's declarations against it). Its
 * device memory is the host's. A module is the text in place of a binary, "queries width masked". A launch is computed
 * from its arguments alone, in the order in which Triton's compiled kernel takes them, for the rows that its grid
 * covers, and written to the file that DRIVER_DIARY names. */

#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static FILE *diary(void) {
    static FILE *file;
    if (!file) file = fopen(getenv("DRIVER_DIARY"), "w");
    setlinebuf(file);
    return file;
}

static int fails(const char *name) {
    const char *failing = getenv("DRIVER_FAILS");
    return failing && !strcmp(failing, name) ? 209 : 0;
}

int cuGetErrorString(int result, const char **text) {
    *text = result == 209 ? "no kernel image is available for execution on the device" : "unknown";
    return 0;
}

static __thread void *current; /* of each thread */
static __thread int known;

int cuCtxGetCurrent(void **context) {
    if (!known) current = getpid() == gettid() && !fails("context") ? (void *)1 : NULL; /* the provider's thread */
    known = 1;
    *context = current;
    return 0;
}

int cuCtxSetCurrent(void *context) {
    current = context, known = 1;
    return 0;
}

int cuModuleLoadData(void **module, const void *image) {
    fprintf(diary(), "load %s\n", (const char *)image);
    *module = (void *)image;
    return fails("cuModuleLoadData");
}

int cuModuleUnload(void *module) {
    if (current != (void *)1) return 201; /* CUDA_ERROR_INVALID_CONTEXT */
    fprintf(diary(), "unload %s\n", (const char *)module);
    return 0;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = module;
    return strcmp(name, "attention") ? 500 : 0;
}

int cuFuncSetAttribute(void *function, int attribute, int value) {
    fprintf(diary(), "attribute %s: %d = %d\n", (const char *)function, attribute, value);
    return 0;
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *stream, void **arguments, void **extra) {
    int queries, width, masked;
    if (sscanf(function, "%d %d %d", &queries, &width, &masked) != 3 || extra) return 1;
    fprintf(diary(), "launch %s: grid %u %u %u block %u %u %u shared %u stream %p\n", (const char *)function, grid_x,
            grid_y, grid_z, block_x, block_y, block_z, shared, stream);
    const _Float16 *query = *(const _Float16 **)*arguments++, *key = *(const _Float16 **)*arguments++;
    const _Float16 *value = *(const _Float16 **)*arguments++;
    const int64_t *mask = masked ? *(const int64_t **)*arguments++ : NULL;
    _Float16 *result = *(_Float16 **)*arguments++;
    const int stride = *(int32_t *)*arguments++, result_stride = *(int32_t *)*arguments++;
    const int sequence = *(int32_t *)*arguments++;
    if (*(void **)*arguments++ || *(void **)*arguments++) return 1; /* memory that nobody gave */
    for (unsigned element = 0; element < grid_z; element++)
        for (unsigned head = 0; head < grid_y; head++)
            for (int row = 0; row < (int)grid_x * queries && row < sequence; row++) {
                const long start = (long)element * sequence * stride + (long)head * width;
                double shares[4096], largest = -INFINITY, total = 0;
                for (int token = 0; token < sequence; token++) {
                    double score = 0;
                    for (int number = 0; number < width; number++)
                        score += (double)query[start + (long)row * stride + number] *
                                 (double)key[start + (long)token * stride + number];
                    shares[token] = mask && !mask[element * sequence + token] ? -1e30 : score / sqrt(width);
                    largest = fmax(largest, shares[token]);
                }
                for (int token = 0; token < sequence; token++) total += shares[token] = exp(shares[token] - largest);
                for (int number = 0; number < width; number++) {
                    double sum = 0;
                    for (int token = 0; token < sequence; token++)
                        sum += shares[token] * (double)value[start + (long)token * stride + number];
                    result[(long)element * sequence * result_stride + (long)row * result_stride + (long)head * width +
                           number] = (_Float16)(sum / total);
                }
            }
    return 0;
}
