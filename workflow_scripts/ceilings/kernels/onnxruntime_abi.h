/* What an operator needs of ONNX Runtime's C interface (onnxruntime_c_api.h), declared here.
 *
 * ONNX Runtime's wheel holds no headers. Its interface is versioned: an entry keeps its place in the table for ever, and
 * a newer library answers for an older version. So the few entries that are used are declared by their place.
 * tests/unit/kernels/test_onnxruntime_abi.py holds each against the vendor's header; the operator's tests call each. */
#ifndef CEILINGS_ONNXRUNTIME_ABI_H
#define CEILINGS_ONNXRUNTIME_ABI_H

#include <stddef.h>
#include <stdint.h>

enum { ABI_VERSION = 17 }; /* of ONNX Runtime 1.17, the first with all that is used */

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtShapeInferContext OrtShapeInferContext;
typedef struct OrtCustomOp OrtCustomOp;

enum { STATUS_FAIL = 1, STATUS_INVALID_ARGUMENT = 2 };          /* OrtErrorCode */
enum { TYPE_FLOAT = 1, TYPE_INT64 = 7, TYPE_FLOAT16 = 10 };     /* ONNXTensorElementDataType */
enum { INPUT_REQUIRED = 0, INPUT_OPTIONAL = 1 };                /* OrtCustomOpInputOutputCharacteristic */
enum { MEMORY_DEFAULT = 0 };                                    /* OrtMemType */

/* Name, place in struct OrtApi, what it returns, what it takes. */
#define ABI_ENTRIES(ENTRY)                                                                                             \
    ENTRY(CreateStatus, 0, OrtStatus *, (int code, const char *message))                                               \
    ENTRY(CreateCustomOpDomain, 26, OrtStatus *, (const char *name, OrtCustomOpDomain **made))                         \
    ENTRY(CustomOpDomain_Add, 27, OrtStatus *, (OrtCustomOpDomain *, const OrtCustomOp *))                             \
    ENTRY(AddCustomOpDomain, 28, OrtStatus *, (OrtSessionOptions *, OrtCustomOpDomain *))                              \
    ENTRY(GetTensorMutableData, 51, OrtStatus *, (OrtValue *, void **data))                                            \
    ENTRY(GetDimensionsCount, 61, OrtStatus *, (const OrtTensorTypeAndShapeInfo *, size_t *count))                     \
    ENTRY(GetDimensions, 62, OrtStatus *, (const OrtTensorTypeAndShapeInfo *, int64_t *sizes, size_t count))           \
    ENTRY(GetTensorTypeAndShape, 65, OrtStatus *, (const OrtValue *, OrtTensorTypeAndShapeInfo **made))                \
    ENTRY(KernelInfoGetAttribute_int64, 86, OrtStatus *, (const OrtKernelInfo *, const char *name, int64_t *value))    \
    ENTRY(KernelContext_GetInputCount, 88, OrtStatus *, (const OrtKernelContext *, size_t *count))                     \
    ENTRY(KernelContext_GetInput, 90, OrtStatus *, (const OrtKernelContext *, size_t index, const OrtValue **input))   \
    ENTRY(KernelContext_GetOutput, 91, OrtStatus *,                                                                    \
          (OrtKernelContext *, size_t index, const int64_t *sizes, size_t count, OrtValue **output))                   \
    ENTRY(ReleaseTensorTypeAndShapeInfo, 99, void, (OrtTensorTypeAndShapeInfo *))                                      \
    ENTRY(ReleaseCustomOpDomain, 101, void, (OrtCustomOpDomain *))                                                     \
    ENTRY(KernelContext_GetGPUComputeStream, 193, OrtStatus *, (const OrtKernelContext *, void **stream))              \
    ENTRY(KernelContext_ParallelFor, 274, OrtStatus *,                                                                 \
          (const OrtKernelContext *, void (*work)(void *, size_t), size_t total, size_t batches, void *given))

enum { ABI_PLACES = 275 };

typedef struct OrtApi {
    void (*entries[ABI_PLACES])(void);
} OrtApi;

#define ABI_DECLARE(name, place, result, parameters)                                                                   \
    enum { place_of_##name = place };                                                                                  \
    typedef result(*type_of_##name) parameters;
ABI_ENTRIES(ABI_DECLARE)
#undef ABI_DECLARE

/* ORT(api, KernelContext_GetInput)(context, 0, &value) */
#define ORT(api, name) ((type_of_##name)(api)->entries[place_of_##name])

typedef struct OrtApiBase {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

/* An operator as ONNX Runtime sees it: ABI_VERSION says up to which member it reads. */
struct OrtCustomOp {
    uint32_t version;
    void *(*CreateKernel)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *);
    const char *(*GetName)(const OrtCustomOp *);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *);
    int (*GetInputType)(const OrtCustomOp *, size_t index);
    size_t (*GetInputTypeCount)(const OrtCustomOp *);
    int (*GetOutputType)(const OrtCustomOp *, size_t index);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *);
    void (*KernelCompute)(void *kernel, OrtKernelContext *);
    void (*KernelDestroy)(void *kernel);
    int (*GetInputCharacteristic)(const OrtCustomOp *, size_t index);
    int (*GetOutputCharacteristic)(const OrtCustomOp *, size_t index);
    int (*GetInputMemoryType)(const OrtCustomOp *, size_t index);
    int (*GetVariadicInputMinArity)(const OrtCustomOp *);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *, void **kernel);
    OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *);
    OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *, OrtShapeInferContext *);
    int (*GetStartVersion)(const OrtCustomOp *);
    int (*GetEndVersion)(const OrtCustomOp *);
};

#endif
