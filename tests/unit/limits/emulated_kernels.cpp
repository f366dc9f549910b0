// Runs the kernels of the lessons on a CPU: a thread a CUDA thread, a barrier for __syncthreads. Prints what is wrong.
#include <barrier>
#include <cmath>
#include <cstdio>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct Size { unsigned x, y; };
thread_local Size threadIdx, blockIdx;
Size blockDim, gridDim;
std::barrier<>* waiting;
void __syncthreads() { waiting->arrive_and_wait(); }

#include "kernels.cu"

template <class Kernel>
void launch(Size grid, Size block, Kernel kernel) {
    gridDim = grid, blockDim = block;
    std::barrier<> all(block.x * block.y);
    waiting = &all;
    for (unsigned by = 0; by < grid.y; ++by)
        for (unsigned bx = 0; bx < grid.x; ++bx) {
            std::vector<std::thread> threads;
            for (unsigned y = 0; y < block.y; ++y)
                for (unsigned x = 0; x < block.x; ++x)
                    threads.emplace_back([=] { threadIdx = {x, y}, blockIdx = {bx, by}, kernel(); });
            for (auto& thread : threads) thread.join();
        }
}

const int EDGE = 64;
int flaws = 0;
void hold(const char* name, double difference, double most) {
    if (!(difference <= most)) std::printf("%s: %g\n", name, difference), ++flaws;
}

int main() {
    std::vector<float> in(EDGE * EDGE * 32), out(EDGE * EDGE);
    launch({2, 1}, {64, 1}, [&] { fill(in.data(), in.size()); });
    double worst = 0;
    for (size_t i = 0; i < in.size(); ++i) worst = std::fmax(worst, std::fabs(in[i] - value(i)));
    hold("fill", worst, 0);

    auto transposed = [&](const char* name) {
        double off = 0;
        for (int row = 0; row < EDGE; ++row)
            for (int column = 0; column < EDGE; ++column)
                off += out[column * EDGE + row] != in[row * EDGE + column];
        hold(name, off, 0);
        for (auto& one : out) one = NAN;
    };
    launch({2, 2}, {32, 8}, [&] { transpose_plain(in.data(), out.data(), EDGE); });
    transposed("transpose_plain");
    launch({2, 2}, {32, 8}, [&] { transpose_tile(in.data(), out.data(), EDGE); });
    transposed("transpose_tile");
    launch({2, 2}, {32, 8}, [&] { transpose_padded(in.data(), out.data(), EDGE); });
    transposed("transpose_padded");

    launch({2, 1}, {64, 1}, [&] { strided(in.data(), out.data(), 32); });
    worst = 0;
    for (int i = 0; i < 128; ++i) worst = std::fmax(worst, std::fabs(out[i] - in[i * 32]));
    hold("strided", worst, 0);

    const float *left = in.data(), *right = left + EDGE * 32, *bias = right + EDGE * 32;
    auto activated = [&](const char* name) {
        double off = 0;
        for (int row = 0; row < EDGE; ++row)
            for (int column = 0; column < EDGE; ++column) {
                double x = bias[column];
                for (int k = 0; k < 32; ++k) x += (double)left[row * 32 + k] * right[k * EDGE + column];
                double wanted = 0.5 * x * (1 + std::tanh(0.7978845608 * (x + 0.044715 * x * x * x)));
                off = std::fmax(off, std::fabs(out[row * EDGE + column] - wanted));
            }
        hold(name, off, 1e-4);
        for (auto& one : out) one = NAN;
    };
    launch({2, 2}, {32, 8}, [&] { product_fused(left, right, bias, out.data(), EDGE); });
    activated("product_fused");
    launch({2, 2}, {32, 8}, [&] { product_plain(left, right, bias, out.data(), EDGE); });
    launch({64, 1}, {64, 1}, [&] { add_bias(bias, out.data(), EDGE); });
    launch({64, 1}, {64, 1}, [&] { apply_gelu(out.data()); });
    activated("product_plain, add_bias, apply_gelu");

    launch({2, 1}, {64, 1}, [&] { sums(in.data(), out.data(), in.size()); });
    double found = 0, wanted = 0;
    for (int i = 0; i < 128; ++i) found += out[i];
    for (float one : in) wanted += one;
    hold("sums", std::fabs(found / wanted - 1), 1e-4);

    launch({2, 1}, {64, 1}, [&] { chain(out.data(), 20000); });
    worst = 0;
    for (int i = 0; i < 128; ++i)
        worst = std::fmax(worst, std::fabs(out[i] - (1 - std::pow(0.99999, 20000) * (1 - (double)value(i)))));
    hold("chain", worst, 2e-3);
    return flaws != 0;
}
