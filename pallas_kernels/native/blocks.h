// Products with a list of blocks: how sums are formed in registers.

#ifndef COMPRESSJAX_NATIVE_BLOCKS_H_
#define COMPRESSJAX_NATIVE_BLOCKS_H_

#include <cstdint>

#include "support.h"

namespace {

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

// Activations of some rows, feature by feature: the same feature of all rows is contiguous.
struct Panel {
  const float* x;
  Index stride;  // from a feature to the next

  const float* at(Index feature) const { return x + feature * stride; }
  // How many features from this one on are a stride apart, and whether those of every block are.
  Index together(Index) const { return INT64_MAX; }
  bool even(Index) const { return true; }
};

// Rows that are contiguous in a panel, and where they are among the sums.
struct Lanes {
  Index from, to, count;
};

// sums[R][C vectors] += the product of panel rows with R outputs of some blocks.
template <int R, int C, class P>
INLINE void tile(const Blocks& w, const Run& run, Index output, const P& panel, Index from, float* sums, Index lanes) {
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
        add(sum[u], w.block(w.at(p + u)) + output * os, panel.at(w.index[w.at(p + u)]) + from);
    for (; p < run.end; ++p) add(sum[0], w.block(w.at(p)) + output * os, panel.at(w.index[w.at(p)]) + from);
  } else {
    for (Index p = run.begin; p < run.end; ++p) {
      const float* value = w.block(w.at(p)) + output * os + run.first * is;
      const float* x = panel.at(w.index[w.at(p)] * w.inputs + run.first) + from;
      Index i = run.first;
      for (; i + kChains <= run.last; i += kChains)
#pragma GCC unroll 16
        for (int u = 0; u < kChains; ++u, value += is, x += panel.stride) add(sum[u], value, x);
      for (; i < run.last; ++i, value += is, x += panel.stride) add(sum[0], value, x);
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

// The same for some lanes of a panel, in tiles of at most C vectors.
template <int R, int C, class P>
INLINE void strip(const Blocks& w, const Run& run, Index output, const P& panel, Lanes some, float* sums, Index lanes) {
  // Four vectors are two and two, not three and one.
  for (; some.count >= C * kWidth && !(C == 3 && some.count == 4 * kWidth); some.count -= C * kWidth) {
    tile<R, C>(w, run, output, panel, some.from, sums + some.to, lanes);
    some.from += C * kWidth, some.to += C * kWidth;
  }
  if constexpr (C > 1) strip<R, C == 3 ? 2 : C / 2>(w, run, output, panel, some, sums, lanes);
}

// Inputs of a run: so many rows of a panel, and weights for them, stay in the first cache.
constexpr Index kDepth = 32;

// sums [outputs][lanes] += some blocks of one output block.
template <class P>
void many_rows(const Blocks& w, Index begin, Index end, const P& panel, const std::vector<Lanes>& all, Index lanes,
               float* sums) {
  constexpr int kWide = kRegisters == 16 ? 3 : 4;  // 4 x this many sums, this many lanes and a weight fit in registers
  // A few blocks at a time, or a part of one, which stays in the first cache while all outputs and lanes pass.
  const Index step = panel.even(w.inputs) ? std::max<Index>(1, kDepth / w.inputs) : 1;
  for (Index p = begin; p < end; p += step)
    for (Index i = 0, next; i < w.inputs; i = next) {
      next = i + std::min({w.inputs - i, kDepth, panel.together(w.index[w.at(p)] * w.inputs + i)});
      if (next <= i) break;  // only zeros follow, which fill the last block
      const Run run = {p, std::min(end, p + step), i, next};
      for (const Lanes& some : all) {
        Index o = 0;
        for (; o + 4 <= w.outputs; o += 4) strip<4, kWide>(w, run, o, panel, some, sums + o * lanes, lanes);
        for (; o < w.outputs; ++o) strip<1, 8>(w, run, o, panel, some, sums + o * lanes, lanes);
      }
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
    // Vectors put together from single floats, which is faster than the instruction that gathers and than scalars.
    Vec4 sum[2] = {};
    Index p = begin;
    for (; p + 8 <= end; p += 8)
#pragma GCC unroll 16
      for (int u = 0; u < 2; ++u) {
        const Index q = p + 4 * u, a = w.at(q), b = w.at(q + 1), c = w.at(q + 2), d = w.at(q + 3);
        const Vec4 xs = {x[w.index[a]], x[w.index[b]], x[w.index[c]], x[w.index[d]]};
        sum[u] += (w.order ? Vec4{w.values[a], w.values[b], w.values[c], w.values[d]} : load<Vec4>(w.values + q)) * xs;
      }
    float rest = 0;
    for (; p < end; ++p) rest += w.values[w.at(p)] * x[w.index[w.at(p)]];
    sums[0] += rest + total(sum[0] + sum[1]);
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

// sums [outputs][lanes] = bias + the product, for the output blocks [first, last); of the bias there are `size`.
template <class P>
void add_up(const Blocks& w, Index first, Index last, const P& panel, const std::vector<Lanes>& all, Index lanes,
            const float* bias, Index size, float* sums) {
  for (Index o = first * w.outputs; o < last * w.outputs; ++o)
    std::fill_n(&sums[(o - first * w.outputs) * lanes], lanes, bias && o < size ? bias[o] : 0.0f);
  // Lists are sorted, so that the blocks whose inputs are in a part of the panel are a run of every list.
  std::vector<int32_t> next(w.starts + first, w.starts + last);
  const Index part = std::max<Index>(1, kPanelBytes / (4 * lanes * w.inputs));
  for (Index limit = part; limit < w.inner + part; limit += part)
    for (Index o = first; o < last; ++o) {
      Index p = next[o - first];
      if (limit >= w.inner) p = w.starts[o + 1];
      else while (p < w.starts[o + 1] && w.index[w.at(p)] < limit) ++p;
      float* into = &sums[(o - first) * w.outputs * lanes];
      if (lanes == 1) one_row(w, next[o - first], p, panel.x, into);
      else many_rows(w, next[o - first], p, panel, all, lanes, into);
      next[o - first] = p;
    }
}

// How many pieces to cut the outputs into: so few at a time that their sums stay in the cache, and, with `groups` of
// rows, some pieces for every thread.
Index cuts(ffi::ThreadPool& pool, const Blocks& w, Index stored, Index lanes, Index groups) {
  const Index work = stored * w.outputs * w.inputs * lanes / w.count + 1;
  const Index most = std::max<Index>(1, (64 << 10) / (4 * lanes * w.outputs));
  return std::max((w.count + most - 1) / most, std::min(w.count, pieces(pool, w.count * groups, work) / groups));
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

}  // namespace

#endif  // COMPRESSJAX_NATIVE_BLOCKS_H_
