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

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Index = int64_t;

#define INLINE inline __attribute__((always_inline))

namespace {

// ---------------------------------------------------------------------------------------------------------- vectors

#if defined(__AVX512F__)
constexpr int kWidth = 16, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kWidth = 8, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kWidth = 4, kRegisters = 32;
#else
constexpr int kWidth = 4, kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(4 * kWidth)));
typedef float Vec4 __attribute__((vector_size(16)));

template <class V>
INLINE V load(const float* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class V>
INLINE void store(float* to, V value) {
  std::memcpy(to, &value, sizeof value);
}

template <class V>
INLINE float total(V value) {
  float sum = 0;
  for (unsigned i = 0; i < sizeof(V) / 4; ++i) sum += value[i];
  return sum;
}

// ------------------------------------------------------------------------------------------------------ parallelism

// Calls task(i) for all i < count, on XLA's threads and this one.  Whoever is free takes the next i; the caller waits
// for what was taken, never for a helper to start: the pool may be busy with callers that wait as this one does.
template <class Task>
void parallel(ffi::ThreadPool& pool, Index count, const Task& task) {
  const Index helpers = std::min<Index>(count, pool.num_threads()) - 1;
  if (helpers <= 0) {
    for (Index i = 0; i < count; ++i) task(i);
    return;
  }
  struct State {
    std::atomic<Index> next{0}, done{0};
  };
  auto state = std::make_shared<State>();
  // A helper that comes too late finds nothing to take, and does not touch the task, which may be gone by then.
  auto work = [state, count, &task] {
    for (Index i; (i = state->next.fetch_add(1)) < count;) {
      task(i);
      state->done.fetch_add(1);
    }
  };
  for (Index i = 0; i < helpers; ++i) pool.Schedule(decltype(work)(work));  // a copy for each
  work();
  while (state->done.load() < count) std::this_thread::yield();
}

// A thread is worth waking for this many multiplications.
constexpr Index kWorthATask = 1 << 15;

// How many pieces to cut `size` things of `work` multiplications each into: some for every thread, none too small.
Index pieces(ffi::ThreadPool& pool, Index size, Index work) {
  const Index most = std::max<Index>(1, size * work / kWorthATask);
  return std::min({size, most, 4 * std::max<Index>(1, pool.num_threads())});
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<float[], Free>;

Buffer buffer(Index size) {
  return Buffer(static_cast<float*>(std::aligned_alloc(64, (4 * size + 63) / 64 * 64)));
}

// ---------------------------------------------------------------------------------------------------------- layouts

// Transposes rows x columns of `from` (with row stride `from_stride`) into `to`, in tiles of 4 x 4.
void transpose(const float* from, Index from_stride, Index rows, Index columns, float* to, Index to_stride) {
#ifdef __clang__
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
  typedef int Int4 __attribute__((vector_size(16)));
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, Int4{i, j, k, l})
#endif
  Index row = 0;
  for (; row + 4 <= rows; row += 4) {
    const float* source = from + row * from_stride;
    Index column = 0;
    for (; column + 4 <= columns; column += 4) {
      const Vec4 a = load<Vec4>(source + column), b = load<Vec4>(source + from_stride + column);
      const Vec4 c = load<Vec4>(source + 2 * from_stride + column), d = load<Vec4>(source + 3 * from_stride + column);
      const Vec4 ab0 = SHUFFLE(a, b, 0, 4, 1, 5), ab1 = SHUFFLE(a, b, 2, 6, 3, 7);
      const Vec4 cd0 = SHUFFLE(c, d, 0, 4, 1, 5), cd1 = SHUFFLE(c, d, 2, 6, 3, 7);
      float* target = to + column * to_stride + row;
      store<Vec4>(target, SHUFFLE(ab0, cd0, 0, 1, 4, 5));
      store<Vec4>(target + to_stride, SHUFFLE(ab0, cd0, 2, 3, 6, 7));
      store<Vec4>(target + 2 * to_stride, SHUFFLE(ab1, cd1, 0, 1, 4, 5));
      store<Vec4>(target + 3 * to_stride, SHUFFLE(ab1, cd1, 2, 3, 6, 7));
    }
    for (; column < columns; ++column)
      for (Index i = 0; i < 4; ++i) to[column * to_stride + row + i] = source[i * from_stride + column];
  }
  for (; row < rows; ++row)
    for (Index column = 0; column < columns; ++column) to[column * to_stride + row] = from[row * from_stride + column];
#undef SHUFFLE
}

// x [rows, size] -> panels [rows / lanes][padded][lanes], with zeros where x ends.
void pack(ffi::ThreadPool& pool, const float* x, Index rows, Index size, Index padded, Index lanes, float* panels) {
  constexpr Index kChunk = 64;  // features: 64 of them times 64 lanes stay in the first cache while it is filled
  const Index chunks = (padded + kChunk - 1) / kChunk, count = (rows + lanes - 1) / lanes * chunks;
  const Index groups = pieces(pool, count, kChunk * lanes);
  parallel(pool, groups, [=](Index group) {
    for (Index i = group * count / groups; i < (group + 1) * count / groups; ++i) {
      const Index panel = i / chunks, first = i % chunks * kChunk, last = std::min(padded, first + kChunk);
      const Index real_rows = std::min(lanes, rows - panel * lanes);
      const Index real = std::clamp<Index>(size - first, 0, last - first);
      float* to = panels + (panel * padded + first) * lanes;
      if (real_rows < lanes || first + real < last) std::memset(to, 0, (last - first) * lanes * 4);
      transpose(x + panel * lanes * size + first, size, real_rows, real, to, lanes);
    }
  });
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

// sums[R][C vectors] += the product of panel rows with R outputs of some blocks.
template <int R, int C>
INLINE void tile(const Blocks& w, Index begin, Index end, Index output, const float* panel, Index lanes, float* sums) {
  Vec sum[R][C];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) sum[r][c] = load<Vec>(sums + r * lanes + c * kWidth);
  const Index inputs = w.inputs, os = w.output_stride, is = w.input_stride;
  for (Index position = begin; position < end; ++position) {
    const Index t = w.at(position);
    const float* value = w.block(t) + output * os;
    const float* x = panel + w.index[t] * inputs * lanes;
    for (Index i = 0; i < inputs; ++i, value += is, x += lanes) {
      Vec lane[C];
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) lane[c] = load<Vec>(x + c * kWidth);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c) sum[r][c] += lane[c] * value[r * os];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) store(sums + r * lanes + c * kWidth, sum[r][c]);
}

// The same for all lanes of a panel, in tiles of at most C vectors.
template <int R, int C>
INLINE void strip(const Blocks& w, Index begin, Index end, Index output, const float* panel, Index lanes, Index from,
                  float* sums) {
  for (; from + C * kWidth <= lanes; from += C * kWidth)
    tile<R, C>(w, begin, end, output, panel + from, lanes, sums + from);
  if constexpr (C > 1) strip<R, C / 2>(w, begin, end, output, panel, lanes, from, sums);
}

// sums [outputs][lanes] += some blocks of one output block.
void many_rows(const Blocks& w, Index begin, Index end, const float* panel, Index lanes, float* sums) {
  constexpr int kWide = kRegisters / 8;  // 4 outputs x this many vectors are half of the registers
  // A few blocks at a time, which stay in the first cache while all outputs and lanes pass.
  const Index step = std::max<Index>(1, 128 / w.inputs);
  for (Index p = begin; p < end; p += step) {
    const Index q = std::min(end, p + step);
    Index o = 0;
    for (; o + 4 <= w.outputs; o += 4) strip<4, kWide>(w, p, q, o, panel, lanes, 0, sums + o * lanes);
    for (; o < w.outputs; ++o) strip<1, 8>(w, p, q, o, panel, lanes, 0, sums + o * lanes);
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

using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using S8 = ffi::Buffer<ffi::S8>;

template <class B>
auto optional(B& array) {
  return array.element_count() ? array.typed_data() : nullptr;
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
  pack(pool, x.typed_data(), batch, x.dimensions()[1], x_shape[1], lanes, x_panels->typed_data());
  pack(pool, g.typed_data(), batch, g.dimensions()[1], g_shape[1], lanes, g_panels->typed_data());
  const Index cut = pieces(pool, stored, bk * bn * batch);
  const int32_t *row = rows.typed_data(), *column = columns.typed_data();
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
