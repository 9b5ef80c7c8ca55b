// Convolutions by an implicit gather: products with the patches of images, which are never written.
//
// A part of the images is laid out feature by feature, like a panel of a product, with zeros where the images end:
//
//     window [phases][channels][rows][columns][images of a group]
//
// Rows and columns are counted in strides of the convolution, with a phase for every remainder, so that what one tap
// reads for neighbouring outputs is contiguous.  The taps of an output read the same window, shifted: `place` says where.

#ifndef COMPRESSJAX_NATIVE_CONVOLUTION_H_
#define COMPRESSJAX_NATIVE_CONVOLUTION_H_

#include <map>

#include "blocks.h"

namespace {

struct Window {
  const float* x;
  Index stride;         // from a channel to the next
  const int32_t* place; // of every feature (tap, channel)
  Index channels, size; // numbers of channels and of features

  const float* at(Index feature) const { return x + place[feature]; }
  Index together(Index feature) const { return feature < size ? channels - feature % channels : 0; }
  bool even(Index inputs) const { return channels % inputs == 0; }
};

// A side of a convolution: the height or the width.
struct Side {
  Index size, outputs, taps, stride, dilation, before;  // before: the padding there

  Index phases() const { return std::min(stride, (taps - 1) * dilation + 1); }
  Index reach() const { return (taps - 1) * dilation / stride; }  // cells from the first tap to the last
  Index phase(Index tap) const { return tap * dilation % stride; }
  Index shift(Index tap) const { return tap * dilation / stride; }
  // Cells [first, last) of a phase whose pixels exist.
  Index first(Index phase) const { return std::max<Index>(0, (before - phase + stride - 1) / stride); }
  Index last(Index phase) const { return std::max<Index>(0, (size - 1 - phase + before + stride) / stride); }
  Index pixel(Index cell, Index phase) const { return cell * stride + phase - before; }
};

struct Images {
  const float* x;
  float* y;
  Index count, channels, size;  // size: outputs
  Side high, wide;

  Index columns() const { return wide.outputs + wide.reach(); }  // of a window
};

// Outputs that share a window: some rows of some images.
struct Band {
  Index image, images, row, rows;

  // Floats of a window for one channel; vectors read beyond their last lane.
  Index stride(const Images& all) const { return (rows + all.high.reach()) * all.columns() * images + kWidth; }
  Index floats(const Images& all) const { return all.high.phases() * all.wide.phases() * all.channels * stride(all); }
};

// Vectors should be full: narrow images are taken several at a time, in fours for `transpose`.
Index together(Index columns, Index left) {
  Index group = 1;
  while (columns * group < 2 * kWidth) group *= 2;
  group = std::min((group + 3) / 4 * 4, left / 4 * 4);
  return columns >= 2 * kWidth || group == 0 ? 1 : group;
}

// A window should leave room in the second cache.
constexpr Index kWindowFloats = 40 << 10;

std::vector<Band> bands(const Images& all) {
  std::vector<Band> out;
  Index images;
  for (Index image = 0; image < all.count; image += images) {
    images = together(all.wide.outputs, all.count - image);
    Index rows = all.high.outputs;
    while (rows > 1 && Band{0, images, 0, rows}.floats(all) > kWindowFloats) rows = (rows + 1) / 2;
    for (Index row = 0; row < all.high.outputs; row += rows)
      out.push_back({image, images, row, std::min(rows, all.high.outputs - row)});
  }
  return out;
}

// Copies the images under a band into its window.
void fill(const Images& all, const Band& band, float* window) {
  constexpr Index kChunk = 64;  // channels: what is written for them stays in the first cache
  const Index stride = band.stride(all), channels = all.channels, images = band.images;
  std::memset(window, 0, 4 * band.floats(all));
  for (Index i = 0; i < all.high.phases(); ++i)
    for (Index j = 0; j < all.wide.phases(); ++j)
      for (Index c = 0; c < channels; c += kChunk) {
        const Index some = std::min(kChunk, channels - c);
        float* to = window + ((i * all.wide.phases() + j) * channels + c) * stride;
        const Index first = all.wide.first(j), last = std::min(all.columns(), all.wide.last(j));
        for (Index r = 0; r < band.rows + all.high.reach() && first < last; ++r) {
          const Index row = all.high.pixel(band.row + r, i);
          if (row < 0 || row >= all.high.size) continue;
          const float* from = all.x + (band.image * all.high.size + row) * all.wide.size * channels + c;
          float* cells = to + r * all.columns() * images;
          const auto pixel = [&](Index cell) { return from + all.wide.pixel(cell, j) * channels; };
          if (images == 1)
            transpose(pixel(first), all.wide.stride * channels, last - first, some, cells + first, stride);
          else
            for (Index cell = first; cell < last; ++cell)
              transpose(pixel(cell), all.high.size * all.wide.size * channels, images, some, cells + cell * images,
                        stride);
        }
      }
}

// Where every feature is in a window.
std::vector<int32_t> places(const Images& all, const Band& band) {
  std::vector<int32_t> out;
  for (Index i = 0; i < all.high.taps; ++i)
    for (Index j = 0; j < all.wide.taps; ++j)
      for (Index c = 0; c < all.channels; ++c) {
        const Index phase = all.high.phase(i) * all.wide.phases() + all.wide.phase(j);
        const Index cells = all.high.shift(i) * all.columns() + all.wide.shift(j);
        out.push_back((phase * all.channels + c) * band.stride(all) + cells * band.images);
      }
  return out;
}

// Neighbouring outputs in one row: their place among the sums, the row, and the columns.
struct Segment {
  Index to, row, first, last;
};

// Outputs that are summed at a time.
struct Strip {
  std::vector<Lanes> lanes;
  std::vector<Segment> segments;
  Index total = 0;

  void add(Index from, Index count) {
    count = (count + kWidth - 1) / kWidth * kWidth;
    lanes.push_back({from, total, count});
    total += count;
  }
};

std::vector<Strip> strips(const Images& all, const Band& band) {
  constexpr Index kMost = 64;  // lanes: their sums and features stay in the first cache
  const Index columns = all.wide.outputs, full = all.columns() * band.images, wide = columns * band.images;
  const auto whole = [](Index count) { return (count + kWidth - 1) / kWidth * kWidth; };
  std::vector<Strip> out;
  if (wide > kMost + kMost / 2) {
    const Index cut = (wide + kMost - 1) / kMost, some = std::min(columns, whole((columns + cut - 1) / cut));
    for (Index row = 0; row < band.rows; ++row)
      for (Index first = 0; first < columns; first += some) {
        Strip strip;
        const Index last = std::min(columns, first + some);
        strip.segments.push_back({0, row, first, last});
        strip.add(row * full + first * band.images, (last - first) * band.images);
        out.push_back(strip);
      }
    return out;
  }
  // Where a row does not fill its vectors, the cells between two rows may as well be computed.
  const bool joined = whole(wide) >= full;
  const Index most = std::max<Index>(1, kMost / (joined ? full : whole(wide)));
  for (Index row = 0; row < band.rows; row += most) {
    Strip strip;
    const Index rows = std::min(most, band.rows - row);
    for (Index r = 0; r < rows; ++r) {
      strip.segments.push_back({joined ? r * full : strip.total, row + r, 0, columns});
      if (!joined) strip.add((row + r) * full, wide);
    }
    if (joined) strip.add(row * full, (rows - 1) * full + wide);
    out.push_back(strip);
  }
  return out;
}

// sums [outputs][lanes] of a strip -> y, from an output on.
void write(const Images& all, const Band& band, const Strip& strip, const float* sums, Index begin, Index end) {
  const Index image = all.high.outputs * all.wide.outputs * all.size;
  for (const Segment& some : strip.segments) {
    const Index row = (band.row + some.row) * all.wide.outputs;
    float* to = all.y + band.image * image + (row + some.first) * all.size + begin;
    const float* from = sums + some.to;
    if (band.images == 1)
      transpose(from, strip.total, end - begin, some.last - some.first, to, all.size);
    else
      for (Index column = some.first; column < some.last; ++column, from += band.images, to += all.size)
        transpose(from, strip.total, end - begin, band.images, to, image);
  }
}

void convolve(ffi::ThreadPool& pool, const Images& all, const Blocks& w, Index stored, const float* bias) {
  const std::vector<Band> parts = bands(all);
  const Index positions = all.count * all.high.outputs * all.wide.outputs, groups = parts.size();
  const Index cut = cuts(pool, w, stored, std::min<Index>(64, positions), groups);
  std::map<std::pair<Index, Index>, std::vector<int32_t>> known;  // bands of one shape have features in the same places
  for (const Band& band : parts) {
    auto& place = known[{band.images, band.rows}];
    if (place.empty()) place = places(all, band);
  }
  parallel(pool, groups * cut, [&](Index i) {
    const Band& band = parts[i / cut];
    const Index first = i % cut * w.count / cut, last = (i % cut + 1) * w.count / cut;
    const Index begin = first * w.outputs, end = std::min(all.size, last * w.outputs);
    const std::vector<int32_t>& place = known.at({band.images, band.rows});
    Buffer cells = buffer(band.floats(all)), sums;
    fill(all, band, &cells[0]);
    const Window window = {&cells[0], band.stride(all), place.data(), all.channels, Index(place.size())};
    Index room = 0;
    for (const Strip& strip : strips(all, band)) {
      if (strip.total > room) sums = buffer((last - first) * w.outputs * (room = strip.total));
      add_up(w, first, last, window, strip.lanes, strip.total, bias, all.size, &sums[0]);
      write(all, band, strip, &sums[0], begin, end);
    }
  });
}

}  // namespace

#endif  // COMPRESSJAX_NATIVE_CONVOLUTION_H_
