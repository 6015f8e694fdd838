// Matrix products on register tiles. Included once per Highway target.
//   C[i][j] = sum_k A[i][k] B[k][j]. A tile is R <= kTileRows rows of C by W <= kTileVectors vectors of its columns, and
//   all of it stays in registers (8 x 3 of 32, 6 x 2 of 16): W loads of B and R broadcasts of A feed R * W multiply-adds.
//   B is packed once into blocks of kColumns columns, [block][k][column], so that a tile reads it in order; the last
//   block has as many vectors as it needs, zeros behind its last column. A is read where it lies. While a tile runs,
//   the rows of the next one are fetched, one line a row every 16 k, and B 16 k ahead.
//     Multiply       tile += A B      k along the rows of A: products with packed weights
//     MultiplyOuter  tile += A^T B    k counts the rows of A and of B: sums over tokens, the gradients of weights
#if defined(FOVEA_KERNELS_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_KERNELS_GEMM_INL_H_
#undef FOVEA_KERNELS_GEMM_INL_H_
#else
#define FOVEA_KERNELS_GEMM_INL_H_
#endif

#include <type_traits>

#include "fovea/kernels/cpu/vector-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {

constexpr int kTileRows = kRegisters == 16 ? 6 : 8;
constexpr int kTileVectors = kRegisters == 16 ? 2 : 3;
constexpr int kColumns = kTileVectors * L;

// a[r][w] += sum_k rows[r * step + k] * packed[k * W * L + w * L ...], k < K. `next`: R rows that will be read next.
template <int R, int W>
HWY_INLINE void Multiply(const float* rows, int64_t step, int64_t K, const float* HWY_RESTRICT packed, const float* next,
                         Vector (&a)[R][W]) {
  constexpr int kStep = 16;
  const Floats d;
  int64_t k = 0;
  for (; k + kStep <= K; k += kStep) {
    FOVEA_EACH (r, R) hwy::Prefetch(next + r * step + k);
    FOVEA_UNROLL(4)
    for (int i = 0; i < kStep; ++i) {
      Vector b[W];
      FOVEA_EACH (w, W) b[w] = hn::Load(d, packed + w * L);
      FOVEA_EACH (w, (W * L + 15) / 16) hwy::Prefetch(packed + kStep * W * L + w * 16);
      FOVEA_EACH (r, R) {
        const Vector x = hn::Set(d, rows[r * step + k + i]);
        FOVEA_EACH (w, W) a[r][w] = hn::MulAdd(x, b[w], a[r][w]);
      }
      packed += W * L;
    }
  }
  for (; k < K; ++k, packed += W * L) {
    Vector b[W];
    FOVEA_EACH (w, W) b[w] = hn::Load(d, packed + w * L);
    FOVEA_EACH (r, R) {
      const Vector x = hn::Set(d, rows[r * step + k]);
      FOVEA_EACH (w, W) a[r][w] = hn::MulAdd(x, b[w], a[r][w]);
    }
  }
}

// a[r][w] += sum_k left[k * left_step + r] * right[k * right_step + w * L ...], k < K.
template <int R, int W>
HWY_INLINE void MultiplyOuter(const float* left, int64_t left_step, const float* right, int64_t right_step, int64_t K,
                              Vector (&a)[R][W]) {
  const Floats d;
  FOVEA_UNROLL(2)
  for (int64_t k = 0; k < K; ++k, left += left_step, right += right_step) {
    Vector b[W];
    FOVEA_EACH (w, W) b[w] = hn::LoadU(d, right + w * L);
    FOVEA_EACH (r, R) {
      const Vector x = hn::Set(d, left[r]);
      FOVEA_EACH (w, W) a[r][w] = hn::MulAdd(x, b[w], a[r][w]);
    }
  }
}

template <int n>
using Count = std::integral_constant<int, n>;

template <int W, class F>
HWY_INLINE void WithRows(int rows, const F& f) {
  switch (rows) {
    case 1: return f(Count<1>(), Count<W>());
    case 2: return f(Count<2>(), Count<W>());
    case 3: return f(Count<3>(), Count<W>());
    case 4: return f(Count<4>(), Count<W>());
    case 5: return f(Count<5>(), Count<W>());
    case 6: return f(Count<6>(), Count<W>());
#if HWY_TARGET != HWY_AVX2
    case 7: return f(Count<7>(), Count<W>());
    case 8: return f(Count<8>(), Count<W>());
#endif
  }
}

// Calls f(Count<rows>(), Count<vectors>()) for a tile of that size.
template <class F>
HWY_INLINE void WithTile(int rows, int vectors, const F& f) {
  if (vectors == 1) return WithRows<1>(rows, f);
  if (vectors == 2) return WithRows<2>(rows, f);
#if HWY_TARGET != HWY_AVX2
  WithRows<3>(rows, f);
#endif
}

// Splits `count` rows evenly into as few tiles as can be: f(first row, rows).
template <class F>
HWY_INLINE void ForTileRows(int64_t count, const F& f) {
  const int64_t tiles = (count + kTileRows - 1) / kTileRows;
  int64_t first = 0;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t rows = (count - first) / (tiles - i);
    f(first, static_cast<int>(rows));
    first += rows;
  }
}

// Floats that K rows of N columns take when packed.
constexpr int64_t packed_size(int64_t K, int64_t N) { return K * round_up(N, L); }

// B[k][j] = weight row j, element k: packs the weight [N][K] of a linear layer for products with its input.
inline void PackTransposedWeight(const float* weight, int64_t step, int64_t K, int64_t N, float* packed) {
  const Rows<const float> rows{weight, nullptr, step};
  for (int64_t j = 0; j < N; j += kColumns) {
    const int n = static_cast<int>(std::min<int64_t>(kColumns, N - j)), lanes = static_cast<int>(round_up(n, L));
    PackTransposed(rows, j, n, lanes, static_cast<int>(K), Factor(1), packed + j * K);
  }
}

// B[k][j] = weight row k, element j: the same weight, [K][N], for products with gradients of its output.
inline void PackWeight(const float* weight, int64_t step, int64_t K, int64_t N, float* packed) {
  for (int64_t j = 0; j < N; j += kColumns) {
    const int n = static_cast<int>(std::min<int64_t>(kColumns, N - j)), lanes = static_cast<int>(round_up(n, L));
    for (int64_t k = 0; k < K; ++k) CopyRow(weight + k * step + j, n, lanes, packed + j * K + k * lanes);
  }
}

// store(i, j, vector) for every vector of C = A B, i < M, j < N in steps of L; packed as above. Stores must be inlined.
template <class Store>
void Product(const float* a, int64_t step, int64_t M, int64_t K, const float* packed, int64_t N, const Store& store) {
  for (int64_t j = 0; j < N; j += kColumns) {
    const int vectors = static_cast<int>((std::min<int64_t>(kColumns, N - j) + L - 1) / L);
    ForTileRows(M, [&](int64_t i, int rows) {
      WithTile(rows, vectors, [&](auto r_count, auto w_count) {
        constexpr int R = decltype(r_count)::value, W = decltype(w_count)::value;
        Vector tile[R][W];
        FOVEA_EACH (r, R)
          FOVEA_EACH (w, W) tile[r][w] = hn::Zero(Floats());
        const float* rows_at = a + i * step;
        Multiply<R, W>(rows_at, step, K, packed + j * K, i + R < M ? rows_at + R * step : a, tile);
        FOVEA_EACH (r, R)
          FOVEA_EACH (w, W) store(i + r, j + w * L, tile[r][w]);
      });
    });
  }
}

// c[m][n] += sum_k left[k][m] * right[k][n], k < K, m < M, n < N. Rows of right and of c reach to the next vector, and
// what stands behind column N of c is of no meaning.
inline void AddOuterProduct(const float* left, int64_t left_step, int64_t M, const float* right, int64_t right_step,
                            int64_t N, int64_t K, float* c, int64_t c_step) {
  const Floats d;
  for (int64_t n = 0; n < N; n += kColumns) {
    const int vectors = static_cast<int>((std::min<int64_t>(kColumns, N - n) + L - 1) / L);
    ForTileRows(M, [&](int64_t m, int rows) {
      WithTile(rows, vectors, [&](auto r_count, auto w_count) {
        constexpr int R = decltype(r_count)::value, W = decltype(w_count)::value;
        Vector tile[R][W];
        float* to = c + m * c_step + n;
        FOVEA_EACH (r, R)
          FOVEA_EACH (w, W) tile[r][w] = hn::Zero(d);
        MultiplyOuter<R, W>(left + m, left_step, right + n, right_step, K, tile);
        FOVEA_EACH (r, R)
          FOVEA_EACH (w, W) {
            float* at = to + r * c_step + w * L;
            hn::StoreU(hn::Add(hn::LoadU(d, at), tile[r][w]), d, at);
          }
      });
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS
#endif  // toggle
