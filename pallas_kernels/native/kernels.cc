// Sparse matrix products for the CPU, called by XLA through its typed foreign function interface.
//
// A product is y[m, o] = bias[o] + sum_r x[m, r] w[r, o], where w is a list of blocks of `outputs` x `inputs` weights.
// Activations are first packed feature-major, in panels of some rows of x each:
//
//     x [rows, inputs]  ->  panels [rows / lanes][inputs][lanes]
//
// so that the same feature of neighbouring rows fills a vector: one weight, broadcast, then serves a vector of rows
// whatever the pattern is, and single weights cost no gathers.  Sums live in registers (a tile of some outputs times
// some vectors of lanes) while the blocks of an output are walked.  One row alone (lanes = 1) has nothing to broadcast
// for; there vectors run along the longer side of a block.
//
// Vectors are written as GCC vector extensions, which GCC and Clang compile for any CPU: left to the compiler's own
// vectorizer, the sums went back to memory after every weight.

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "blocks.h"
#include "convolution.h"

namespace {

using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using S8 = ffi::Buffer<ffi::S8>;

// The data of an argument that may be left out, which is an empty array then.
template <class B>
auto optional(B& array) {
  return array.element_count() ? array.typed_data() : nullptr;
}

// --------------------------------------------------------------------------------------------------- block products

// y [M, outputs] = x [M, inputs] @ w + bias, or x @ w^T if `turned` (then `order` visits blocks by input block).
// Absent arrays are empty.  `panels` is room for the packed x: [M / lanes][padded inputs][lanes].
ffi::Error Product(ffi::ThreadPool pool, bool turned, F32 x, F32 values, S32 index, S32 starts, S32 order, F32 bias,
                   ffi::Result<F32> y, ffi::Result<F32> panels) {
  const auto block = values.dimensions();
  const Index rows = x.dimensions()[0], size = y->dimensions()[1], lanes = panels->dimensions()[2];
  const Index padded = panels->dimensions()[1], stored = block[0];
  Blocks w;
  w.values = values.typed_data();
  w.index = index.typed_data();
  w.starts = starts.typed_data();
  w.order = optional(order);
  w.outputs = turned ? block[1] : block[2];
  w.inputs = turned ? block[2] : block[1];
  w.output_stride = turned ? block[2] : 1;
  w.input_stride = turned ? 1 : block[2];
  w.count = starts.element_count() - 1;
  w.inner = padded / w.inputs;
  if (lanes != 1 && lanes % kWidth) return ffi::Error::InvalidArgument("The panels fit another CPU's vectors.");
  if (!in_range(w, stored)) return ffi::Error::InvalidArgument("The lists of blocks are out of range or unsorted.");

  pack(pool, x.typed_data(), rows, x.dimensions()[1], padded, lanes, panels->typed_data());
  const Index groups = panels->dimensions()[0], cut = cuts(pool, w, stored, lanes, groups);
  parallel(pool, groups * cut, [&](Index i) {
    const Index group = i / cut, first = i % cut * w.count / cut, last = (i % cut + 1) * w.count / cut;
    const Panel panel = {panels->typed_data() + group * padded * lanes, lanes};
    const Index begin = first * w.outputs, end = std::min(size, last * w.outputs);
    Buffer sums = buffer((last - first) * w.outputs * lanes);
    add_up(w, first, last, panel, {{0, 0, lanes}}, lanes, optional(bias), size, &sums[0]);
    float* out = y->typed_data() + group * lanes * size + begin;
    if (lanes == 1) std::copy_n(&sums[0], end - begin, out);
    else transpose(&sums[0], lanes, end - begin, std::min(lanes, rows - group * lanes), out, size);
  });
  return ffi::Error::Success();
}

// y [N, rows, columns, outputs] = the convolution of x [N, height, width, channels] with blocks of a matrix
// [taps * channels, outputs], + bias.  Of height and width: the taps, strides, dilations, and the padding before.
ffi::Error Convolution(ffi::ThreadPool pool, ffi::Span<const int64_t> taps, ffi::Span<const int64_t> strides,
                       ffi::Span<const int64_t> dilation, ffi::Span<const int64_t> before, F32 x, F32 values, S32 index,
                       S32 starts, F32 bias, ffi::Result<F32> y) {
  const auto block = values.dimensions(), from = x.dimensions(), to = y->dimensions();
  const auto side = [&](Index i) {
    return Side{from[1 + i], to[1 + i], taps[i], strides[i], dilation[i], before[i]};
  };
  const Images all = {x.typed_data(), y->typed_data(), from[0], from[3], to[3], side(0), side(1)};
  const Index features = taps[0] * taps[1] * all.channels;
  Blocks w = {values.typed_data(), index.typed_data(), starts.typed_data(), nullptr};
  w.outputs = block[2], w.inputs = block[1], w.output_stride = 1, w.input_stride = block[2];
  w.count = starts.element_count() - 1, w.inner = (features + w.inputs - 1) / w.inputs;
  if (!in_range(w, block[0])) return ffi::Error::InvalidArgument("The lists of blocks are out of range or unsorted.");
  convolve(pool, all, w, block[0], optional(bias));
  return ffi::Error::Success();
}

// ------------------------------------------------------------------------------------------------- sampled products

// R x C entries of a block: scalar products of packed features, over the lanes of a panel.
template <int R, int C>
INLINE void entries(const float* x, const float* g, Index lanes, float* out, Index stride, bool first) {
  Vec sum[R][C] = {};
  for (Index lane = 0; lane < lanes; lane += kWidth)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c)
        sum[r][c] += load<Vec>(x + r * lanes + lane) * load<Vec>(g + c * lanes + lane);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) out[r * stride + c] = total(sum[r][c]) + (first ? 0 : out[r * stride + c]);
}

// values [T, bk, bn] = x^T g at the blocks of a pattern.
ffi::Error Sampled(ffi::ThreadPool pool, F32 x, F32 g, S32 rows, S32 columns, ffi::Result<F32> values,
                   ffi::Result<F32> x_panels, ffi::Result<F32> g_panels) {
  const auto block = values->dimensions();
  const Index stored = block[0], bk = block[1], bn = block[2], batch = x.dimensions()[0];
  const auto x_shape = x_panels->dimensions(), g_shape = g_panels->dimensions();
  const Index lanes = x_shape[2];
  if (lanes % kWidth) return ffi::Error::InvalidArgument("The panels fit another CPU's vectors.");
  const int32_t *row = rows.typed_data(), *column = columns.typed_data();
  for (Index t = 0; t < stored; ++t)
    if (row[t] < 0 || column[t] < 0 || (row[t] + 1) * bk > x_shape[1] || (column[t] + 1) * bn > g_shape[1])
      return ffi::Error::InvalidArgument("The lists of blocks are out of range or unsorted.");
  pack(pool, x.typed_data(), batch, x.dimensions()[1], x_shape[1], lanes, x_panels->typed_data());
  pack(pool, g.typed_data(), batch, g.dimensions()[1], g_shape[1], lanes, g_panels->typed_data());
  const Index cut = pieces(pool, stored, bk * bn * batch);
  parallel(pool, cut, [&](Index i) {
    for (Index panel = 0; panel < x_shape[0]; ++panel)
      for (Index t = i * stored / cut; t < (i + 1) * stored / cut; ++t) {
        const float* xs = x_panels->typed_data() + (panel * x_shape[1] + row[t] * bk) * lanes;
        const float* gs = g_panels->typed_data() + (panel * g_shape[1] + column[t] * bn) * lanes;
        float* out = values->typed_data() + t * bk * bn;
        Index k = 0;
        for (; k + 4 <= bk; k += 4) {
          Index n = 0;
          for (; n + 2 <= bn; n += 2) entries<4, 2>(xs + k * lanes, gs + n * lanes, lanes, out + k * bn + n, bn, !panel);
          for (; n < bn; ++n) entries<4, 1>(xs + k * lanes, gs + n * lanes, lanes, out + k * bn + n, bn, !panel);
        }
        for (; k < bk; ++k) {
          Index n = 0;
          for (; n + 4 <= bn; n += 4) entries<1, 4>(xs + k * lanes, gs + n * lanes, lanes, out + k * bn + n, bn, !panel);
          for (; n < bn; ++n) entries<1, 1>(xs + k * lanes, gs + n * lanes, lanes, out + k * bn + n, bn, !panel);
        }
      }
  });
  return ffi::Error::Success();
}

// ----------------------------------------------------------------------------------------------- quantized products

// Codes as floats.  GCC 12 converts vectors of bytes one by one: where there are instructions for it, they are named.
INLINE Vec decoded(const int8_t* from) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__AVX2__)
  return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
  typedef int8_t Codes __attribute__((vector_size(kWidth)));
  typedef int32_t Integers __attribute__((vector_size(4 * kWidth)));
  Codes codes;
  std::memcpy(&codes, from, sizeof codes);
  return __builtin_convertvector(__builtin_convertvector(codes, Integers), Vec);
#endif
}

// sums [R][columns] += x [R][inputs] @ codes [inputs][columns], D inputs at a time: as many streams for the prefetcher.
template <int R, int D>
INLINE Index add_codes(const float* x, Index x_stride, const int8_t* codes, Index stride, Index first, Index inputs,
                       Index columns, float* sums) {
  for (; first + D <= inputs; first += D) {
    const int8_t* from = codes + first * stride;
    Index n = 0;
    for (; n + kWidth <= columns; n += kWidth) {
      Vec sum[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sum[r] = load<Vec>(sums + r * columns + n);
#pragma GCC unroll 16
      for (int d = 0; d < D; ++d) {
        const Vec weight = decoded(from + d * stride + n);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sum[r] += weight * x[r * x_stride + first + d];
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) store(sums + r * columns + n, sum[r]);
    }
    for (; n < columns; ++n)
      for (int r = 0; r < R; ++r)
        for (int d = 0; d < D; ++d) sums[r * columns + n] += from[d * stride + n] * x[r * x_stride + first + d];
  }
  return first;
}

template <int R>
void add_rows(const float* x, Index x_stride, const int8_t* codes, Index stride, Index inputs, Index columns,
              float* sums) {
  const Index done = add_codes<R, 8>(x, x_stride, codes, stride, 0, inputs, columns, sums);
  add_codes<R, 1>(x, x_stride, codes, stride, done, inputs, columns, sums);
}

// y [M, N] = x [M, K] @ (codes [K, N] * scale [K / group, N]) + bias, for few rows: codes are read once, as they are.
ffi::Error Quantized(ffi::ThreadPool pool, F32 x, S8 codes, F32 scale, F32 bias, ffi::Result<F32> y) {
  const Index rows = x.dimensions()[0], inputs = x.dimensions()[1], size = y->dimensions()[1];
  const Index group = inputs / scale.dimensions()[0];
  const float* biases = optional(bias);
  // Whole cache lines of codes for every piece.
  const Index lines = (size + 63) / 64, cut = pieces(pool, lines, 64 * inputs * rows);
  parallel(pool, cut, [&](Index i) {
    const Index begin = i * lines / cut * 64, end = std::min(size, (i + 1) * lines / cut * 64), columns = end - begin;
    Buffer sums = buffer(rows * columns);
    for (Index from = 0; from < inputs; from += group) {
      std::fill_n(&sums[0], rows * columns, 0.0f);
      for (Index k = from; k < from + group; k += kDepth) {
        const Index deep = std::min(kDepth, from + group - k);
        const int8_t* code = codes.typed_data() + k * size + begin;
        Index m = 0;
        for (; m + 4 <= rows; m += 4)
          add_rows<4>(x.typed_data() + m * inputs + k, inputs, code, size, deep, columns, &sums[m * columns]);
        for (; m < rows; ++m)
          add_rows<1>(x.typed_data() + m * inputs + k, inputs, code, size, deep, columns, &sums[m * columns]);
      }
      const float* scales = scale.typed_data() + from / group * size;
      for (Index m = 0; m < rows; ++m)
        for (Index n = begin; n < end; ++n) {
          const float before = from ? y->typed_data()[m * size + n] : biases ? biases[n] : 0.0f;
          y->typed_data()[m * size + n] = before + scales[n] * sums[m * columns + n - begin];
        }
    }
  });
  return ffi::Error::Success();
}

}  // namespace

extern "C" int cjx_vector_width() { return kWidth; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(cjx_product, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("turned")
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<S32>()
                                  .Arg<S32>()
                                  .Arg<S32>()
                                  .Arg<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(cjx_convolution, Convolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<ffi::Span<const int64_t>>("taps")
                                  .Attr<ffi::Span<const int64_t>>("strides")
                                  .Attr<ffi::Span<const int64_t>>("dilation")
                                  .Attr<ffi::Span<const int64_t>>("before")
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<S32>()
                                  .Arg<S32>()
                                  .Arg<F32>()
                                  .Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(cjx_sampled, Sampled,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<S32>()
                                  .Arg<S32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(cjx_quantized, Quantized,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32>()
                                  .Arg<S8>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Ret<F32>());
