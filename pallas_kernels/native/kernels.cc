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

#include "support.h"

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

// The blocks of a product, by output block: `order[starts[o]]` up to `order[starts[o + 1]]` (without `order`, in place).
struct Blocks {
  const float* values;
  const int32_t *index, *starts, *order;  // index: the input block of each block, ascending for every output block
  Index count, inner;                     // numbers of output and of input blocks
  Index outputs, inputs;                  // of a block
  Index output_stride, input_stride;      // within a block

  Index at(Index position) const { return order ? order[position] : position; }
  const float* block(Index t) const { return values + t * outputs * inputs; }
};

// Some blocks of one output block, whole or a part of their inputs.
struct Run {
  Index begin, end, first, last;
};

// sums[R][C vectors] += the product of panel rows with R outputs of some blocks.
template <int R, int C>
INLINE void tile(const Blocks& w, const Run& run, Index output, const float* panel, Index lanes, float* sums) {
  // Small tiles are summed in several chains, or each sum would wait for the one before.
  constexpr int kChains = R * C >= 8 ? 1 : 8 / (R * C);
  const Index os = w.output_stride, is = w.input_stride;
  Vec sum[kChains][R][C] = {};
  const auto add = [os](Vec (&into)[R][C], const float* weight, const float* x) __attribute__((always_inline)) {
    Vec lane[C];
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
      Vec value = load<Vec>(x + c * kWidth);
      if (R > 1) IN_REGISTER(value);
      lane[c] = value;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) into[r][c] += lane[c] * weight[r * os];
  };
  if (w.inputs == 1) {
    Index p = run.begin;
    for (; p + kChains <= run.end; p += kChains)
#pragma GCC unroll 16
      for (int u = 0; u < kChains; ++u)
        add(sum[u], w.block(w.at(p + u)) + output * os, panel + w.index[w.at(p + u)] * lanes);
    for (; p < run.end; ++p) add(sum[0], w.block(w.at(p)) + output * os, panel + w.index[w.at(p)] * lanes);
  } else {
    for (Index p = run.begin; p < run.end; ++p) {
      const float* value = w.block(w.at(p)) + output * os + run.first * is;
      const float* x = panel + (w.index[w.at(p)] * w.inputs + run.first) * lanes;
      Index i = run.first;
      for (; i + kChains <= run.last; i += kChains)
#pragma GCC unroll 16
        for (int u = 0; u < kChains; ++u, value += is, x += lanes) add(sum[u], value, x);
      for (; i < run.last; ++i, value += is, x += lanes) add(sum[0], value, x);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
#pragma GCC unroll 16
      for (int u = 1; u < kChains; ++u) sum[0][r][c] += sum[u][r][c];
      float* into = sums + r * lanes + c * kWidth;
      store(into, load<Vec>(into) + sum[0][r][c]);
    }
}

// The same for all lanes of a panel, in tiles of at most C vectors.
template <int R, int C>
INLINE void strip(const Blocks& w, const Run& run, Index output, const float* panel, Index lanes, Index from,
                  float* sums) {
  for (; from + C * kWidth <= lanes; from += C * kWidth)
    tile<R, C>(w, run, output, panel + from, lanes, sums + from);
  if constexpr (C > 1) strip<R, C == 3 ? 2 : C / 2>(w, run, output, panel, lanes, from, sums);
}

// Inputs of a run: so many rows of a panel, and weights for them, stay in the first cache.
constexpr Index kDepth = 32;

// sums [outputs][lanes] += some blocks of one output block.
void many_rows(const Blocks& w, Index begin, Index end, const float* panel, Index lanes, float* sums) {
  constexpr int kWide = kRegisters == 16 ? 3 : 4;  // 4 x this many sums, this many lanes and a weight fit in registers
  // A few blocks at a time, or a part of one, which stays in the first cache while all outputs and lanes pass.
  const Index rows = std::min(w.inputs, kDepth), step = std::max<Index>(1, kDepth / w.inputs);
  for (Index p = begin; p < end; p += step)
    for (Index i = 0; i < w.inputs; i += rows) {
      const Run run = {p, std::min(end, p + step), i, std::min(w.inputs, i + rows)};
      Index o = 0;
      for (; o + 4 <= w.outputs; o += 4) strip<4, kWide>(w, run, o, panel, lanes, 0, sums + o * lanes);
      for (; o < w.outputs; ++o) strip<1, 8>(w, run, o, panel, lanes, 0, sums + o * lanes);
    }
}

// One row, vectors along the outputs of a block, which are contiguous: C vectors of them.
template <class V, int C>
INLINE void along_outputs(const Blocks& w, Index begin, Index end, Index output, const float* x, float* sums) {
  constexpr int kLanes = sizeof(V) / 4, kChains = C >= 4 ? 1 : 4 / C;  // several sums, to hide the latency of adding
  V sum[kChains][C] = {};
  for (Index position = begin; position < end; ++position) {
    const Index t = w.at(position);
    const float *value = w.block(t) + output, *xs = x + w.index[t] * w.inputs;
    Index i = 0;
    for (; i + kChains <= w.inputs; i += kChains)
#pragma GCC unroll 16
      for (int u = 0; u < kChains; ++u)
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c) sum[u][c] += load<V>(value + (i + u) * w.input_stride + c * kLanes) * xs[i + u];
    for (; i < w.inputs; ++i)
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) sum[0][c] += load<V>(value + i * w.input_stride + c * kLanes) * xs[i];
  }
#pragma GCC unroll 16
  for (int u = 1; u < kChains; ++u)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) sum[0][c] += sum[u][c];
#pragma GCC unroll 16
  for (int c = 0; c < C; ++c) store<V>(sums + c * kLanes, load<V>(sums + c * kLanes) + sum[0][c]);
}

// One row, vectors along the inputs of a block, which are contiguous, for R outputs.
template <class V, int R>
INLINE void along_inputs(const Blocks& w, Index begin, Index end, Index output, const float* x, float* sums) {
  constexpr int kLanes = sizeof(V) / 4;
  V sum[R] = {};
  for (Index position = begin; position < end; ++position) {
    const Index t = w.at(position);
    const float *value = w.block(t) + output * w.output_stride, *xs = x + w.index[t] * w.inputs;
    for (Index i = 0; i < w.inputs; i += kLanes)
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sum[r] += load<V>(value + r * w.output_stride + i) * load<V>(xs + i);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sums[r] += total(sum[r]);
}

// One row, one weight at a time.
INLINE void one_by_one(const Blocks& w, Index begin, Index end, const float* x, float* sums) {
  if (w.outputs == 1 && w.inputs == 1) {
    float sum[4] = {};
    Index p = begin;
    for (; p + 4 <= end; p += 4)
#pragma GCC unroll 16
      for (int u = 0; u < 4; ++u) {
        const Index t = w.at(p + u);
        sum[u] += w.values[t] * x[w.index[t]];
      }
    for (; p < end; ++p) sum[0] += w.values[w.at(p)] * x[w.index[w.at(p)]];
    sums[0] += (sum[0] + sum[1]) + (sum[2] + sum[3]);
    return;
  }
  for (Index o = 0; o < w.outputs; ++o) {
    float sum = 0;
    for (Index position = begin; position < end; ++position) {
      const Index t = w.at(position);
      const float *value = w.block(t) + o * w.output_stride, *xs = x + w.index[t] * w.inputs;
      for (Index i = 0; i < w.inputs; ++i) sum += value[i * w.input_stride] * xs[i];
    }
    sums[o] += sum;
  }
}

// sums [outputs] += some blocks of one output block, for a single row of x.
void one_row(const Blocks& w, Index begin, Index end, const float* x, float* sums) {
  const bool outputs_contiguous = w.output_stride == 1, inputs_contiguous = w.input_stride == 1;
  if (outputs_contiguous && w.outputs % 4 == 0) {
    Index o = 0;
    for (; o + 4 * kWidth <= w.outputs; o += 4 * kWidth) along_outputs<Vec, 4>(w, begin, end, o, x, sums + o);
    for (; o + 2 * kWidth <= w.outputs; o += 2 * kWidth) along_outputs<Vec, 2>(w, begin, end, o, x, sums + o);
    for (; o + kWidth <= w.outputs; o += kWidth) along_outputs<Vec, 1>(w, begin, end, o, x, sums + o);
    for (; o < w.outputs; o += 4) along_outputs<Vec4, 1>(w, begin, end, o, x, sums + o);
  } else if (inputs_contiguous && w.inputs % 4 == 0) {
    const bool wide = w.inputs % kWidth == 0;
    Index o = 0;
    for (; o + 4 <= w.outputs; o += 4)
      wide ? along_inputs<Vec, 4>(w, begin, end, o, x, sums + o) : along_inputs<Vec4, 4>(w, begin, end, o, x, sums + o);
    for (; o < w.outputs; ++o)
      wide ? along_inputs<Vec, 1>(w, begin, end, o, x, sums + o) : along_inputs<Vec4, 1>(w, begin, end, o, x, sums + o);
  } else {
    one_by_one(w, begin, end, x, sums);
  }
}

// Bytes of a panel that are worked on at a time: it should leave room in the second cache.
constexpr Index kPanelBytes = 256 << 10;

// Outputs [first, last) blocks of one panel -> y [rows, size], rows of it.
void output_range(const Blocks& w, Index first, Index last, const float* panel, Index lanes, const float* bias, float* y,
                  Index rows, Index size) {
  const Index begin = first * w.outputs, end = std::min(size, last * w.outputs);
  Buffer sums = buffer((last - first) * w.outputs * lanes);
  for (Index o = begin; o < last * w.outputs; ++o)
    std::fill_n(&sums[(o - begin) * lanes], lanes, bias && o < end ? bias[o] : 0.0f);
  // Lists are sorted, so that the blocks whose inputs are in a part of the panel are a run of every list.
  std::vector<int32_t> next(w.starts + first, w.starts + last);
  const Index part = std::max<Index>(1, kPanelBytes / (4 * lanes * w.inputs));
  for (Index limit = part; limit < w.inner + part; limit += part)
    for (Index o = first; o < last; ++o) {
      Index p = next[o - first];
      if (limit >= w.inner) p = w.starts[o + 1];
      else while (p < w.starts[o + 1] && w.index[w.at(p)] < limit) ++p;
      float* into = &sums[(o - first) * w.outputs * lanes];
      if (lanes == 1) one_row(w, next[o - first], p, panel, into);
      else many_rows(w, next[o - first], p, panel, lanes, into);
      next[o - first] = p;
    }
  if (lanes == 1) std::copy_n(&sums[0], end - begin, y + begin);
  else transpose(&sums[0], lanes, end - begin, std::min(lanes, rows), y + begin, size);
}

// Whether the lists are in range; they are sorted, so that the ends of each say so.
bool in_range(const Blocks& w, Index stored) {
  if (w.starts[0] != 0 || w.starts[w.count] != stored) return false;
  for (Index o = 0; o < w.count; ++o) {
    const Index begin = w.starts[o], end = w.starts[o + 1];
    if (begin > end || end > stored) return false;
    if (begin < end && (w.index[w.at(begin)] < 0 || w.index[w.at(end - 1)] >= w.inner)) return false;
  }
  return true;
}

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
  const Index all = panels->dimensions()[0];
  // Few enough outputs at a time that their sums stay in the cache, and pieces for every thread.
  const Index work = stored * w.outputs * w.inputs * lanes / w.count + 1;
  const Index most = std::max<Index>(1, (64 << 10) / (4 * lanes * w.outputs));
  const Index cut = std::max((w.count + most - 1) / most, std::min(w.count, pieces(pool, w.count * all, work) / all));
  parallel(pool, all * cut, [&](Index i) {
    const Index panel = i / cut, range = i % cut;
    output_range(w, range * w.count / cut, (range + 1) * w.count / cut, panels->typed_data() + panel * padded * lanes,
                 lanes, optional(bias), y->typed_data() + panel * lanes * size, rows - panel * lanes, size);
  });
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
