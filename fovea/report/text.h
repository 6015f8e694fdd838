#pragma once
#include <string>
#include <string_view>

namespace fovea::report {

/// Text made safe inside HTML and XML elements and quoted attributes: & < > " ' are replaced, control characters and
/// bytes that are no valid UTF-8 become U+FFFD (tab and line feed stay).
std::string escape(std::string_view text);

/// printf into a string, for lines with several figures. The program never sets a locale: a point stays a point.
[[gnu::format(printf, 1, 2)]] std::string printed(const char* format, ...);

/// "0.793": fixed decimals, a point whatever the locale; "–" when not finite.
std::string fixed(double value, int decimals);

/// Shortest of fixed and scientific form with `digits` significant digits, no trailing zeros: for axis labels.
std::string compact(double value, int digits = 6);

}  // namespace fovea::report
