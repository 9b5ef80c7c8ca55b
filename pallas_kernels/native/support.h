// What the kernels share: vectors, threads, and the layout that activations are packed in.

#ifndef COMPRESSJAX_NATIVE_SUPPORT_H_
#define COMPRESSJAX_NATIVE_SUPPORT_H_

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

// Keeps a vector that is used several times in a register: compilers would read it from memory again for every use.
#if defined(__x86_64__)
#define IN_REGISTER(vector) asm("" : "+v"(vector))
#elif defined(__aarch64__)
#define IN_REGISTER(vector) asm("" : "+w"(vector))
#else
#define IN_REGISTER(vector)
#endif

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

}  // namespace

#endif  // COMPRESSJAX_NATIVE_SUPPORT_H_
