#pragma once
#include <cstdint>
#include <string>

namespace fovea::report {

/// An sRGB colour.
struct Colour {
  uint8_t r = 0, g = 0, b = 0;
  bool operator==(const Colour&) const = default;
};

/// "#e69f00".
std::string to_hex(Colour c);

/// Colours for categories, told apart with every common kind of colour blindness: the seven of Okabe and Ito for
/// index 0..6, then the same hues lighter and darker; repeats after 21. Index < 0 counts as 0.
Colour category_colour(int index);

/// Colour of t in [0, 1] on a scale of evenly rising lightness, dark violet over red to pale yellow; NaN counts as 0.
/// Made in OKLab (Ottosson 2020), so equal steps of t look equally large, also in greyscale print.
Colour heat_colour(double t);

}  // namespace fovea::report
