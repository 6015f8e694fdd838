// 3x3x3 convolution in Winograd tiles; winograd-inl.h has the transforms.
//   A block of tiles is a few rows of every matrix product. Forward, for each block:
//     1. for each pass (two Z frequencies): transform the inputs of the tiles to V [frequency][tile][Ci], multiply with
//     the
//        weights U [frequency][Ci][Co] to M [frequency][tile][Co]
//     2. transform M back to outputs, add the bias, take moments, look for values that are not finite
//     3. compute tiles with such values again, directly
//   Backward by data is forward with flipped and transposed weights. Backward by weights, for each pass and segment of
//   the blocks: transform inputs to V and gradients to M, dU += V^T M; the segments' dU are added in order. Tiles of a
//   block are neighbours along Y and X; the next block lies behind it along Z, so that planes are still in the cache.
//   Blocks, segments and orders of summation depend on the shapes alone.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/conv3d.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "fovea/kernels/conv3d.h"
#include "fovea/kernels/cpu/gemm-inl.h"
#include "fovea/kernels/cpu/winograd-inl.h"
#include "hwy/aligned_allocator.h"

#ifndef FOVEA_CONV3D_ONCE
#define FOVEA_CONV3D_ONCE
namespace fovea::kernels::cpu::conv {

/// weight[o,i,j,k,c] as weight'[c,2-i,2-j,2-k,o]: the weights of the backward pass by data.
inline View<const float, 5> flipped(const View<const float, 5>& w) {
  const auto& s = w.stride;
  return {w.data + 2 * (s[1] + s[2] + s[3]), {w.shape[4], 3, 3, 3, w.shape[0]}, {s[4], -s[1], -s[2], -s[3], s[0]}};
}

/// Zero pages are made a page at a time, and the frequencies lie far apart: large pages make the transform of weights
/// three times as fast.
inline std::shared_ptr<float> allocate(int64_t floats) {
  constexpr size_t kHugePage = 2 << 20, kLine = 64;
  const size_t bytes = static_cast<size_t>(floats) * sizeof(float), alignment = bytes >= kHugePage ? kHugePage : kLine;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  if (!memory) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (alignment == kHugePage) madvise(memory, rounded, MADV_HUGEPAGE);
#endif
  return {static_cast<float*>(memory), std::free};
}

/// Where the 27 taps of a filter lie, from the first.
inline std::array<int64_t, 27> tap_offsets(const View<const float, 5>& w) {
  std::array<int64_t, 27> offset;
  for (int64_t t = 0; t < 27; ++t) offset[t] = t / 9 * w.stride[1] + t / 3 % 3 * w.stride[2] + t % 3 * w.stride[3];
  return offset;
}

/// Number, mean and sum of squared deviations.
struct Moments {
  double count = 0, mean = 0, squares = 0;
  void join(const Moments& other) {
    if (other.count == 0) return;
    const double delta = other.mean - mean, total = count + other.count;
    squares += other.squares + delta * delta * count * other.count / total;
    mean += delta * other.count / total;
    count = total;
  }
};

/// How the tiles of a batch are cut into blocks.
struct Blocks {
  int64_t nz, ny, nx, samples;  // tiles along the axes; samples of a unit: its tiles are numbered through
  int64_t strip;                // neighbouring tiles of a Y-X plane that a block may hold
  int64_t rows, blocks_of_unit, count, tiles_of_unit;
  std::array<int64_t, 3> tile_edge;

  enum class Samples { kApart, kTogether };
  Blocks(const std::array<int64_t, 5>& shape, const std::array<int64_t, 3>& edge, int64_t wanted_rows, Samples together)
      : tile_edge(edge) {
    const auto tiles = [&](int axis) { return (shape[axis + 1] + edge[axis] - 1) / edge[axis]; };
    nz = tiles(0), ny = tiles(1), nx = tiles(2);
    samples = together == Samples::kTogether && nz * ny * nx < wanted_rows ? shape[0] : 1;
    tiles_of_unit = samples * nz * ny * nx;
    blocks_of_unit = (tiles_of_unit + wanted_rows - 1) / wanted_rows;
    rows = (tiles_of_unit + blocks_of_unit - 1) / blocks_of_unit;
    blocks_of_unit = (tiles_of_unit + rows - 1) / rows;
    count = shape[0] / samples * blocks_of_unit;
    strip = std::min(ny * nx, rows);
  }
  int64_t rows_of(int64_t block) const { return std::min(rows, tiles_of_unit - block % blocks_of_unit * rows); }
  /// Sample and first output of a tile of a block.
  template <class Tile>
  Tile tile(int64_t block, int64_t row) const {
    const int64_t i = block % blocks_of_unit * rows + row, plane = ny * nx;
    const int64_t b = block / blocks_of_unit * samples + i / (nz * plane), in_sample = i % (nz * plane);
    const int64_t s = in_sample / (strip * nz), in_strip = in_sample % (strip * nz),
                  width = std::min(strip, plane - s * strip);
    const int64_t z = in_strip / width, at = s * strip + in_strip % width;
    return {b, z * tile_edge[0], at / nx * tile_edge[1], at % nx * tile_edge[2]};
  }
};

}  // namespace fovea::kernels::cpu::conv
#endif  // FOVEA_CONV3D_ONCE

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace conv {
using cpu::conv::Blocks;
using cpu::conv::Moments;
using cpu::conv::tap_offsets;
using winograd::Form;
using winograd::Tile;
using Volume = winograd::Volume<const float>;

struct DirectForm {
  static constexpr int kFrequencies = 27;
};

// Calls f(Form) of a Winograd form.
template <class F>
void WithForm(Conv3dForm form, const F& f) {
  switch (form) {
    case Conv3dForm::kF222:
      return f(Form<2, 2, 2>());
    case Conv3dForm::kF244:
      return f(Form<2, 4, 4>());
    case Conv3dForm::kF444:
      return f(Form<4, 4, 4>());
    default:
      return;
  }
}

template <class Fm, class F, int... kPass>
HWY_INLINE void EachPass(const F& f, std::integer_sequence<int, kPass...>) {
  (f(Count<kPass>()), ...);
}
// Calls f(Count<pass>()) for every pass.
template <class Fm, class F>
HWY_INLINE void ForPasses(const F& f) {
  EachPass<Fm>(f, std::make_integer_sequence<int, Fm::kPasses>());
}

// Streaming stores write whole cache lines, and only what is too much to be read again from a cache.
constexpr int64_t kStreamsFromBytes = 8 << 20;
constexpr bool writes_lines() { return L * sizeof(float) == 64; }

// ------------------------------------------------------------------------------------------------------------- weights

// to[f][column block][c][column] for the frequencies f of the form, or for the 27 taps.
template <class Fm>
void PackForm(const View<const float, 5>& w, float* to, const ParallelFor& parallel) {
  constexpr int64_t kGroup = 16;  // input channels of a task
  const int64_t N = w.shape[0], K = w.shape[4], groups = (K + kGroup - 1) / kGroup, frequency = packed_size(K, N);
  const bool streams = writes_lines() && Fm::kFrequencies * frequency * 4 > kStreamsFromBytes;
  parallel((N + kColumns - 1) / kColumns * groups, 1, [&](int64_t begin, int64_t end) {
    const Floats d;
    const hn::RebindToSigned<Floats> di;
    const auto offset = tap_offsets(w);
    HWY_ALIGN float g[27 * L];
    HWY_ALIGN int32_t filter[L];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item / groups * kColumns, lanes = std::min<int64_t>(kColumns, round_up(N, L) - block);
      const int64_t first = item % groups * kGroup, last = std::min(K, first + kGroup);
      for (int64_t k = first; k < last; ++k)
        for (int64_t j = block; j < block + lanes; j += L) {
          // A lane each; lanes behind the last filter read that one and are put to 0.
          const int64_t filters = std::min<int64_t>(L, N - j);
          for (int64_t i = 0; i < L; ++i) filter[i] = static_cast<int32_t>(std::min(i, filters - 1) * w.stride[0]);
          const auto index = hn::Load(di, filter);
          const auto real = hn::FirstN(d, static_cast<size_t>(filters));
          const float* from = w.data + j * w.stride[0] + k * w.stride[4];
          for (int t = 0; t < 27; ++t)
            hn::Store(hn::IfThenElseZero(real, hn::GatherIndex(d, from + offset[t], index)), d, g + t * L);
          float* at = to + block * K + k * lanes + (j - block);
          const auto store = [&](int64_t f, Vector u) {
            streams ? hn::Stream(u, d, at + f * frequency) : hn::Store(u, d, at + f * frequency);
          };
          if constexpr (std::is_same_v<Fm, DirectForm>) {
            for (int t = 0; t < 27; ++t) store(t, hn::Load(d, g + t * L));
          } else {
            winograd::WeightVector<Fm>(g, store);
          }
        }
    }
    if (streams) hwy::FlushStream();
  });
}

std::shared_ptr<float> TransformWeights(const View<const float, 5>& w, Conv3dForm form, const ParallelFor& parallel) {
  std::shared_ptr<float> values;
  const auto fill = [&](auto fm) {
    using Fm = decltype(fm);
    values = cpu::conv::allocate(Fm::kFrequencies * packed_size(w.shape[4], w.shape[0]));
    PackForm<Fm>(w, values.get(), parallel);
  };
  form == Conv3dForm::kDirect ? fill(DirectForm()) : WithForm(form, fill);
  return values;
}

// -------------------------------------------------------------------------------------------------------------- direct

// R voxels of a row, x..x+R-1, all of whose taps k in [k0, k1) lie in the volume.
template <int R, int W>
void DirectTile(const Conv3dParams<float>& p, const float* packed, int64_t b, int64_t z, int64_t y, int64_t x,
                int64_t k0, int64_t k1, int64_t j) {
  const Floats d;
  const Volume in(p.x);
  const int64_t N = p.out.shape[4], frequency = packed_size(in.C, N);
  Vector tile[R][W];
  FOVEA_EACH (r, R)
    FOVEA_EACH (w, W) tile[r][w] = p.bias.data ? LoadSome(p.bias.data + j + w * L, N - j - w * L) : hn::Zero(d);
  for (int64_t i = std::max<int64_t>(0, 1 - z); i < std::min<int64_t>(3, in.Z + 1 - z); ++i)
    for (int64_t jj = std::max<int64_t>(0, 1 - y); jj < std::min<int64_t>(3, in.Y + 1 - y); ++jj)
      for (int64_t k = k0; k < k1; ++k) {
        const float* rows = in.at(b, z + i - 1, y + jj - 1, x + k - 1);
        Multiply<R, W>(rows, in.sx, in.C, packed + (i * 9 + jj * 3 + k) * frequency + j * in.C, rows, tile);
      }
  float* to = p.out.data + b * p.out.stride[0] + z * p.out.stride[1] + y * p.out.stride[2] + x * p.out.stride[3] + j;
  FOVEA_EACH (r, R)
    FOVEA_EACH (w, W) StoreSome(tile[r][w], to + r * p.out.stride[3] + w * L, N - j - w * L);
}

// Outputs [x0, x1) of one row.
void DirectRow(const Conv3dParams<float>& p, const float* packed, int64_t b, int64_t z, int64_t y, int64_t x0,
               int64_t x1) {
  const int64_t N = p.out.shape[4], X = p.out.shape[3];
  for (int64_t j = 0; j < N; j += kColumns) {
    const int vectors = static_cast<int>((std::min<int64_t>(kColumns, N - j) + L - 1) / L);
    const auto run = [&](int64_t x, int rows, int64_t k0, int64_t k1) {
      WithTile(rows, vectors, [&](auto r, auto w) {
        DirectTile<decltype(r)::value, decltype(w)::value>(p, packed, b, z, y, x, k0, k1, j);
      });
    };
    const int64_t inner0 = std::max<int64_t>(x0, 1), inner1 = std::max(inner0, std::min(x1, X - 1));
    if (x0 == 0) run(0, 1, 1, X == 1 ? 2 : 3);
    ForTileRows(inner1 - inner0, [&](int64_t x, int rows) { run(inner0 + x, rows, 0, 3); });
    if (x1 == X && X > 1) run(X - 1, 1, 0, 2);
  }
}

// Moments of channel o over some rows of outputs, twice through the data.
template <class ForRows>
Moments MomentsOf(const Conv3dParams<float>& p, int64_t o, const ForRows& for_rows) {
  Moments m;
  const auto each = [&](const auto& f) {
    for_rows([&](int64_t b, int64_t z, int64_t y, int64_t x0, int64_t x1) {
      for (int64_t x = x0; x < x1; ++x) f(double{p.out(b, z, y, x, o)});
    });
  };
  each([&](double value) { m.count += 1, m.mean += value; });
  m.mean /= m.count;
  each([&](double value) { m.squares += (value - m.mean) * (value - m.mean); });
  return m;
}

// Joins the moments of a sample's parts, parts[part * Co + o], in order.
void JoinMoments(const std::vector<Moments>& parts, const View<double, 3>& into) {
  const int64_t B = into.shape[0], Co = into.shape[1], parts_of_sample = static_cast<int64_t>(parts.size()) / (B * Co);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t o = 0; o < Co; ++o) {
      Moments all;
      for (int64_t part = 0; part < parts_of_sample; ++part) all.join(parts[(b * parts_of_sample + part) * Co + o]);
      into(b, o, 0) = all.mean, into(b, o, 1) = all.squares;
    }
}

void DirectForward(const Conv3dParams<float>& p, const float* packed, const ParallelFor& parallel) {
  const auto [B, Z, Y, X, Co] = p.out.shape;
  std::vector<Moments> parts(p.moments.data ? B * Z * Co : 0);
  parallel(B * Z, 1, [&, Z = Z, Y = Y, X = X, Co = Co](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / Z, z = item % Z;
      for (int64_t y = 0; y < Y; ++y) DirectRow(p, packed, b, z, y, 0, X);
      for (int64_t o = 0; o < Co && p.moments.data; ++o)
        parts[item * Co + o] = MomentsOf(p, o, [&](const auto& row) {
          for (int64_t y = 0; y < Y; ++y) row(b, z, y, 0, X);
        });
    }
  });
  if (p.moments.data) JoinMoments(parts, p.moments);
}

// ------------------------------------------------------------------------------------------------------------- forward

// Tiles of a block: transformed weights are read once a block, and what they are multiplied with should stay in the
// cache.
int64_t ForwardRows(int64_t weights_bytes) { return weights_bytes > (8 << 20) ? 64 : 32; }

// As many as 16 MiB hold, if the sums are so large that adding to them is what takes time.
int64_t BackwardRows(int64_t sums_bytes, int64_t bytes_of_row) {
  constexpr int64_t kWorkspaceBytes = 16 << 20, kFew = 64, kMany = 192, kInCacheBytes = 3 << 20;
  return sums_bytes <= kInCacheBytes ? kFew : std::clamp<int64_t>(kWorkspaceBytes / bytes_of_row, 16, kMany);
}

template <class Fm>
Blocks BlocksOf(const std::array<int64_t, 5>& shape, int64_t rows, Blocks::Samples samples) {
  return Blocks(shape, {Fm::MZ, Fm::MY, Fm::MX}, rows, samples);
}

// A stack of matrices, one a frequency, with a cache line between them: equal offsets would share cache sets.
struct Stack {
  float* data;
  int64_t columns, step;  // of a row, of a frequency
  Stack(Arena& arena, int64_t frequencies, int64_t rows, int64_t channels)
      : columns(round_up(channels, L)), step(rows * columns + 16) {
    data = arena.take(frequencies * step);
  }
  float* at(int64_t frequency, int64_t row) const { return data + frequency * step + row * columns; }
};

struct ForwardMemory {
  Stack v, m;
  float* zeros;
  template <class Fm>
  ForwardMemory(Fm, const Blocks& blocks, int64_t Ci, int64_t Co, Arena& arena)
      : v(arena, Fm::kOfPass, blocks.rows, Ci),
        m(arena, Fm::kFrequencies, blocks.rows, Co),
        zeros(arena.take(round_up(Ci, L))) {}
};

// Writes the outputs of one vector of channels [c, c + L) of a block's tiles and takes their moments.
template <class Fm>
struct OutputWriter {
  const Conv3dParams<float>& p;
  const ForwardMemory& memory;
  const std::vector<Tile>& tiles;
  bool streams;                  // past the caches
  std::vector<uint8_t>& spoilt;  // tiles with values that are not finite

  template <bool kTail>
  void Channels(int64_t c, Moments* moments) const {
    const Floats d;
    const auto& s = p.out.stride;
    const int64_t lanes = std::min<int64_t>(L, p.out.shape[4] - c);
    const Vector bias = !p.bias.data ? hn::Zero(d)
                        : kTail      ? LoadSome(p.bias.data + c, lanes)
                                     : hn::LoadU(d, p.bias.data + c);
    Vector shift = hn::Zero(d), sum = hn::Zero(d), squares = hn::Zero(d);
    int64_t count = 0;
    for (size_t r = 0; r < tiles.size(); ++r) {
      Vector y[Fm::MZ][Fm::MY][Fm::MX];
      winograd::OutputVector<Fm>(memory.m.at(0, r) + c, memory.m.step, y);
      const Tile& t = tiles[r];
      const int64_t nz = std::min<int64_t>(Fm::MZ, p.out.shape[1] - t.z),
                    ny = std::min<int64_t>(Fm::MY, p.out.shape[2] - t.y),
                    nx = std::min<int64_t>(Fm::MX, p.out.shape[3] - t.x);
      // Sums of differences from a value that is like the others: a mean much larger than the deviation does no harm.
      if (r == 0) shift = hn::Add(y[nz > 1][ny > 1][nx > 1], bias);
      float* out = p.out.data + t.b * s[0] + t.z * s[1] + t.y * s[2] + t.x * s[3] + c;
      Vector tile_sum = hn::Zero(d), tile_squares = hn::Zero(d), poison = hn::Zero(d);
      for (int64_t k = 0; k < nz; ++k)
        for (int64_t j = 0; j < ny; ++j)
          for (int64_t i = 0; i < nx; ++i) {
            const Vector value = hn::Add(y[k][j][i], bias);
            poison = hn::MulAdd(value, hn::Zero(d), poison);
            if (moments) {
              const Vector difference = hn::Sub(value, shift);
              tile_sum = hn::Add(tile_sum, difference);
              tile_squares = hn::MulAdd(difference, difference, tile_squares);
            }
            float* to = out + k * s[1] + j * s[2] + i * s[3];
            if (kTail)
              StoreSome(value, to, lanes);
            else if (streams)
              hn::Stream(value, d, to);
            else
              hn::StoreU(value, d, to);
          }
      sum = hn::Add(sum, tile_sum), squares = hn::Add(squares, tile_squares);
      count += nz * ny * nx;
      if (!hn::AllTrue(d, hn::Eq(poison, hn::Zero(d)))) spoilt[r] = 1;
    }
    if (!moments) return;
    HWY_ALIGN float shifts[L], sums[L], squared[L];
    hn::Store(shift, d, shifts), hn::Store(sum, d, sums), hn::Store(squares, d, squared);
    for (int64_t i = 0; i < lanes; ++i) {
      const double n = static_cast<double>(count), mean = sums[i] / n;
      moments[c + i] = {n, shifts[i] + mean, squared[i] - mean * mean * n};
    }
  }

  // moments: of the block, a channel each, or null
  void All(Moments* moments) const {
    const int64_t Co = p.out.shape[4], whole = Co / L * L;
    for (int64_t c = 0; c < whole; c += L) Channels<false>(c, moments);
    if (whole < Co) Channels<true>(whole, moments);
  }
};

// Calls row(b, z, y, x0, x1) for the rows of outputs of a tile.
template <class Fm, class Row>
void ForRowsOf(const Tile& t, const std::array<int64_t, 5>& shape, const Row& row) {
  for (int64_t z = t.z; z < std::min(shape[1], t.z + Fm::MZ); ++z)
    for (int64_t y = t.y; y < std::min(shape[2], t.y + Fm::MY); ++y)
      row(t.b, z, y, t.x, std::min(shape[3], t.x + Fm::MX));
}

bool Streams(const View<float, 5>& out) {
  if (!writes_lines() || out.size() * 4 < kStreamsFromBytes || reinterpret_cast<uintptr_t>(out.data) % 64) return false;
  return std::none_of(out.stride.begin(), out.stride.end() - 1, [](int64_t step) { return step % L != 0; });
}

// Brings the inputs of the next block into the cache, a few rows of voxels at a time, while this one is multiplied.
template <class Fm>
class NextInputs {
 public:
  NextInputs(const Volume& x, const Blocks& blocks, int64_t block, int64_t end, int64_t steps) : x_(x) {
    if (block + 1 >= end) return;
    for (int64_t r = 0; r < blocks.rows_of(block + 1); ++r) tiles_.push_back(blocks.template tile<Tile>(block + 1, r));
    rows_of_step_ = (static_cast<int64_t>(tiles_.size()) * kRowsOfTile + steps - 1) / steps;
  }
  void Step() {
    for (int64_t i = 0; i < rows_of_step_ && at_ < static_cast<int64_t>(tiles_.size()) * kRowsOfTile; ++i, ++at_) {
      const Tile& t = tiles_[at_ / kRowsOfTile];
      const int64_t z = t.z - 1 + at_ % kRowsOfTile / Fm::FY, y = t.y - 1 + at_ % Fm::FY;
      if (z < 0 || z >= x_.Z || y < 0 || y >= x_.Y) continue;
      for (int64_t x = t.x; x < std::min(x_.X, t.x + Fm::MX); ++x)
        for (int64_t c = 0; c < x_.C; c += kLine)
          __builtin_prefetch(x_.at(t.b, z, y, x) + c, /*write=*/0, /*locality=*/2);
    }
  }

 private:
  static constexpr int64_t kRowsOfTile = Fm::FZ * Fm::FY, kLine = 16;
  const Volume& x_;
  std::vector<Tile> tiles_;
  int64_t rows_of_step_ = 0, at_ = 0;
};

template <class Fm>
void WinogradForward(const Conv3dParams<float>& p, const float* u, const ParallelFor& parallel) {
  const int64_t Ci = p.x.shape[4], Co = p.out.shape[4], frequency = packed_size(Ci, Co);
  const bool streams = Streams(p.out);
  const auto blocks = BlocksOf<Fm>(p.out.shape, ForwardRows(Fm::kFrequencies * frequency * 4),
                                   p.moments.data ? Blocks::Samples::kApart : Blocks::Samples::kTogether);
  std::vector<Moments> parts(p.moments.data ? blocks.count * Co : 0);
  std::once_flag packed;
  std::shared_ptr<float> direct;
  parallel(blocks.count, 1, [&](int64_t begin, int64_t end) {
    const auto memory = arena_memory([&](Arena& arena) { ForwardMemory(Fm(), blocks, Ci, Co, arena); });
    Arena arena(memory.get());
    const ForwardMemory m(Fm(), blocks, Ci, Co, arena);
    Fill(m.zeros, round_up(Ci, L), 0);
    const Volume x(p.x);
    std::vector<Tile> tiles;
    std::vector<uint8_t> spoilt;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t rows = blocks.rows_of(block);
      tiles.clear(), spoilt.assign(rows, 0);
      for (int64_t r = 0; r < rows; ++r) tiles.push_back(blocks.template tile<Tile>(block, r));
      NextInputs<Fm> next(x, blocks, block, end, Fm::kFrequencies);
      ForPasses<Fm>([&](auto pass) {
        constexpr int kPass = decltype(pass)::value;
        for (int64_t r = 0; r < rows; ++r) winograd::DataTile<Fm, kPass>(x, tiles[r], m.zeros, m.v.at(0, r), m.v.step);
        for (int f = 0; f < Fm::kOfPass; ++f) {
          const int64_t at = kPass * Fm::kOfPass + f;
          next.Step();
          Product(m.v.at(f, 0), m.v.columns, rows, Ci, u + at * frequency, Co,
                  [&](int64_t i, int64_t j, Vector value) { hn::Store(value, Floats(), m.m.at(at, i) + j); });
        }
      });
      Moments* moments = p.moments.data ? parts.data() + block * Co : nullptr;
      OutputWriter<Fm>{p, m, tiles, streams, spoilt}.All(moments);
      if (std::find(spoilt.begin(), spoilt.end(), 1) == spoilt.end()) continue;
      std::call_once(packed, [&] { direct = TransformWeights(p.weight, Conv3dForm::kDirect, serial_for); });
      for (int64_t r = 0; r < rows; ++r)
        if (spoilt[r])
          ForRowsOf<Fm>(tiles[r], p.out.shape, [&](int64_t b, int64_t z, int64_t y, int64_t x0, int64_t x1) {
            DirectRow(p, direct.get(), b, z, y, x0, x1);
          });
      for (int64_t o = 0; o < Co && moments; ++o)
        moments[o] = MomentsOf(p, o, [&](const auto& row) {
          for (const Tile& t : tiles) ForRowsOf<Fm>(t, p.out.shape, row);
        });
    }
    if (streams) hwy::FlushStream();
  });
  if (p.moments.data) JoinMoments(parts, p.moments);
}

void Forward(const Conv3dParams<float>& p, Conv3dForm form, const ParallelFor& parallel, const Conv3dWeights* kept) {
  const auto weights = kept ? kept->values : TransformWeights(p.weight, form, parallel);
  if (form == Conv3dForm::kDirect) return DirectForward(p, weights.get(), parallel);
  WithForm(form, [&](auto fm) { WinogradForward<decltype(fm)>(p, weights.get(), parallel); });
}

// ------------------------------------------------------------------------------------------------------------ backward

struct BackwardMemory {
  Stack v, m;
  float* zeros;
  template <class Fm>
  BackwardMemory(Fm, const Blocks& blocks, int64_t Ci, int64_t Co, Arena& arena)
      : v(arena, Fm::kOfPass, blocks.rows, Ci),
        m(arena, Fm::kOfPass, blocks.rows, Co),
        zeros(arena.take(round_up(std::max(Ci, Co), L))) {}
};

template <class Fm>
void WeightGradient(const Conv3dBackwardParams<float>& g, const ParallelFor& parallel) {
  constexpr int64_t kSumsBytes = 64 << 20, kMostSegments = 8, kFetchedRows = 64;
  const auto& p = g.forward;
  const int64_t Ci = p.x.shape[4], Co = g.grad_out.shape[4], columns = round_up(Co, L), frequency = Ci * columns;
  const int64_t sums_size = Fm::kFrequencies * frequency;
  const auto blocks = BlocksOf<Fm>(g.grad_out.shape, BackwardRows(4 * sums_size, 4 * Fm::kOfPass * (Ci + Co)),
                                   Blocks::Samples::kTogether);
  const int64_t segments =
      std::clamp<int64_t>(std::min(kSumsBytes / (4 * sums_size), blocks.count / 2), 1, kMostSegments);
  const auto sums = cpu::conv::allocate(segments * sums_size);
  parallel(segments * Fm::kPasses, 1, [&](int64_t begin, int64_t end) {
    const auto memory = arena_memory([&](Arena& arena) { BackwardMemory(Fm(), blocks, Ci, Co, arena); });
    Arena arena(memory.get());
    const BackwardMemory m(Fm(), blocks, Ci, Co, arena);
    Fill(m.zeros, round_up(std::max(Ci, Co), L), 0);
    const Volume x(p.x), grad(g.grad_out);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t segment = item / Fm::kPasses;
      ForPasses<Fm>([&](auto pass) {
        constexpr int kPass = decltype(pass)::value;
        if (item % Fm::kPasses != kPass) return;
        float* du = sums.get() + segment * sums_size + kPass * Fm::kOfPass * frequency;
        Fill(du, Fm::kOfPass * frequency, 0);
        const int64_t last = blocks.count * (segment + 1) / segments;
        for (int64_t block = blocks.count * segment / segments; block < last; ++block) {
          const int64_t rows = blocks.rows_of(block);
          for (int64_t r = 0; r < rows; ++r) {
            const auto tile = blocks.template tile<Tile>(block, r);
            winograd::DataTile<Fm, kPass>(x, tile, m.zeros, m.v.at(0, r), m.v.step);
            winograd::GradTile<Fm, kPass>(grad, tile, m.zeros, m.m.at(0, r), m.m.step);
          }
          const int64_t fetched = blocks.rows > kFetchedRows ? 0 : last;  // more would not stay in the cache
          NextInputs<Fm> next_x(x, blocks, block, fetched, Fm::kOfPass);
          NextInputs<Fm> next_grad(grad, blocks, block, fetched, Fm::kOfPass);
          for (int f = 0; f < Fm::kOfPass; ++f) {
            next_x.Step(), next_grad.Step();
            AddOuterProduct(m.v.at(f, 0), m.v.columns, Ci, m.m.at(f, 0), m.m.columns, Co, rows, du + f * frequency,
                            columns);
          }
        }
      });
    }
  });

  parallel(Ci, 1, [&](int64_t begin, int64_t end) {
    const Floats d;
    const auto offset = tap_offsets(g.grad_weight);
    HWY_ALIGN float taps[27 * L];
    for (int64_t c = begin; c < end; ++c)
      for (int64_t o = 0; o < Co; o += L) {
        const float* at = sums.get() + c * columns + o;
        winograd::WeightVectorAdjoint<Fm>(
            [&](int64_t f) {
              Vector sum = hn::Load(d, at + f * frequency);
              for (int64_t s = 1; s < segments; ++s)
                sum = hn::Add(sum, hn::Load(d, at + s * sums_size + f * frequency));
              return sum;
            },
            taps);
        for (int64_t i = 0; i < std::min<int64_t>(L, Co - o); ++i) {
          float* to = &g.grad_weight(o + i, 0, 0, 0, c);
          for (int t = 0; t < 27; ++t) to[offset[t]] = taps[t * L + i];
        }
      }
  });
}

// Sums over rows of X voxels in float, over those in double.
void BiasGradient(const Conv3dBackwardParams<float>& g) {
  const Floats d;
  const auto [B, Z, Y, X, Co] = g.grad_out.shape;
  for (int64_t o = 0; o < Co; o += L) {
    const int64_t lanes = std::min<int64_t>(L, Co - o);
    double sums[L] = {};
    for (int64_t row = 0; row < B * Z * Y; ++row) {
      const float* from = &g.grad_out(row / (Z * Y), row / Y % Z, row % Y, 0, o);
      Vector sum = hn::Zero(d);
      for (int64_t x = 0; x < X; ++x) sum = hn::Add(sum, LoadSome(from + x * g.grad_out.stride[3], lanes));
      HWY_ALIGN float of_row[L];
      hn::Store(sum, d, of_row);
      for (int64_t i = 0; i < lanes; ++i) sums[i] += of_row[i];
    }
    for (int64_t i = 0; i < lanes; ++i) g.grad_bias(o + i) = static_cast<float>(sums[i]);
  }
}

void Backward(const Conv3dBackwardParams<float>& g, Conv3dForm form, const ParallelFor& parallel) {
  if (g.grad_x.data) {
    Conv3dParams<float> p;
    p.x = g.grad_out, p.weight = cpu::conv::flipped(g.forward.weight), p.out = g.grad_x;
    Forward(p, form, parallel, nullptr);
  }
  if (g.grad_weight.data) {
    if (form == Conv3dForm::kDirect) {
      auto by_weights = g;
      by_weights.grad_x = {}, by_weights.grad_bias = {};
      reference::conv3d_backward(by_weights, parallel);
    } else {
      WithForm(form, [&](auto fm) { WeightGradient<decltype(fm)>(g, parallel); });
    }
  }
  if (g.grad_bias.data) BiasGradient(g);
}

}  // namespace conv
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {
namespace {

std::shared_ptr<float> transform(const View<const float, 5>& weight, Conv3dForm form, const ParallelFor& parallel,
                                 Isa isa) {
  FOVEA_RETURN_BEST(isa, conv::TransformWeights, weight, form, parallel)
  return {};
}

}  // namespace

Conv3dWeights transform_conv3d_weights(const View<const float, 5>& weight, Conv3dForm form, const ParallelFor& parallel,
                                       Isa isa) {
  return {form, isa, weight.shape[4], weight.shape[0], transform(weight, form, parallel, isa)};
}

void conv3d_forward(const Conv3dParams<float>& p, Conv3dForm form, const ParallelFor& parallel, Isa isa,
                    const Conv3dWeights* kept) {
  if (p.out.size() == 0) return;
  FOVEA_RETURN_BEST(isa, conv::Forward, p, form, parallel, kept)
  reference::conv3d_forward(p, parallel);
}

void conv3d_backward(const Conv3dBackwardParams<float>& g, Conv3dForm form, const ParallelFor& parallel, Isa isa) {
  if (g.grad_out.size() > 0) {
    FOVEA_RETURN_BEST(isa, conv::Backward, g, form, parallel)
  }
  reference::conv3d_backward(g, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
