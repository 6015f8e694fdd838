// Winograd's minimal filtering along one axis, F(M, 3), and over the three axes of a tile. Included once per Highway
// target.
//   M outputs y of a 3-tap filter g need M + 2 products:  y = A^T [ (G g) * (B^T d) ]  with M + 2 inputs d. A tile of
//   MZ x MY x MX outputs applies this along Z, Y and X, so that (MZ+2)(MY+2)(MX+2) products take the place of
//   27 MZ MY MX; summed over channels, each of these frequencies is a matrix product.
//   F(4,3) has the points {0, inf, +-1/sqrt 2, +-sqrt 2} instead of the usual {0, inf, +-1, +-2}: as many operations
//   and a third of the rounding error. Frequencies stand in pairs (0, inf), (+a, -a), (+b, -b): a pair shares most of
//   its operations, and the transforms along Z make one pair at a time ("pass"), so that what lies between the
//   transform and the products stays small. The gradient of a filter is the adjoint:  dg = G^T [ (B^T d) * (A dy) ].
#if defined(FOVEA_KERNELS_WINOGRAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_KERNELS_WINOGRAD_INL_H_
#undef FOVEA_KERNELS_WINOGRAD_INL_H_
#else
#define FOVEA_KERNELS_WINOGRAD_INL_H_
#endif

#include "fovea/core/view.h"
#include "fovea/kernels/cpu/vector-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace winograd {

HWY_INLINE Vector Times(float factor, Vector x) { return hn::Mul(hn::Set(Floats(), factor), x); }
// x + factor * y and x - factor * y
HWY_INLINE Vector Plus(Vector x, float factor, Vector y) { return hn::MulAdd(hn::Set(Floats(), factor), y, x); }
HWY_INLINE Vector Minus(Vector x, float factor, Vector y) { return hn::NegMulAdd(hn::Set(Floats(), factor), y, x); }

// One axis. Data and Grad turn kSource values, the first at kOrigin from the tile's first output, into M + 2
// frequencies, a pair a pass.
template <int M>
struct Axis;

template <>
struct Axis<2> {
  struct Data {  // B^T
    static constexpr int kSource = 4, kOrigin = -1;
    static HWY_INLINE void Pair(int pass, const Vector* d, Vector& first, Vector& second) {
      if (pass == 0) {
        first = hn::Sub(d[0], d[2]), second = hn::Sub(d[1], d[3]);
      } else {
        first = hn::Add(d[1], d[2]), second = hn::Sub(d[2], d[1]);
      }
    }
  };
  struct Grad {  // A
    static constexpr int kSource = 2, kOrigin = 0;
    static HWY_INLINE void Pair(int pass, const Vector* y, Vector& first, Vector& second) {
      if (pass == 0) {
        first = y[0], second = hn::Neg(y[1]);
      } else {
        first = hn::Add(y[0], y[1]), second = hn::Sub(y[0], y[1]);
      }
    }
  };
  static HWY_INLINE void Output(const Vector* m, Vector* y) {  // A^T
    y[0] = hn::Add(m[0], hn::Add(m[2], m[3]));
    y[1] = hn::Sub(hn::Sub(m[2], m[3]), m[1]);
  }
  static HWY_INLINE void Weight(const Vector* g, Vector* u) {  // G
    const Vector outer = hn::Add(g[0], g[2]);
    u[0] = g[0], u[1] = g[2];
    u[2] = Times(0.5f, hn::Add(outer, g[1])), u[3] = Times(0.5f, hn::Sub(outer, g[1]));
  }
  static HWY_INLINE void WeightAdjoint(const Vector* u, Vector* g) {  // G^T
    const Vector sum = hn::Add(u[2], u[3]), difference = hn::Sub(u[2], u[3]);
    g[0] = Plus(u[0], 0.5f, sum), g[1] = Times(0.5f, difference), g[2] = Plus(u[1], 0.5f, sum);
  }
};

template <>
struct Axis<4> {
  static constexpr float a = 0.70710678118654752f, b = 1.41421356237309505f;  // a b = 1
  static constexpr float a2 = 0.5f, b2 = 2.0f, a3 = a / 2, b3 = b * 2;

  struct Data {
    static constexpr int kSource = 6, kOrigin = -1;
    static HWY_INLINE void Pair(int pass, const Vector* d, Vector& first, Vector& second) {
      if (pass == 0) {
        first = hn::Add(d[0], Minus(d[4], a2 + b2, d[2])), second = hn::Add(d[1], Minus(d[5], a2 + b2, d[3]));
        return;
      }
      const float point = pass == 1 ? a : b, other2 = pass == 1 ? b2 : a2;
      const Vector even = Minus(d[4], other2, d[2]), odd = Minus(d[3], other2, d[1]);
      first = Plus(even, point, odd), second = Minus(even, point, odd);
    }
  };
  struct Grad {
    static constexpr int kSource = 4, kOrigin = 0;
    static HWY_INLINE void Pair(int pass, const Vector* y, Vector& first, Vector& second) {
      if (pass == 0) {
        first = y[0], second = y[3];
        return;
      }
      const float point = pass == 1 ? a : b, square = pass == 1 ? a2 : b2;
      const Vector even = Plus(y[0], square, y[2]), odd = Plus(y[1], square, y[3]);
      first = Plus(even, point, odd), second = Minus(even, point, odd);
    }
  };
  static HWY_INLINE void Output(const Vector* m, Vector* y) {
    const Vector s1 = hn::Add(m[2], m[3]), d1 = hn::Sub(m[2], m[3]), s2 = hn::Add(m[4], m[5]), d2 = hn::Sub(m[4], m[5]);
    y[0] = hn::Add(m[0], hn::Add(s1, s2));
    y[1] = Plus(Times(b, d2), a, d1);
    y[2] = Plus(Times(b2, s2), a2, s1);
    y[3] = Plus(Plus(m[1], b3, d2), a3, d1);
  }
  // Divided by 2 a^2 (a^2 - b^2) = -3/2 and 2 b^2 (b^2 - a^2) = 6.
  static constexpr float na = -2.0f / 3, nb = 1.0f / 6;
  static HWY_INLINE void Weight(const Vector* g, Vector* u) {
    const Vector even_a = Times(na, Plus(g[0], a2, g[2])), odd = g[1], even_b = Times(nb, Plus(g[0], b2, g[2]));
    u[0] = g[0], u[1] = g[2];
    u[2] = Plus(even_a, na * a, odd), u[3] = Minus(even_a, na * a, odd);
    u[4] = Plus(even_b, nb * b, odd), u[5] = Minus(even_b, nb * b, odd);
  }
  static HWY_INLINE void WeightAdjoint(const Vector* u, Vector* g) {
    const Vector s1 = hn::Add(u[2], u[3]), d1 = hn::Sub(u[2], u[3]), s2 = hn::Add(u[4], u[5]), d2 = hn::Sub(u[4], u[5]);
    g[0] = Plus(Plus(u[0], nb, s2), na, s1);
    g[1] = Plus(Times(nb * b, d2), na * a, d1);
    g[2] = Plus(Plus(u[1], nb * b2, s2), na * a2, s1);
  }
};

// Tiles of MZ x MY x MX outputs.
template <int MZ_, int MY_, int MX_>
struct Form {
  static constexpr int MZ = MZ_, MY = MY_, MX = MX_;
  static constexpr int FZ = MZ + 2, FY = MY + 2, FX = MX + 2;
  static constexpr int kPasses = FZ / 2, kOfPass = 2 * FY * FX, kFrequencies = FZ * FY * FX;
};

// [B,Z,Y,X,C] with adjacent channels, as far as transforms need to know it.
template <class T>
struct Volume {
  T* data;
  int64_t Z, Y, X, C, sb, sz, sy, sx;
  explicit Volume(const View<T, 5>& v)
      : data(v.data),
        Z(v.shape[1]),
        Y(v.shape[2]),
        X(v.shape[3]),
        C(v.shape[4]),
        sb(v.stride[0]),
        sz(v.stride[1]),
        sy(v.stride[2]),
        sx(v.stride[3]) {}
  T* at(int64_t b, int64_t z, int64_t y, int64_t x) const { return data + b * sb + z * sz + y * sy + x * sx; }
};

struct Tile {
  int64_t b, z, y, x;  // first output
};

// Two Z frequencies of one vector of channels of one tile. load(i, y, x): the source value.
template <class Fm, class Z, class Y, class X, class Load>
HWY_INLINE void TransformVector(int pass, const Load& load, float* HWY_RESTRICT to, int64_t frequency_step) {
  const Floats d;
  Vector t[2][X::kSource][Fm::FY];
  FOVEA_EACH (x, X::kSource) {
    Vector first[Y::kSource], second[Y::kSource];
    FOVEA_EACH (y, Y::kSource) {
      Vector s[Z::kSource];
      FOVEA_EACH (i, Z::kSource) s[i] = load(i, y, x);
      Z::Pair(pass, s, first[y], second[y]);
    }
    FOVEA_EACH (p, Fm::FY / 2) {
      Y::Pair(p, first, t[0][x][2 * p], t[0][x][2 * p + 1]);
      Y::Pair(p, second, t[1][x][2 * p], t[1][x][2 * p + 1]);
    }
  }
  FOVEA_EACH (k, 2) {
    FOVEA_EACH (y, Fm::FY) {
      Vector row[X::kSource];
      FOVEA_EACH (x, X::kSource) row[x] = t[k][x][y];
      FOVEA_EACH (p, Fm::FX / 2) {
        Vector first, second;
        X::Pair(p, row, first, second);
        float* at = to + ((k * Fm::FY + y) * Fm::FX + 2 * p) * frequency_step;
        hn::Store(first, d, at), hn::Store(second, d, at + frequency_step);
      }
    }
  }
}

// The frequencies of one pass of one tile: to[f * frequency_step + c], f < kOfPass, c < C, zeros up to the next vector.
// zeros: C of them, read where the source lies outside the volume.
template <class Fm, class Z, class Y, class X, int kPass>
void TransformTile(const Volume<const float>& v, const Tile& tile, const float* zeros, float* to,
                   int64_t frequency_step) {
  const Floats d;
  const int64_t z0 = tile.z + Z::kOrigin, y0 = tile.y + Y::kOrigin, x0 = tile.x + X::kOrigin;
  const int64_t whole = v.C / L * L;
  const bool inner =
      z0 >= 0 && y0 >= 0 && x0 >= 0 && z0 + Z::kSource <= v.Z && y0 + Y::kSource <= v.Y && x0 + X::kSource <= v.X;
  if (inner) {
    const float* from = v.at(tile.b, z0, y0, x0);
    for (int64_t c = 0; c < whole; c += L)
      TransformVector<Fm, Z, Y, X>(
          kPass, [&](int i, int y, int x) { return hn::LoadU(d, from + i * v.sz + y * v.sy + x * v.sx + c); }, to + c,
          frequency_step);
    if (whole < v.C)
      TransformVector<Fm, Z, Y, X>(
          kPass,
          [&](int i, int y, int x) { return LoadSome(from + i * v.sz + y * v.sy + x * v.sx + whole, v.C - whole); },
          to + whole, frequency_step);
    return;
  }
  const float* at[Z::kSource][Y::kSource][X::kSource];
  for (int i = 0; i < Z::kSource; ++i)
    for (int y = 0; y < Y::kSource; ++y)
      for (int x = 0; x < X::kSource; ++x) {
        const int64_t zz = z0 + i, yy = y0 + y, xx = x0 + x;
        const bool inside = zz >= 0 && zz < v.Z && yy >= 0 && yy < v.Y && xx >= 0 && xx < v.X;
        at[i][y][x] = inside ? v.at(tile.b, zz, yy, xx) : zeros;
      }
  for (int64_t c = 0; c < whole; c += L)
    TransformVector<Fm, Z, Y, X>(
        kPass, [&](int i, int y, int x) { return hn::LoadU(d, at[i][y][x] + c); }, to + c, frequency_step);
  if (whole < v.C)
    TransformVector<Fm, Z, Y, X>(
        kPass, [&](int i, int y, int x) { return LoadSome(at[i][y][x] + whole, v.C - whole); }, to + whole,
        frequency_step);
}

template <class Fm, int kPass>
void DataTile(const Volume<const float>& x, const Tile& tile, const float* zeros, float* to, int64_t step) {
  TransformTile<Fm, typename Axis<Fm::MZ>::Data, typename Axis<Fm::MY>::Data, typename Axis<Fm::MX>::Data, kPass>(
      x, tile, zeros, to, step);
}
template <class Fm, int kPass>
void GradTile(const Volume<const float>& grad, const Tile& tile, const float* zeros, float* to, int64_t step) {
  TransformTile<Fm, typename Axis<Fm::MZ>::Grad, typename Axis<Fm::MY>::Grad, typename Axis<Fm::MX>::Grad, kPass>(
      grad, tile, zeros, to, step);
}

// y[z][y][x] of one vector of channels from its frequencies m[f * frequency_step].
template <class Fm>
HWY_INLINE void OutputVector(const float* HWY_RESTRICT m, int64_t frequency_step,
                             Vector (&out)[Fm::MZ][Fm::MY][Fm::MX]) {
  const Floats d;
  Vector h[Fm::MZ][Fm::MY][Fm::FX];
  FOVEA_EACH (x, Fm::FX) {
    Vector k[Fm::MZ][Fm::FY];
    FOVEA_EACH (y, Fm::FY) {
      Vector q[Fm::FZ], r[Fm::MZ];
      FOVEA_EACH (z, Fm::FZ) q[z] = hn::Load(d, m + ((z * Fm::FY + y) * Fm::FX + x) * frequency_step);
      Axis<Fm::MZ>::Output(q, r);
      FOVEA_EACH (z, Fm::MZ) k[z][y] = r[z];
    }
    FOVEA_EACH (z, Fm::MZ) {
      Vector r[Fm::MY];
      Axis<Fm::MY>::Output(k[z], r);
      FOVEA_EACH (y, Fm::MY) h[z][y][x] = r[y];
    }
  }
  FOVEA_EACH (z, Fm::MZ)
    FOVEA_EACH (y, Fm::MY) Axis<Fm::MX>::Output(h[z][y], out[z][y]);
}

// u[f] for the 27 taps g of one vector of filters.
template <class Fm, class StoreAt>
HWY_INLINE void WeightVector(const float* HWY_RESTRICT g, const StoreAt& store) {
  const Floats d;
  Vector a[Fm::FZ][9];
  FOVEA_EACH (t, 9) {
    Vector s[3], r[Fm::FZ];
    FOVEA_EACH (z, 3) s[z] = hn::Load(d, g + (z * 9 + t) * L);
    Axis<Fm::MZ>::Weight(s, r);
    FOVEA_EACH (z, Fm::FZ) a[z][t] = r[z];
  }
  for (int z = 0; z < Fm::FZ; ++z) {
    Vector h[Fm::FY][3];
    FOVEA_EACH (x, 3) {
      const Vector s[3] = {a[z][x], a[z][3 + x], a[z][6 + x]};
      Vector r[Fm::FY];
      Axis<Fm::MY>::Weight(s, r);
      FOVEA_EACH (y, Fm::FY) h[y][x] = r[y];
    }
    FOVEA_EACH (y, Fm::FY) {
      Vector r[Fm::FX];
      Axis<Fm::MX>::Weight(h[y], r);
      FOVEA_EACH (x, Fm::FX) store((z * Fm::FY + y) * Fm::FX + x, r[x]);
    }
  }
}

// The adjoint: 27 taps g from load(f).
template <class Fm, class LoadAt>
HWY_INLINE void WeightVectorAdjoint(const LoadAt& load, float* HWY_RESTRICT g) {
  const Floats d;
  Vector a[Fm::FZ][9];
  for (int z = 0; z < Fm::FZ; ++z) {
    Vector h[3][Fm::FY];
    FOVEA_EACH (y, Fm::FY) {
      Vector u[Fm::FX], r[3];
      FOVEA_EACH (x, Fm::FX) u[x] = load((z * Fm::FY + y) * Fm::FX + x);
      Axis<Fm::MX>::WeightAdjoint(u, r);
      FOVEA_EACH (x, 3) h[x][y] = r[x];
    }
    FOVEA_EACH (x, 3) {
      Vector r[3];
      Axis<Fm::MY>::WeightAdjoint(h[x], r);
      FOVEA_EACH (y, 3) a[z][3 * y + x] = r[y];
    }
  }
  FOVEA_EACH (t, 9) {
    Vector u[Fm::FZ], r[3];
    FOVEA_EACH (z, Fm::FZ) u[z] = a[z][t];
    Axis<Fm::MZ>::WeightAdjoint(u, r);
    FOVEA_EACH (z, 3) hn::Store(r[z], d, g + (z * 9 + t) * L);
  }
}

}  // namespace winograd
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS
#endif  // toggle
