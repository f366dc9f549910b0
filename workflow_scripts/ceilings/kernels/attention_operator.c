/* ai.ceilings::Attention, an operator of ONNX Runtime: softmax(Q K^T / sqrt(width) + mask) V of encoders.
 *
 * Inputs: query (batch, sequence, hidden); key and value of the same sizes, or neither: query is then (batch, sequence,
 * 3 hidden), what one product gave for all three; mask (batch, sequence) INT64, zero where a token is padding, or none.
 * Output: (batch, sequence, hidden). Attribute: num_heads. FP32 and FP16 on a CPU, FP16 on a GPU.
 *
 * A session gets it by SessionOptions.register_custom_ops_library(path of this library). */

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention_call.h"
#include "onnxruntime_abi.h"

#define DOMAIN "ai.ceilings"
#define NAME "Attention"

#define NUMBER float
#define ATTEND attend_fp32
#include "attention_on_cpu.h"

#define NUMBER _Float16
#define ATTEND attend_fp16
#include "attention_on_cpu.h"

#ifdef WITH_CUDA
#include "attention_on_cuda.h"
#else
struct loaded {
    int none;
};
enum { IMAGE_COUNT = 0 };
#endif

#ifndef GPU_PROVIDER /* The tests of what is launched name others. */
#define GPU_PROVIDER "CUDAExecutionProvider"
#define GPU_NAME NAME
#endif

/* The operator for one provider and one type. */
struct operator {
    OrtCustomOp seen;
    const char *name, *provider;
    int type;
    size_t bytes; /* of a number */
    void (*attend)(void *call, size_t index); /* of a head of an element; NULL on a GPU */
};

/* A node's state. */
struct kernel {
    const OrtApi *api;
    const struct operator *of;
    int64_t heads;
    struct loaded images[IMAGE_COUNT + 1];
};

static OrtStatus *refuse(const OrtApi *api, int code, const char *format, ...) {
    char message[400];
    int start = snprintf(message, sizeof message, DOMAIN "::" NAME ": ");
    va_list values;
    va_start(values, format);
    vsnprintf(message + start, sizeof message - (size_t)start, format, values);
    va_end(values);
    return ORT(api, CreateStatus)(code, message);
}

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        OrtStatus *status_ = (call);                                                                                   \
        if (status_) return status_;                                                                                   \
    } while (0)

enum { QUERY, KEY, VALUE, MASK, INPUTS };
enum { AXES = 3 };
static const char *const INPUT_NAMES[INPUTS] = {"query", "key", "value", "mask"};

struct input {
    int given; /* whether the node has it */
    const void *data;
    int64_t sizes[AXES];
};

static OrtStatus *read_input(const OrtApi *api, const OrtKernelContext *context, size_t index, struct input *input) {
    const OrtValue *value = NULL;
    OrtTensorTypeAndShapeInfo *info = NULL;
    size_t count = 0, given = 0, axes = index == MASK ? 2 : AXES;
    *input = (struct input){0};
    TRY(ORT(api, KernelContext_GetInputCount)(context, &given));
    if (index >= given) return NULL;
    TRY(ORT(api, KernelContext_GetInput)(context, index, &value));
    if (!(input->given = value != NULL)) return NULL;
    TRY(ORT(api, GetTensorTypeAndShape)(value, &info));
    OrtStatus *status = ORT(api, GetDimensionsCount)(info, &count);
    if (!status && count == axes) status = ORT(api, GetDimensions)(info, input->sizes, axes);
    ORT(api, ReleaseTensorTypeAndShapeInfo)(info);
    if (status) return status;
    if (count != axes)
        return refuse(api, STATUS_INVALID_ARGUMENT, "%s has %zu axes and must have %zu", INPUT_NAMES[index], count, axes);
    return ORT(api, GetTensorMutableData)((OrtValue *)value, (void **)&input->data);
}

/* Inputs, output and sizes of a call. */
static OrtStatus *read_call(const struct kernel *kernel, OrtKernelContext *context, struct call *call) {
    const OrtApi *api = kernel->api;
    struct input query, key, value, mask;
    TRY(read_input(api, context, QUERY, &query));
    TRY(read_input(api, context, KEY, &key));
    TRY(read_input(api, context, VALUE, &value));
    TRY(read_input(api, context, MASK, &mask));
    const int packed = !key.given && !value.given;
    const int64_t batch = query.sizes[0], sequence = query.sizes[1], row = query.sizes[2];
    if (!packed && (memcmp(query.sizes, key.sizes, sizeof key.sizes) || memcmp(query.sizes, value.sizes, sizeof key.sizes)))
        return refuse(api, STATUS_INVALID_ARGUMENT,
                      "query, key and value must have the same sizes, or query holds all three and the others are absent");
    if (mask.given && (mask.sizes[0] != batch || mask.sizes[1] != sequence))
        return refuse(api, STATUS_INVALID_ARGUMENT,
                      "mask is (%" PRId64 ", %" PRId64 ") and must be (%" PRId64 ", %" PRId64 ")", mask.sizes[0],
                      mask.sizes[1], batch, sequence);
    if (!row || row % (packed ? 3 * kernel->heads : kernel->heads))
        return refuse(api, STATUS_INVALID_ARGUMENT, "%" PRId64 " numbers a row do not divide among %" PRId64 " heads%s",
                      row, kernel->heads, packed ? ", three times" : "");
    const int64_t hidden = packed ? row / 3 : row, output[AXES] = {batch, sequence, hidden};
    OrtValue *result = NULL;
    TRY(ORT(api, KernelContext_GetOutput)(context, 0, output, AXES, &result));
    *call = (struct call){.query = query.data, .mask = mask.data, .batch = batch, .sequence = sequence,
                          .hidden = hidden, .heads = kernel->heads, .stride = row};
    call->key = packed ? call->query + (size_t)hidden * kernel->of->bytes : key.data;
    call->value = packed ? call->key + (size_t)hidden * kernel->of->bytes : value.data;
    return ORT(api, GetTensorMutableData)(result, &call->result);
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
    struct kernel *kernel = state;
    const OrtApi *api = kernel->api;
    struct call call;
    TRY(read_call(kernel, context, &call));
    if (!call.batch || !call.sequence) return NULL;
#ifdef WITH_CUDA
    if (!kernel->of->attend) {
        void *stream = NULL;
        TRY(ORT(api, KernelContext_GetGPUComputeStream)(context, &stream));
        const char *problem = launch(kernel->images, &call, stream);
        return problem ? refuse(api, STATUS_FAIL, "%s", problem) : NULL;
    }
#endif
    const size_t pieces = (size_t)(call.batch * call.heads);
    TRY(ORT(api, KernelContext_ParallelFor)(context, kernel->of->attend, pieces, 0, &call));
    return call.failed ? refuse(api, STATUS_FAIL, "no memory for the scores") : NULL;
}

static void destroy(void *state) {
#ifdef WITH_CUDA
    if (!((struct kernel *)state)->of->attend) unload(((struct kernel *)state)->images);
#endif
    free(state);
}

static OrtStatus *create(const OrtCustomOp *seen, const OrtApi *api, const OrtKernelInfo *info, void **made) {
    int64_t heads = 0;
    TRY(ORT(api, KernelInfoGetAttribute_int64)(info, "num_heads", &heads));
    if (heads < 1) return refuse(api, STATUS_INVALID_ARGUMENT, "num_heads is %" PRId64 " and must be 1 or more", heads);
    struct kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel) return refuse(api, STATUS_FAIL, "no memory for a node");
    kernel->api = api, kernel->of = (const struct operator *)seen, kernel->heads = heads;
#ifdef WITH_CUDA
    const char *problem = kernel->of->attend ? NULL : load(kernel->images);
    if (problem) {
        destroy(kernel);
        return refuse(api, STATUS_FAIL, "its kernel cannot be loaded: %s", problem);
    }
#endif
    *made = kernel;
    return NULL;
}

static const char *name_of(const OrtCustomOp *seen) { return ((const struct operator *)seen)->name; }
static const char *provider_of(const OrtCustomOp *seen) { return ((const struct operator *)seen)->provider; }
static int input_type(const OrtCustomOp *seen, size_t index) {
    return index == MASK ? TYPE_INT64 : ((const struct operator *)seen)->type;
}
static int output_type(const OrtCustomOp *seen, size_t index) { return (void)index, input_type(seen, QUERY); }
static size_t input_count(const OrtCustomOp *seen) { return (void)seen, INPUTS; }
static size_t output_count(const OrtCustomOp *seen) { return (void)seen, 1; }
static int input_characteristic(const OrtCustomOp *seen, size_t index) {
    return (void)seen, index == QUERY ? INPUT_REQUIRED : INPUT_OPTIONAL;
}
static int output_characteristic(const OrtCustomOp *seen, size_t index) {
    return (void)seen, (void)index, INPUT_REQUIRED;
}
static int memory_type(const OrtCustomOp *seen, size_t index) { return (void)seen, (void)index, MEMORY_DEFAULT; }
static int one(const OrtCustomOp *seen) { return (void)seen, 1; }
static int any_version(const OrtCustomOp *seen) { return (void)seen, INT32_MAX; }

#define SEEN                                                                                                           \
    {.version = ABI_VERSION, .GetName = name_of, .GetExecutionProviderType = provider_of,                              \
     .GetInputType = input_type, .GetInputTypeCount = input_count, .GetOutputType = output_type,                       \
     .GetOutputTypeCount = output_count, .KernelDestroy = destroy, .GetInputCharacteristic = input_characteristic,     \
     .GetOutputCharacteristic = output_characteristic, .GetInputMemoryType = memory_type,                              \
     .GetVariadicInputMinArity = one, .GetVariadicInputHomogeneity = one, .GetVariadicOutputMinArity = one,            \
     .GetVariadicOutputHomogeneity = one, .CreateKernelV2 = create, .KernelComputeV2 = compute, .GetStartVersion = one, \
     .GetEndVersion = any_version}

static const struct operator OPERATORS[] = {
    {SEEN, NAME, "CPUExecutionProvider", TYPE_FLOAT, sizeof(float), attend_fp32},
    {SEEN, NAME, "CPUExecutionProvider", TYPE_FLOAT16, sizeof(_Float16), attend_fp16},
#ifdef WITH_CUDA
    {SEEN, GPU_NAME, GPU_PROVIDER, TYPE_FLOAT16, NUMBER_BYTES, NULL},
#endif
};

/* What ONNX Runtime calls when a session's options get this library. The domain lives as long as the library, and is
 * seen once all operators are in it: another thread that comes meanwhile makes its own, which is as good. */
__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static OrtCustomOpDomain *domain;
    const OrtApi *api = base->GetApi(ABI_VERSION);
    if (!api) {
        const OrtApi *oldest = base->GetApi(1); /* enough to say it */
        return oldest ? refuse(oldest, STATUS_FAIL, "needs ONNX Runtime 1.17 or newer; this is %s", base->GetVersionString())
                      : NULL;
    }
    OrtCustomOpDomain *whole = __atomic_load_n(&domain, __ATOMIC_ACQUIRE);
    if (!whole) {
        OrtStatus *status = ORT(api, CreateCustomOpDomain)(DOMAIN, &whole);
        if (status) return status;
        for (size_t index = 0; !status && index < sizeof OPERATORS / sizeof *OPERATORS; index++)
            status = ORT(api, CustomOpDomain_Add)(whole, &OPERATORS[index].seen);
        if (status) {
            ORT(api, ReleaseCustomOpDomain)(whole);
            return status;
        }
        __atomic_store_n(&domain, whole, __ATOMIC_RELEASE);
    }
    return ORT(api, AddCustomOpDomain)(options, whole);
}
