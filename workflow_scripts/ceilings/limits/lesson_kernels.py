"""Kernels that show one cause and its effect each; :mod:`ceilings.limits.lessons` says how they are launched."""

SOURCE = r"""
// The value of every input at its place: whole numbers of 24 bits over 2^24, exact in a float.
__device__ float value(unsigned long long i) { return ((unsigned int)(i * 2654435761ull) >> 8) / 16777216.0f; }

extern "C" __global__ void fill(float* data, unsigned long long count) {
    unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
    for (unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        data[i] = value(i);
}

// --- access: neighbours in a warp read this many floats apart ---

extern "C" __global__ void strided(const float* in, float* out, unsigned int stride) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i * stride];
}

// --- shared memory: a transposition, 32 x 32 floats a block of 32 x 8 threads ---

extern "C" __global__ void transpose_plain(const float* in, float* out, int edge) {
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    for (int row = 0; row < 32; row += 8) out[(size_t)x * edge + y + row] = in[(size_t)(y + row) * edge + x];
}

template <int WIDTH>
__device__ void transpose_through(float (*tile)[WIDTH], const float* in, float* out, int edge) {
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    for (int row = 0; row < 32; row += 8) tile[threadIdx.y + row][threadIdx.x] = in[(size_t)(y + row) * edge + x];
    __syncthreads();
    x = blockIdx.y * 32 + threadIdx.x, y = blockIdx.x * 32 + threadIdx.y;
    for (int row = 0; row < 32; row += 8) out[(size_t)(y + row) * edge + x] = tile[threadIdx.x][threadIdx.y + row];
}

extern "C" __global__ void transpose_tile(const float* in, float* out, int edge) {
    __shared__ float tile[32][32];  // a column lies in one bank
    transpose_through<32>(tile, in, out, edge);
}

extern "C" __global__ void transpose_padded(const float* in, float* out, int edge) {
    __shared__ float tile[32][33];  // a column lies in 32 banks
    transpose_through<33>(tile, in, out, edge);
}

// --- occupancy: one load at a time a thread; shared memory that nobody uses keeps other blocks away ---

extern "C" __global__ void sums(const float* in, float* out, unsigned long long count) {
    unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long first = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;
    #pragma unroll 1
    for (unsigned long long i = first; i < count; i += step) sum += in[i];
    out[first] = sum;
}

// --- waves: a chain of operations that depend on each other, one block a multiprocessor ---

extern "C" __global__ void chain(float* out, int rounds) {
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    float x = value(i);
    #pragma unroll 1
    for (int round = 0; round < rounds; ++round) x = fmaf(x, 0.99999f, 0.00001f);
    out[i] = x;
}

// --- epilogue: a product of depth 32, then a bias and GELU ---

__device__ float gelu(float x) { return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x))); }

template <bool FUSED>
__device__ void product_of(const float* left, const float* right, const float* bias, float* out, int edge) {
    __shared__ float a[32][33], b[32][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    for (int row = threadIdx.y; row < 32; row += 8) {
        a[row][threadIdx.x] = left[(size_t)(blockIdx.y * 32 + row) * 32 + threadIdx.x];
        b[row][threadIdx.x] = right[(size_t)row * edge + column];
    }
    __syncthreads();
    for (int row = threadIdx.y; row < 32; row += 8) {
        float sum = 0;
        for (int k = 0; k < 32; ++k) sum = fmaf(a[row][k], b[k][threadIdx.x], sum);
        out[(size_t)(blockIdx.y * 32 + row) * edge + column] = FUSED ? gelu(sum + bias[column]) : sum;
    }
}

extern "C" __global__ void product_plain(const float* left, const float* right, const float* bias, float* out,
                                         int edge) {
    product_of<false>(left, right, bias, out, edge);
}

extern "C" __global__ void product_fused(const float* left, const float* right, const float* bias, float* out,
                                         int edge) {
    product_of<true>(left, right, bias, out, edge);
}

extern "C" __global__ void add_bias(const float* bias, float* out, int edge) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    out[i] += bias[i % edge];
}

extern "C" __global__ void apply_gelu(float* out) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = gelu(out[i]);
}
"""
