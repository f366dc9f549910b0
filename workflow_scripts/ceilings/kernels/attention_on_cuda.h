/* Attention on a GPU: the kernel of attention.py, compiled ahead and launched through the driver on a given stream.
 *
 * The driver is opened when a session makes the first kernel, so that the library loads where there is none. A launch
 * allocates nothing and waits for nothing: it can be captured into a CUDA graph. */

#include <dlfcn.h>

/* What the driver must have of cuda.h: name, what it takes. All return CUresult, 0 if all is well. */
#define DRIVER_ENTRIES(ENTRY)                                                                                          \
    ENTRY(cuCtxGetCurrent, (void **context))                                                                           \
    ENTRY(cuCtxSetCurrent, (void *context))                                                                            \
    ENTRY(cuModuleLoadData, (void **module, const void *image))                                                        \
    ENTRY(cuModuleUnload, (void *module))                                                                              \
    ENTRY(cuModuleGetFunction, (void **function, void *module, const char *name))                                      \
    ENTRY(cuFuncSetAttribute, (void *function, int attribute, int value))                                              \
    ENTRY(cuGetErrorString, (int result, const char **text))                                                           \
    ENTRY(cuLaunchKernel, (void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,        \
                           unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **arguments,        \
                           void **extra))

#define DRIVER_DECLARE(name, parameters) typedef int(*type_of_##name) parameters;
DRIVER_ENTRIES(DRIVER_DECLARE)
#undef DRIVER_DECLARE

static struct {
#define DRIVER_MEMBER(name, parameters) type_of_##name name;
    DRIVER_ENTRIES(DRIVER_MEMBER)
#undef DRIVER_MEMBER
} driver;

enum { MAX_DYNAMIC_SHARED = 8, SHARED_WITHOUT_ASKING = 48 * 1024 }; /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
enum { NUMBER_BYTES = 2, ALIGNMENT = 16 };

/* A compiled kernel: of heads of `width` numbers, with a mask or without, from so many tokens on. */
struct image {
    int width, masked, tokens, queries, warps;
    unsigned shared;
    const char *name;
    const unsigned char *binary;
};

#include "attention_images.h" /* written by onnxruntime_attention.py: IMAGES, the larger tiles first */

enum { IMAGE_COUNT = sizeof(IMAGES) / sizeof(IMAGES[0]) };

struct loaded {
    void *context, *module, *function;
};

/* Why the driver cannot be used; NULL if it can. */
static const char *open_driver(void) {
    static void *library;
    if (!library && !(library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL))) return "libcuda.so.1 cannot be opened";
#define DRIVER_FIND(name, parameters)                                                                                  \
    if (!(driver.name = (type_of_##name)dlsym(library, #name))) return "libcuda.so.1 lacks " #name;
    DRIVER_ENTRIES(DRIVER_FIND)
#undef DRIVER_FIND
    return NULL;
}

/* What the driver says of a result; NULL if all is well. */
static const char *driver_problem(int result) {
    const char *text = NULL;
    if (!result) return NULL;
    return driver.cuGetErrorString(result, &text) || !text ? "an error that the driver has no words for" : text;
}

/* A session may end in a thread that has no context, or another one. */
static void unload(struct loaded *images) {
    for (int index = 0; index < IMAGE_COUNT; index++) {
        void *before = NULL;
        if (!images[index].module || driver.cuCtxGetCurrent(&before)) continue; /* the driver may have ended before us */
        if (!driver.cuCtxSetCurrent(images[index].context)) driver.cuModuleUnload(images[index].module);
        driver.cuCtxSetCurrent(before);
    }
}

/* Loads every image into the current context; what is wrong, or NULL. */
static const char *load(struct loaded *images) {
    void *context = NULL;
    const char *problem = open_driver();
    if (problem || (problem = driver_problem(driver.cuCtxGetCurrent(&context)))) return problem;
    if (!context) return "this thread has no CUDA context; the CUDA provider makes one";
    for (int index = 0; index < IMAGE_COUNT; index++) {
        const struct image *image = &IMAGES[index];
        struct loaded *here = &images[index];
        here->context = context;
        if ((problem = driver_problem(driver.cuModuleLoadData(&here->module, image->binary)))) return problem;
        problem = driver_problem(driver.cuModuleGetFunction(&here->function, here->module, image->name));
        if (!problem && image->shared > SHARED_WITHOUT_ASKING)
            problem = driver_problem(driver.cuFuncSetAttribute(here->function, MAX_DYNAMIC_SHARED, (int)image->shared));
        if (problem) return problem;
    }
    return NULL;
}

static int aligned(const void *address) { return (uintptr_t)address % ALIGNMENT == 0; }

/* Enqueues a call; what is wrong, or NULL. */
static const char *launch(const struct loaded *images, const struct call *call, void *stream) {
    const int64_t width = call->hidden / call->heads, tokens = call->batch * call->sequence;
    if (tokens > INT32_MAX / call->stride) return "the tensors have more numbers than an index of 32 bits counts";
    if (!aligned(call->query) || !aligned(call->key) || !aligned(call->value) || !aligned(call->mask) ||
        !aligned(call->result))
        return "a tensor lies at an address that is no multiple of 16";
    for (int index = 0; index < IMAGE_COUNT; index++) {
        const struct image *image = &IMAGES[index];
        if (image->width != width || image->masked != (call->mask != NULL) || image->tokens > tokens) continue;
        /* In the order of attention.py: pointers, sizes, and two buffers that Triton's kernels may ask for and this one
         * does not. */
        const void *query = call->query, *key = call->key, *value = call->value, *mask = call->mask;
        void *result = call->result, *unused = NULL;
        int32_t stride = (int32_t)call->stride, result_stride = (int32_t)call->hidden;
        int32_t sequence = (int32_t)call->sequence;
        void *arguments[10], **next = arguments;
        *next++ = &query, *next++ = &key, *next++ = &value;
        if (mask) *next++ = &mask;
        *next++ = &result, *next++ = &stride, *next++ = &result_stride, *next++ = &sequence;
        *next++ = &unused, *next++ = &unused;
        const unsigned blocks = (unsigned)((call->sequence + image->queries - 1) / image->queries);
        return driver_problem(driver.cuLaunchKernel(images[index].function, blocks, (unsigned)call->heads,
                                                    (unsigned)call->batch, 32 * (unsigned)image->warps, 1, 1,
                                                    image->shared, stream, arguments, NULL));
    }
    return "this library was compiled for other heads; build it anew for the graph (build_operator.py)";
}
